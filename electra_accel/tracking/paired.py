"""What a difference between two fine-tuned models says, when the same seeds were used for both."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

LEVEL = 0.95
COVERS = (
    "Differences are paired by seed; their interval (Student's t) covers what the seed moves, not which texts are in the test "
    "data. Within noise: the interval holds 0."
)


def paired_difference(figures: Mapping[int, float], first: Mapping[int, float]) -> dict[str, Any] | None:
    """Mean of figure minus the first model's, paired by seed, and its 95% interval by Student's t over the seeds.

    The interval covers what the seed moves (order, dropout, new weights, the choice of train_rows), not which texts happen to
    be in the test data.

    Args:
        figures, first: by seed.

    Returns:
        ``mean``, ``low``, ``high``, ``seeds``, and ``within_noise``: whether the interval holds 0. With one seed in common the
        last three but ``seeds`` are None; None where there is none in common.
    """
    from scipy import stats  # here: it takes a second to import

    differences = np.array([figures[seed] - first[seed] for seed in figures if seed in first])
    n = len(differences)
    if n == 0:
        return None
    mean = float(differences.mean())
    if n == 1:
        return {"mean": mean, "low": None, "high": None, "seeds": 1, "within_noise": None}
    margin = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * differences.std(ddof=1) / math.sqrt(n))
    low, high = mean - margin, mean + margin
    return {"mean": mean, "low": low, "high": high, "seeds": n, "within_noise": low <= 0 <= high}


def verdict(difference: Mapping[str, Any] | None) -> str:
    """``better``, ``worse`` or ``within noise``, where that can be told. Of all figures of tasks, higher is better."""
    if difference is None:
        return "not known yet"
    if difference["within_noise"] is None:
        return "one seed: not known"
    return "within noise" if difference["within_noise"] else "better" if difference["mean"] > 0 else "worse"


def by_seed(seeds: Mapping[str, Mapping], split: str, metric: str) -> dict[int, float]:
    """A figure of one model, without the seeds of which it is not defined.

    Args:
        seeds: ``{"1": result}``, as in ``results.json``.
    """
    found = {int(seed): result.get(split, {}).get(metric) for seed, result in seeds.items()}
    return {seed: value for seed, value in found.items() if value is not None}
