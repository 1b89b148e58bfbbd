"""Held-out figures before and after: which there are, and what their difference says."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from electra_accel.intervals import Z95
from electra_accel.model.figures import standard_errors

FIGURES = (  # (key, name, which direction is better)
    ("generator_loss", "generator loss", "lower"),
    ("generator_accuracy", "generator accuracy", "higher"),
    ("discriminator_loss", "discriminator loss", "lower"),
    ("balanced_accuracy", "discriminator balanced accuracy", "higher"),
    ("auc", "discriminator ROC-AUC", "higher"),
)


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


def figures_of(record: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The figures of one held-out set in an evaluation record, by name without prefix; what has no value is left out."""
    named = {name.removeprefix(f"{prefix}/"): value for name, value in record.items() if name.startswith(f"{prefix}/")}
    return {name: value for name, value in named.items() if isinstance(value, int | float) and math.isfinite(value)}
