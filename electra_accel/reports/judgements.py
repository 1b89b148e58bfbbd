"""Held-out figures of a run at one step, whether those of two runs compare, and what a difference between two steps says."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from electra_accel.intervals import Z95
from electra_accel.model.figures import FIGURES, Figure, shown, standard_errors

SHORT = ("generator_loss", "auc")  # where a run is one row of a table: what verdicts and advice look at
# What two judgements must share. The positions that the generator is asked for follow from all of these; what the
# discriminator reads depends on the replacements too.
SAME_FOR = {
    "generator": ("tokenizer", "data", "mask_prob", "seed", "tokens", "selected"),
    "discriminator": ("tokenizer", "data", "corruption"),
}
IN_WORDS = {"tokenizer": "another tokenizer", "data": "another held-out text", "corruption": "another corruption"}
IN_WORDS |= {"mask_prob": "another eval.mask_prob", "seed": "another eval.seed"}
IN_WORDS |= dict.fromkeys(("tokens", "selected"), "another share of the held-out tokens")
UNKNOWN = "no record of its held-out set (held_out/held_out.json)"


@dataclass
class Judgement:
    """Held-out figures, and on what they were measured."""

    step: int | None  # after which the networks were judged; None where that is not known
    figures: Mapping[str, float | None]  # by key without prefix (auc); None where there is no value
    held_out: Mapping[str, Any]  # identity and counts of the held-out set (held_out/held_out.json); {} where unknown

    @classmethod
    def of(cls, record: Mapping[str, Any], prefix: str, held_out: Mapping[str, Any]) -> "Judgement":
        """The figures of one held-out set (prefix ``eval`` or ``general``) in a record of metrics.jsonl."""
        start = f"{prefix}/"
        figures = {key.removeprefix(start): finite(value) for key, value in record.items() if key.startswith(start)}
        return cls(record["step"], figures, held_out)

    @property
    def errors(self) -> dict[str, float]:
        """Standard errors of the figures; empty where the size of the held-out set is not known."""
        sizes = {name: self.held_out[name] for name in ("selected", "judged") if name in self.held_out}
        return standard_errors(self.figures, **sizes) if len(sizes) == 2 else {}

    @property
    def has_discriminator(self) -> bool:
        """Whether a pair was judged, not one network."""
        return any(each.key in self.figures for each in shown("comparison") if each.network == "discriminator")

    def why_not(self, other: "Judgement", network: str) -> str:
        """Why the figures of a network do not compare with those of another judgement; "" if they do.

        Where this run has no discriminator (objective.kind mlm trains one network), there is nothing to refuse.
        """
        if network == "discriminator" and not self.has_discriminator:
            return ""
        for key in SAME_FOR[network]:
            if key not in self.held_out or key not in other.held_out:
                return UNKNOWN
            if self.held_out[key] != other.held_out[key]:
                return IN_WORDS[key]
        return ""


def figure_text(value: float | None, error: float | None = None, sign: str = "") -> str:
    """``0.5291 ± 0.0031``: with its 95% interval where the standard error is known; – for None."""
    if value is None:
        return "–"
    return f"{value:{sign}.4f}" + (f" ± {Z95 * error:.4f}" if error is not None else "")


def finite(value: Any) -> float | None:
    """A finite number as it is; None for all else, such as NaN as W&B writes it ("NaN")."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def best(records: Sequence[dict], figure: Figure, prefix: str = "eval") -> dict | None:
    """The record with the best value of a figure, the first of equals; None where none has a value."""
    key = f"{prefix}/{figure.key}"
    known = [record for record in records if finite(record.get(key)) is not None]
    return figure.best(known, lambda record: record[key])


def exported(evaluations: Sequence[dict], options: Mapping[str, Any]) -> dict:
    """The evaluation of the weights that a run exports: the last, or with eval.patience the first with the best eval.metric."""
    metric = FIGURES.get(str(options.get("eval.metric")))
    chosen = best(evaluations, metric) if metric and options.get("eval.patience") else None
    return chosen or evaluations[-1]


@dataclass(frozen=True)
class Change:
    """One held-out figure before and after."""

    name: str  # in words
    better: str  # "lower" or "higher"
    before: float | None  # None where there is no such figure (a single network has none of a discriminator)
    after: float | None
    before_error: float | None = None  # standard error, None where not known
    after_error: float | None = None

    @property
    def difference(self) -> float | None:
        """After minus before."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def error(self) -> float | None:
        """Standard error of the difference: sqrt(before_error**2 + after_error**2).

        Both were judged on the same tokens, so their errors partly cancel: this is an upper bound, but for the dependence
        between tokens of one sentence, which the errors themselves ignore (see intervals.py).
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

    @property
    def difference_text(self) -> str:
        """After minus before, with its 95% interval where that is known."""
        return figure_text(self.difference, self.error, "+")

    def __str__(self) -> str:
        return f"{figure_text(self.before)} -> {figure_text(self.after)} ({self.difference_text})"


def changes(first: Judgement, last: Judgement) -> dict[str, Change]:
    """The figures before and after, by key; empty where the last judgement has none."""
    if "generator_loss" not in last.figures:
        return {}
    known = first.figures, last.figures, first.errors, last.errors
    return {
        figure.key: Change(figure.full_name, figure.better, *(each.get(figure.key) for each in known))
        for figure in shown("story")
    }
