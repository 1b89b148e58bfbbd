"""The story of an adaptation: held-out figures before and after, on the domain's text and on general text, cost and advice.

Everything follows from what a run recorded. Before and after are judged on the same corruption of the same held-out text, with
replacements by the starting pair's generator (by token frequency from scratch), so their figures compare. The story speaks of
text, not of tasks: whether a task gains is for fine-tuning to show.

The verdict is on the discriminator's ROC-AUC, which ranks tokens, and not on its loss: the loss also follows the share of
replaced tokens that a discriminator has learnt to expect, and that share falls in training while the generator learns the
domain. One network alone (objective.kind mlm) is judged by its loss on the selected tokens, the generator loss here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_accel import run_folder
from electra_accel.errors import UserError
from electra_accel.tracking import settings
from electra_accel.tracking.health import CHECKS
from electra_accel.tracking.intervals import Z95, standard_errors

FIGURES = (  # (key, name, which direction is better)
    ("generator_loss", "generator loss", "lower"),
    ("generator_accuracy", "generator accuracy", "higher"),
    ("discriminator_loss", "discriminator loss", "lower"),
    ("balanced_accuracy", "discriminator balanced accuracy", "higher"),
    ("auc", "discriminator ROC-AUC", "higher"),
)
SETS = {"eval": "held_out", "general": "general"}  # prefix of the figures: name of the held-out set
FORGOTTEN = 0.1  # a tenth more errors on general text, see forgetting()


@dataclass(frozen=True)
class Change:
    """One held-out figure before and after.

    Attributes:
        name: in words; ``better``: "lower" or "higher".
        before, after: None where there is no such figure (a single network has no discriminator's).
        before_error, after_error: their standard errors, None where not known.
    """

    name: str
    better: str
    before: float | None
    after: float | None
    before_error: float | None = None
    after_error: float | None = None

    @property
    def difference(self) -> float | None:
        """After minus before."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def error(self) -> float | None:
        """Standard error of the difference: sqrt(before_error**2 + after_error**2).

        Both were judged on the same tokens, so their errors partly cancel: this is an upper bound of what it would be
        (tokens of one sentence depend on each other, which the errors themselves leave out; see intervals.py).
        """
        if self.before_error is None or self.after_error is None:
            return None
        return math.hypot(self.before_error, self.after_error)

    @property
    def verdict(self) -> str | None:
        """ "better" or "worse" where the difference is beyond its 95% interval, else "no better"; None where not known."""
        if self.difference is None or self.error is None:
            return None
        if abs(self.difference) <= Z95 * self.error:
            return "no better"
        return "better" if (self.difference > 0) == (self.better == "higher") else "worse"


@dataclass(frozen=True)
class Story:
    """What a run made of the pair that it started from.

    Attributes:
        name: of the run.
        given: it started from given networks, not from scratch.
        before_step, after_step: after which the figures were taken; the second is the exported step, or the last evaluation
            before it.
        domain, general: changes by key of ``FIGURES``; ``general`` is empty without data.eval_general_files.
        primary: the key that the verdict is on.
        chance: generator accuracy of always guessing the most frequent token of the domain's text.
        steps, tokens, hours, device_hours: spent by the run so far (device_hours: hours times processes).
        advice: {rule: sentence}, empty where all is well.
    """

    name: str
    given: bool
    before_step: int
    after_step: int
    domain: dict[str, Change]
    general: dict[str, Change]
    primary: str
    chance: float | None
    steps: int
    tokens: int | None
    hours: float | None
    device_hours: float | None
    advice: dict[str, str]


def story_of_run(folder: Path, step: int | None = None, first: Mapping[str, Any] | None = None) -> Story | None:
    """The story of a run folder; None where the run has judged nothing yet.

    Args:
        step: of the weights that are meant; default: those that the run exports.
        first: figures of step 0, which the folder of a run that began at another run's checkpoint does not have.

    Raises:
        UserError: not the folder of a run, or a damaged file in it.
    """
    if not (folder / run_folder.CONFIG).is_file():
        raise UserError(f"{folder} is not the folder of a run: there is no {run_folder.CONFIG} in it")
    records = run_folder.read_jsonl(folder / run_folder.METRICS)
    if first and not any(record["step"] == 0 for record in records):
        records.insert(0, {"step": 0, **first})
    return tell(folder.resolve().name, records, settings.read(folder), held_out_sets(folder), step)


def held_out_sets(folder: Path) -> dict[str, dict]:
    """What a run folder knows of each held-out set, by the keys of ``SETS``; empty of one that it does not have."""
    return {
        prefix: run_folder.read_json(folder / run_folder.HELD_OUT / f"{name}.json") for prefix, name in SETS.items()
    }


def tell(
    name: str,
    records: Sequence[dict],
    options: Mapping[str, Any],
    sets: Mapping[str, Mapping[str, Any]],
    step: int | None = None,
) -> Story | None:
    """See :func:`story_of_run`.

    Args:
        records: of metrics.jsonl; a figure without a value is None or missing.
        options: ``{"group.option": value}`` of the run.
        sets: by the keys of ``SETS``, what is known of each held-out set: its counts ``selected`` and ``judged``, ``chance``.
    """
    evaluations = [record for record in records if "eval/generator_loss" in record]
    if not evaluations:
        return None
    step = exported_step(evaluations, options) if step is None else step
    first = evaluations[0]
    evaluations = [record for record in evaluations if record["step"] <= max(step, first["step"])]
    domain, general = (changes(first, evaluations[-1], prefix, sets.get(prefix, {})) for prefix in SETS)
    judged = (collapse(records, step), forgetting(general), rising(evaluations))
    return Story(
        name=name,
        given=options.get("model.discriminator") is not None,
        before_step=first["step"],
        after_step=evaluations[-1]["step"],
        domain=domain,
        general=general,
        primary="auc" if domain["auc"].after is not None else "generator_loss",
        chance=sets.get("eval", {}).get("chance"),
        steps=max(record["step"] for record in records),
        tokens=_newest(records, "train/tokens"),
        hours=_newest(records, "train/hours"),
        device_hours=_newest(records, "train/device_hours"),
        advice={rule: said for rule, said in zip(("collapse", "forgetting", "rising"), judged, strict=True) if said},
    )


def exported_step(evaluations: Sequence[dict], options: Mapping[str, Any]) -> int:
    """The step whose weights a run exports: the last, or with eval.patience the first with the best eval.metric."""
    metric = options.get("eval.metric")
    known = [record for record in evaluations if metric in figures_of(record, "eval")]
    if not options.get("eval.patience") or not known:
        return evaluations[-1]["step"]
    choose = max if metric == "auc" else min
    return choose(known, key=lambda record: record[f"eval/{metric}"])["step"]


def changes(first: dict, last: dict, prefix: str, counts: Mapping[str, Any]) -> dict[str, Change]:
    """Both records' figures of one held-out set; empty where the last record has none of it.

    Args:
        prefix: ``eval`` or ``general``; the figures are ``eval/auc`` and so on.
        counts: of the held-out set, for standard errors; without them there are none.
    """
    if f"{prefix}/generator_loss" not in last:
        return {}
    before, after = figures_of(first, prefix), figures_of(last, prefix)
    errors = [{}, {}]
    if counts.get("judged"):
        errors = [
            standard_errors(figures, selected=counts["selected"], judged=counts["judged"])
            for figures in (before, after)
        ]
    return {
        key: Change(name, better, before.get(key), after.get(key), errors[0].get(key), errors[1].get(key))
        for key, name, better in FIGURES
    }


def collapse(records: Sequence[dict], step: int) -> str | None:
    """One network has nothing left to learn from the other: a check of health.py held when it was last asked.

    Rule: a ``health/…`` is 1 in the newest record up to ``step`` that has any. (A check that held once and no longer does
    is told of in the terminal and on the page, but the weights have come through it.)
    """
    watched = [
        record for record in records if record["step"] <= step and any(f"health/{name}" in record for name in CHECKS)
    ]
    held = [name for name in CHECKS if watched and watched[-1].get(f"health/{name}")]
    return "; ".join(CHECKS[name] for name in held) or None


def forgetting(general: Mapping[str, Change]) -> str | None:
    """The networks read general text worse than the pair that they started from.

    Rule: on general text errors grow by more than a tenth (``FORGOTTEN``) and by more than the 95% interval of the difference,
    where errors are the generator's perplexity, exp(loss after - loss before) > 1.1, or the pairs of a replaced and an
    original token that the discriminator puts in the wrong order, (1 - AUC after) / (1 - AUC before) > 1.1.

    Both are ratios, so the threshold means the same at any level and vocabulary. A tenth, because some loss on other text is
    the price of every adaptation: what replay is there to prevent is of another size.
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
    loss - lowest > 2 sqrt(se**2 + lowest_se**2), of the generator's loss or of the discriminator's. Two, because one alone may
    lie there by chance.
    """
    for name in ("generator loss", "discriminator loss"):
        key = name.replace(" ", "_")
        figures = [(record["step"], figures_of(record, "eval")) for record in evaluations]
        judged = [
            (step, found[key], found[f"{key}_se"]) for step, found in figures if {key, f"{key}_se"} <= found.keys()
        ]
        if len(judged) < 3:
            continue
        at, lowest, error = min(judged, key=lambda entry: entry[1])
        if all(loss - lowest > 2 * math.hypot(loss_error, error) for _, loss, loss_error in judged[-2:]):
            step, loss, _ = judged[-1]
            return (
                f"the held-out {name} of the domain rises, from {lowest:.4f} at step {at:,} to {loss:.4f} at step {step:,}: "
                "set eval.patience, which exports the best step, or train for fewer epochs"
            )
    return None


def figures_of(record: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The figures of one held-out set in an evaluation record, by name without prefix; what has no value is left out."""
    named = {name.removeprefix(f"{prefix}/"): value for name, value in record.items() if name.startswith(f"{prefix}/")}
    return {name: value for name, value in named.items() if isinstance(value, int | float) and math.isfinite(value)}


def _newest(records: Sequence[dict], key: str) -> Any:
    return next((record[key] for record in reversed(records) if record.get(key) is not None), None)
