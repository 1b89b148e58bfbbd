"""Every figure of a pair, once: its name, which way is better, how it is made from counts, and how far it may be off.

Logging, W&B's summaries, tables, pages, ``eval.metric`` and the comparison of runs all read ``FIGURES``. A new figure is one
entry here, and one counter in metrics.py if the counters there do not suffice. No torch in here: ``--help`` reads this file.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from electra_accel import intervals

Counts = Mapping[str, float]
# The tables before and after, those of compare_runs.py, the page of a run; and in the terminal: lines, beside the progress bar.
STORY, COMPARISON, CURVES, LINES, BAR = "story", "comparison", "curves", "lines", "bar"
EVERYWHERE = (STORY, COMPARISON, CURVES)


@dataclass(frozen=True)
class Figure:
    """One figure."""

    key: str  # in metrics.jsonl, after a prefix such as ``eval/``
    name: str  # in words
    network: str  # that it speaks of, "generator" or "discriminator"
    better: str  # "higher" or "lower"; "" where neither is
    note: str  # unit or meaning
    # Makes it from the counters of ``metrics.SCALARS``, ``metrics.OF_CORRECTIONS`` and ``ordered_pairs``, or gives None where
    # these are not there; None: made elsewhere.
    of: Callable[[Counts], float | None] | None = None
    # Makes its standard error from its value and the counts of :func:`standard_errors`; None: not known.
    error: Callable[[float, Counts], float | None] | None = None
    shown: tuple[str, ...] = EVERYWHERE  # the places where it is shown
    chooses: bool = False  # may be eval.metric; W&B's summary is then its best value and not its last
    # Of a network that has learnt nothing; "chance": that of always guessing the most frequent token.
    level: float | str | None = None
    follows_share: bool = False  # changes with the share of replaced tokens, however well tokens are told apart
    optional: bool = False  # of an objective that few runs have; a comparison of runs without it leaves it out

    @property
    def full_name(self) -> str:
        """With the network in it."""
        return self.name if self.network in self.name else f"{self.network} {self.name}"

    @property
    def title(self) -> str:
        """The full name with a capital letter."""
        return self.full_name[0].upper() + self.full_name[1:]

    def is_better(self, value: float, other: float) -> bool:
        """Whether ``value`` is better than ``other``; False where either is NaN."""
        return value > other if self.better == "higher" else value < other

    def best(self, entries: Sequence[Any], value: Callable[[Any], float]) -> Any:
        """The entry with the best value, the first of equals; None of none."""
        return (max if self.better == "higher" else min)(entries, key=value, default=None)


def ratio(numerator: float, denominator: float) -> float:
    """NaN where the denominator is 0."""
    return numerator / denominator if denominator else math.nan


def _ratio_of(numerator: str, denominator: str) -> Callable[[Counts], float]:
    return lambda c: ratio(c[numerator], c[denominator])


def _corrections(numerator: str, denominator: str) -> Callable[[Counts], float | None]:
    """A share of the selected tokens, of the replaced ones, or of those kept; None without a corrective head."""

    def of(c: Counts) -> float | None:
        if "corrective_loss" not in c:
            return None
        corrected, kept = c["corrected_replaced"] + c["corrected_kept"], c["selected"] - c["replaced"]
        known = {**c, "corrected": corrected, "kept": kept}
        return ratio(known[numerator], known[denominator])

    return of


def _balanced(c: Counts) -> float:
    if not c["judged"]:
        return math.nan
    on_unselected = ratio(c["correct_unselected"], c["judged"] - c["selected"])
    return (ratio(c["correct_selected"], c["selected"]) + on_unselected) / 2


def _share_of(number: str) -> Callable[[float, Counts], float | None]:
    """The rule of a share that was counted on so many tokens."""
    return lambda value, c: intervals.proportion_error(value, c[number]) if c[number] else None


def _mean_loss(network: str) -> Callable[[float, Counts], float | None]:
    """The rule of a mean: its own scatter, which is recorded beside it."""
    return lambda value, c: c.get(f"{network}_loss_se")


def _balanced_error(value: float, c: Counts) -> float | None:
    selected, unselected = c["selected"], c["judged"] - c["selected"]
    if "discriminator_accuracy" not in c or selected == unselected:
        return None
    return intervals.balanced_error(value, c["discriminator_accuracy"], selected, unselected)


G, D = "generator", "discriminator"
# fmt: off
_FIGURES = (
    Figure("generator_loss", "generator loss", G, "lower", "nats per selected token",
           _ratio_of("generator_loss", "selected"), _mean_loss(G), (*EVERYWHERE, LINES), chooses=True),
    Figure("generator_accuracy", "generator accuracy", G, "higher", "the most probable token is the original",
           _ratio_of("generator_correct", "selected"), _share_of("selected"), (*EVERYWHERE, LINES), level="chance"),
    Figure("generator_entropy", "generator entropy", G, "", "nats; near 0 it has collapsed",
           _ratio_of("generator_entropy", "selected"), shown=(CURVES,)),
    Figure("discriminator_loss", "discriminator loss", D, "lower", "nats per token",
           lambda c: ratio(c["discriminator_loss"], c["tokens"] if c["judged"] else 0), _mean_loss(D), (*EVERYWHERE, LINES),
           chooses=True, follows_share=True),
    # The probability that a replaced token has the higher logit than an original one, ties counting half.
    Figure("auc", "ROC-AUC", D, "higher", "0.5 is chance",
           lambda c: ratio(c["ordered_pairs"], c["replaced"] * (c["judged"] - c["replaced"])),
           lambda value, c: intervals.auc_error(value, c["replaced"], c["judged"] - c["replaced"]),
           (*EVERYWHERE, LINES, BAR), chooses=True, level=0.5),
    Figure("balanced_accuracy", "balanced accuracy", D, "higher", "mean over selected and other tokens",
           _balanced, _balanced_error, level=0.5, follows_share=True),
    Figure("recall", "recall", D, "higher", "share of the replaced tokens that it finds",
           _ratio_of("true_positives", "replaced"), _share_of("replaced"), (COMPARISON, CURVES), follows_share=True),
    Figure("precision", "precision", D, "higher", "share of its finds that were replaced",
           lambda c: ratio(c["true_positives"], c["true_positives"] + c["false_positives"]), _share_of("called"), (CURVES,)),
    Figure("f1", "F1", D, "higher", "harmonic mean of precision and recall",
           lambda c: ratio(2 * c["true_positives"], c["true_positives"] + c["false_positives"] + c["replaced"]),
           lambda value, c: intervals.f1_error(value, c["called"] + c["replaced"] - c["caught"]), ()),
    Figure("discriminator_accuracy", "discriminator accuracy", D, "higher", "share of the tokens that it judges rightly",
           lambda c: ratio(c["correct_selected"] + c["correct_unselected"], c["judged"]), _share_of("judged"), (LINES,)),
    Figure("predicted_positive_rate", "called replaced", D, "", "share of the tokens",
           lambda c: ratio(c["true_positives"] + c["false_positives"], c["judged"]), _share_of("judged"), ()),
    Figure("replaced_fraction", "replaced", D, "", "share of the tokens",
           _ratio_of("replaced", "judged"), _share_of("judged"), ()),
    Figure("calibration_error", "calibration error", D, "lower", "mean distance of its probabilities from the truth",
           shown=(COMPARISON,), follows_share=True),
    Figure("corrective_loss", "corrective loss", D, "lower", "nats per selected token",
           _corrections("corrective_loss", "selected"), _mean_loss("corrective"), (*EVERYWHERE, LINES), chooses=True,
           follows_share=True, optional=True),
    Figure("corrective_accuracy", "corrective accuracy", D, "higher", "the most probable token is the original",
           _corrections("corrected", "selected"), _share_of("selected"), (*EVERYWHERE, LINES), follows_share=True,
           optional=True),
    Figure("corrective_accuracy_replaced", "corrective accuracy on replaced tokens", D, "higher",
           "the most probable token is the original", _corrections("corrected_replaced", "replaced"), _share_of("replaced"),
           (COMPARISON, CURVES), follows_share=True, optional=True),
    Figure("corrective_accuracy_kept", "corrective accuracy on kept tokens", D, "higher",
           "the most probable token is the original, which it reads", _corrections("corrected_kept", "kept"),
           _share_of("kept"), (COMPARISON, CURVES), follows_share=True, optional=True),
)
# fmt: on
FIGURES = {figure.key: figure for figure in _FIGURES}
METRICS = tuple(key for key, figure in FIGURES.items() if figure.chooses)  # what eval.metric may be


def shown(where: str) -> list[Figure]:
    """The figures that are shown in a place; but for curves only those of which higher or lower is better."""
    return [figure for figure in FIGURES.values() if where in figure.shown and (figure.better or where == CURVES)]


def in_words(values: Mapping[str, float], prefix: str, where: str = LINES) -> str:
    """``generator loss 5.3301, …``: what is shown in a place, of the values whose names begin with ``prefix/``."""
    known = {figure: values.get(f"{prefix}/{figure.key}") for figure in shown(where)}
    named = {figure.name if where == BAR else figure.full_name: value for figure, value in known.items()}
    return ", ".join(f"{name} {value:.4f}" for name, value in named.items() if value is not None)


def standard_errors(figures: Mapping[str, float | None], *, selected: int, judged: int) -> dict[str, float]:
    """Standard errors of held-out figures, by their keys; see intervals.py for what they take for granted.

    A figure that is missing, None or not finite, that has no rule, or that was counted on no tokens, is left out.

    Args:
        figures: by key without prefix, as ``metrics.summarise`` gives them, with ``<loss>_se`` for the errors of losses.
        selected: positions that the generator was asked for.
        judged: tokens without [CLS] and [SEP].
    """
    known = {key: value for key, value in figures.items() if isinstance(value, float | int) and math.isfinite(value)}
    replaced = known.get("replaced_fraction", 0.0) * judged
    counts = {"selected": selected, "judged": judged, "replaced": replaced, "kept": selected - replaced}
    counts |= {
        "caught": known.get("recall", 0.0) * replaced,
        "called": known.get("predicted_positive_rate", 0.0) * judged,
    }
    rules = {key: figure.error for key, figure in FIGURES.items() if figure.error and key in known}
    errors = {key: rule(known[key], known | counts) for key, rule in rules.items()}
    return {key: error for key, error in errors.items() if error is not None}
