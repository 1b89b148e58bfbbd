"""How far a held-out figure may be off because the held-out text is only a sample: standard errors from the figures' counts.

All of them take tokens as independent. The tokens of one sentence are not quite, which makes the true errors larger; a fixed
share of the tokens is selected, which makes those of precision, F1 and the two rates smaller. None of them knows how much a
figure moves with the seed of a run. Two models that were judged on the same tokens have errors
that partly cancel in the difference, so ``sqrt(a**2 + b**2)`` is an upper bound of its error.
"""

import math
from collections.abc import Mapping

Z95 = 1.96  # a figure +- Z95 standard errors is its 95% interval


def proportion_error(share: float, number: float) -> float:
    """Of a share that was counted on ``number`` tokens, after two more with and two without are added.

    sqrt(p (1 - p) / n) of the bare share is 0 where the share is 0 or 1, as those of a young discriminator are
    (Agresti & Coull, The American Statistician 52, 1998). Among many tokens the four make no difference.
    """
    number, share = number + 4, (share * number + 2) / (number + 4)
    return math.sqrt(share * (1 - share) / number)


def auc_error(auc: float, replaced: float, original: float) -> float:
    """Of a ROC-AUC that was counted on so many replaced and original tokens (Hanley & McNeil, Radiology 143, 1982, eq. 2)."""
    two_replaced = auc / (2 - auc)  # probability that both of two replaced tokens score above one original
    two_originals = 2 * auc**2 / (1 + auc)  # that a replaced token scores above both of two originals
    variance = (
        auc * (1 - auc) + (replaced - 1) * (two_replaced - auc**2) + (original - 1) * (two_originals - auc**2)
    ) / (replaced * original)
    return math.sqrt(max(variance, 0.0))


def f1_error(f1: float, involved: float) -> float:
    """Of F1 = 2J / (1 + J); J is the share of true positives among the ``involved`` tokens, called or really replaced."""
    overlap = f1 / (2 - f1)
    return 2 / (1 + overlap) ** 2 * proportion_error(overlap, involved)


def balanced_error(balanced: float, accuracy: float, selected: float, unselected: float) -> float:
    """Of the mean of two accuracies, which follow from it and from the accuracy on all tokens; needs selected < unselected."""
    hits = accuracy * (selected + unselected)
    on_selected = min(max((hits - 2 * balanced * unselected) / (selected - unselected), 0.0), 1.0)
    on_unselected = min(max(2 * balanced - on_selected, 0.0), 1.0)
    return math.hypot(proportion_error(on_selected, selected), proportion_error(on_unselected, unselected)) / 2


def standard_errors(figures: Mapping[str, float | None], *, selected: int, judged: int) -> dict[str, float]:
    """Standard errors of held-out figures, by their names.

    Entropy and calibration error have none here, losses have theirs where ``figures`` holds ``<loss>_se``. A figure that is
    missing, None or not finite, or has no tokens to stand on, is left out.

    Args:
        figures: by name without prefix, as ``model.metrics.summarise`` gives them.
        selected: positions that the generator was asked for.
        judged: tokens without [CLS] and [SEP].
    """
    known = {name: value for name, value in figures.items() if isinstance(value, float | int) and math.isfinite(value)}
    replaced = known.get("replaced_fraction", 0.0) * judged
    called = known.get("predicted_positive_rate", 0.0) * judged
    caught = known.get("recall", 0.0) * replaced
    number = {  # of tokens that each share was counted on
        "generator_accuracy": selected,
        "discriminator_accuracy": judged,
        "precision": called,
        "recall": replaced,
        "predicted_positive_rate": judged,
        "replaced_fraction": judged,
    }
    errors = {name: proportion_error(known[name], n) for name, n in number.items() if name in known and n}
    if "f1" in known:
        errors["f1"] = f1_error(known["f1"], called + replaced - caught)
    if "auc" in known:
        errors["auc"] = auc_error(known["auc"], replaced, judged - replaced)
    if {"balanced_accuracy", "discriminator_accuracy"} <= known.keys() and selected != judged - selected:
        counts = known["balanced_accuracy"], known["discriminator_accuracy"], selected, judged - selected
        errors["balanced_accuracy"] = balanced_error(*counts)
    for loss in ("generator_loss", "discriminator_loss"):
        if f"{loss}_se" in known:
            errors[loss] = known[f"{loss}_se"]
    return errors
