"""Goodness of fit of drawn tokens. Without scipy, so that it runs on a bare GPU machine as well."""

import numpy as np
import torch

from electra_accel.randomness import uniform


def numbers(count: int, stream: int = 1) -> torch.Tensor:
    """float64 [count], uniform in [0, 1)."""
    return torch.from_numpy(uniform(stream, np.arange(count)))


def goodness(drawn: torch.Tensor, probs: torch.Tensor) -> float:
    """p-value of the chi-squared test of ``drawn`` (tokens) against ``probs``; tokens that are expected fewer than 20 times
    are judged as one group."""
    probs = probs.double() / probs.double().sum()
    observed = torch.bincount(drawn, minlength=len(probs)).double()
    expected = probs * len(drawn)
    rare = expected < 20
    if rare.any():
        observed = torch.cat([observed[~rare], observed[rare].sum()[None]])
        expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    statistic = ((observed - expected) ** 2 / expected).sum()
    return torch.special.gammaincc(torch.tensor((len(observed) - 1) / 2).double(), statistic / 2).item()
