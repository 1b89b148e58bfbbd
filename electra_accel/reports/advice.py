"""Advice on an adaptation: five rules on what a run recorded. Each gives a sentence, or None where all is well."""

import math
from collections.abc import Mapping, Sequence

from electra_accel.model.figures import FIGURES
from electra_accel.reports.judgements import Change, finite
from electra_accel.text.encode import MANY_UNKNOWN
from electra_accel.tracking.health import CHECKS

FORGOTTEN = 0.1  # a tenth more errors on general text, see forgetting()
RULES = ("unknown", "collapse", "forgetting", "rising", "small")  # of advice


def unknown(share: float | None) -> str | None:
    """More than 2% (``MANY_UNKNOWN``) of the domain's held-out tokens are [UNK]: figures on those say nothing of the text."""
    if share is None or share <= MANY_UNKNOWN:
        return None
    return (
        f"{share:.1%} of the held-out tokens are [UNK], so the figures say less about the text: the tokenizer does not fit it. "
        "pretrain.py and prepare_data.py name the likely cause when they prepare the text"
    )


def collapse(records: Sequence[dict], step: int) -> str | None:
    """One network has nothing left to learn from the other: a check of tracking/health.py holds.

    Rule: a ``health/…`` is 1 in the newest record up to ``step`` that has any. A check that held only earlier is shown in
    the terminal and on the page, but is no advice: the weights have recovered from it.
    """
    so_far = [record for record in records if record["step"] <= step]
    watched = [record for record in so_far if any(f"health/{name}" in record for name in CHECKS)]
    return "; ".join(said for name, said in CHECKS.items() if watched and watched[-1].get(f"health/{name}")) or None


def forgetting(general: Mapping[str, Change]) -> str | None:
    """The networks read general text worse than the pair that they started from.

    Rule: on general text, errors grow by more than a tenth (``FORGOTTEN``) and by more than the 95% interval of the
    difference. Errors are the generator's perplexity, exp(loss after - loss before) > 1.1, or the pairs of a replaced and an
    original token that the discriminator puts in the wrong order, (1 - AUC after) / (1 - AUC before) > 1.1.

    Both are ratios, so the threshold means the same at any level and with any vocabulary. A tenth, because every adaptation
    loses a little on other text; replay is there to prevent much more than that.
    """
    measures = {
        "generator_loss": ("the generator's perplexity", math.exp),
        "auc": ("the share of token pairs that the discriminator orders wrongly", lambda auc: 1 - auc),
    }
    grown = []
    for key, (what, errors_of) in measures.items():
        change = general.get(key)
        if change is not None and change.verdict == "worse":
            before, after = errors_of(change.before), errors_of(change.after)
            if after > (1 + FORGOTTEN) * before:
                grown.append(f"{what} rises from {before:.4g} to {after:.4g}")
    if not grown:
        return None
    return (
        f"general text is being forgotten: {', and '.join(grown)}. Mix general text in (data.replay_files, or a larger "
        "data.replay_fraction), lower optim.learning_rate, or train for fewer steps"
    )


def rising(evaluations: Sequence[dict]) -> str | None:
    """The networks begin to learn the training text by heart: a held-out loss of the domain rises again.

    Rule: each of the last two evaluations lies above the lowest so far by more than 2 standard errors of the difference,
    loss - lowest > 2 sqrt(se**2 + lowest_se**2), for the generator's loss or the discriminator's. Two evaluations, because
    one may lie there by chance.
    """
    for key in ("generator_loss", "discriminator_loss"):
        names = f"eval/{key}", f"eval/{key}_se"
        judged = [(*(finite(record.get(name)) for name in names), record["step"]) for record in evaluations]
        judged = [entry for entry in judged if None not in entry]
        if len(judged) < 3:
            continue
        lowest, error, at = min(judged, key=lambda entry: entry[0])
        if all(loss - lowest > 2 * math.hypot(loss_error, error) for loss, loss_error, _ in judged[-2:]):
            loss, _, step = judged[-1]
            return (
                f"the held-out {FIGURES[key].name} of the domain rises, from {lowest:.4f} at step {at:,} to {loss:.4f} at step "
                f"{step:,}: set eval.patience, which exports the best step, or train for fewer epochs"
            )
    return None
