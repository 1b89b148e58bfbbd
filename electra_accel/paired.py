"""What a difference between two fine-tuned models says, when the same seeds were used for both."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

LEVEL = 0.95
EQUAL = 1e-12  # figures are ratios of counts: a smaller difference is rounding
COVERS = (
    "Differences are paired by seed; their interval (Student's t) covers what the seed moves, not which texts are in the test "
    "data. Within noise: the interval holds 0."
)


def paired_difference(figures: Mapping[int, float | None], first: Mapping[int, float | None]) -> dict[str, Any] | None:
    """Mean of figure minus the first model's, paired by seed, and its 95% interval by Student's t over the seeds.

    Args:
        figures, first: by seed; None where a figure is not defined.

    Returns:
        ``mean``, ``low``, ``high``, ``seeds`` (pairs), ``undefined`` (pairs of which a figure is not defined), and
        ``within_noise``: whether the interval holds 0. ``low``, ``high`` and ``within_noise`` are None where nothing can be
        said of noise: one pair only, a pair that is not defined, or the same difference in all pairs, unless it is 0. None
        where no pair has both figures.
    """
    from scipy import stats  # here: it takes a second to import

    pairs = [(figures[seed], first[seed]) for seed in figures if seed in first]
    differences = np.array([a - b for a, b in pairs if a is not None and b is not None])
    n = len(differences)
    if n == 0:
        return None
    mean = float(differences.mean())
    known = {"mean": mean, "seeds": len(pairs), "undefined": len(pairs) - n}
    all_equal = bool(np.allclose(differences, mean, rtol=0, atol=EQUAL))
    if n == 1 or n < len(pairs) or (all_equal and abs(mean) > EQUAL):
        return known | {"low": None, "high": None, "within_noise": None}
    margin = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * differences.std(ddof=1) / math.sqrt(n))
    low, high = mean - margin, mean + margin
    return known | {"low": low, "high": high, "within_noise": all_equal or low <= 0 <= high}


def verdict(difference: Mapping[str, Any] | None) -> str:
    """``better``, ``worse`` or ``within noise``, or why it is not known. Of all figures of tasks, higher is better."""
    if difference is None:
        return "not known yet"
    if difference["within_noise"] is not None:
        return "within noise" if difference["within_noise"] else "better" if difference["mean"] > 0 else "worse"
    if difference["undefined"]:
        return f"undefined with {difference['undefined']} of {difference['seeds']} seeds: not known"
    return "one seed: not known" if difference["seeds"] == 1 else "equal with all seeds: not known"


def by_seed(seeds: Mapping[str, Mapping], split: str, metric: str) -> dict[int, float | None]:
    """A figure of one model; None where it is not defined, such as a correlation with a constant.

    Args:
        seeds: ``{"1": result}``, as in ``results.json``.
    """
    return {int(seed): result[split][metric] for seed, result in seeds.items() if metric in result.get(split, {})}
