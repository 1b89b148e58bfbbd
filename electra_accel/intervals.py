"""How far a held-out figure may be off because the held-out text is only a sample: formulas of standard errors.

model/figures.py says which figure has which of them. All of them take tokens as independent. The tokens of one sentence are
not quite, which makes the true errors larger; a fixed share of the tokens is selected, which makes those of precision, F1 and
the two rates smaller. None of them knows how much a figure moves with the seed of a run. Two models that were judged on the
same tokens have errors that partly cancel in the difference, so ``sqrt(a**2 + b**2)`` is an upper bound of its error.
"""

import math

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
