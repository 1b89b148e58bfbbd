"""Several runs side by side: what differs in their settings, which of their figures may be compared, and which differences
are more than noise.

Two sources of noise are kept apart. The held-out text is a sample (intervals.py), and a run with another seed ends elsewhere.
Only several seeds show the second one, so a difference between single runs is never called real.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from electra_accel import intervals
from electra_accel.pretraining.config_checks import FREE_GROUPS, FREE_OPTIONS
from electra_accel.reports.experiments import Experiment, Judgement

# May change when a run is resumed, and still make two experiments.
LENGTH_AND_ROUNDING = {"train.steps", "train.epochs", "train.flops", "train.precision", "train.compile"}
WITHOUT_EFFECT = set(FREE_OPTIONS) - LENGTH_AND_ROUNDING
LONGEST_LABEL = 48


class Figure(NamedTuple):
    """A held-out figure: ``better`` is "lower" or "higher", ``part`` the network that it speaks of."""

    key: str
    name: str
    better: str
    part: str


FIGURES = (
    Figure("generator_loss", "generator loss", "lower", "generator"),
    Figure("generator_accuracy", "generator accuracy", "higher", "generator"),
    Figure("discriminator_loss", "discriminator loss", "lower", "discriminator"),
    Figure("auc", "ROC-AUC", "higher", "discriminator"),
    Figure("balanced_accuracy", "balanced accuracy", "higher", "discriminator"),
    Figure("recall", "recall", "higher", "discriminator"),
    Figure("calibration_error", "calibration error", "lower", "discriminator"),
)
# What two judgements must share. The positions that the generator is asked for follow from all of these; what the
# discriminator reads depends on the replacements too.
SAME_FOR = {
    "generator": ("tokenizer", "data", "mask_prob", "seed", "tokens", "selected"),
    "discriminator": ("tokenizer", "data", "corruption"),
}
IN_WORDS = {
    "tokenizer": "another tokenizer",
    "data": "another held-out text",
    "corruption": "another corruption",
    "mask_prob": "another eval.mask_prob",
    "seed": "another eval.seed",
    "tokens": "another share of the held-out tokens",
    "selected": "another share of the held-out tokens",
}
# These follow the share of replaced tokens that a discriminator was trained with, however well it tells tokens apart.
MOVED_BY_SHARE = {"discriminator_loss", "balanced_accuracy", "recall", "calibration_error"}
SAME_SHARE = 0.05  # relative; runs that differ in their seed alone are within 1%
CONFOUNDED = "; says nothing of which is better: the share of replaced tokens in training moves it by itself"
UNKNOWN = "no record of its held-out set (held_out/held_out.json)"


@dataclass
class Group:
    """Runs that differ in their seed only.

    Attributes:
        label: short and unique.
        settings: those options that differ between the groups.
        runs: all of them, finished or not.
    """

    label: str
    settings: dict[str, Any]
    runs: list[Experiment]

    def by_seed(self, figure: Figure, reference: Judgement) -> dict[str, float]:
        """The final figure of each seed; runs that are unfinished or cannot be compared with ``reference`` are left out.

        A seed that was run twice counts once, with the mean: it is no second sample of what seeds do.
        """
        found: dict[str, list[float]] = {}
        for run in self.runs:
            value = run.final.figures.get(figure.key) if run.done and run.final else None
            if value is not None and not why_not(run.final, reference, figure.part):
                found.setdefault(str(run.options["run.seed"]), []).append(value)
        return {seed: float(np.mean(values)) for seed, values in found.items()}

    def error(self, figure: Figure) -> float | None:
        """The largest standard error that the evaluation's size gives the figure in one of the runs; None where unknown."""
        errors = [standard_errors(run.final).get(figure.key) for run in self.runs if run.done and run.final]
        return max((error for error in errors if error is not None), default=None)

    def replaced_share(self) -> float | None:
        """Mean over the runs of the share of replaced tokens in training; None where none of them says it."""
        shares = [share for run in self.runs if (share := run.replaced_share) is not None]
        return sum(shares) / len(shares) if shares else None

    def same_share(self, other: "Group") -> bool:
        """Whether the discriminators of both were trained on one share of replaced tokens, as far as is known.

        Masking, width of the generator and temperature all move it, so what was counted decides. Without a count,
        objective.mask_prob does. One network alone reads no replaced tokens: there is nothing to keep apart.
        """
        if "mlm" in (group.runs[0].options["objective.kind"] for group in (self, other)):
            return True
        shares = self.replaced_share(), other.replaced_share()
        if None in shares:
            return self.runs[0].options["objective.mask_prob"] == other.runs[0].options["objective.mask_prob"]
        return math.isclose(*shares, rel_tol=SAME_SHARE)


class Verdict(NamedTuple):
    """What can be said of one figure of two groups.

    Attributes:
        kind: "differs", "noise", "unknown" (single seeds), "confounded" (by other shares of replaced tokens in training) or
            "not comparable".
        difference: of ``group`` from the reference; ``low``, ``high``: its 95% interval. None where there is none.
    """

    figure: Figure
    group: Group
    kind: str
    text: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None


def differing(runs: list[Experiment]) -> list[str]:
    """The options in which runs differ, but for what has no effect on their figures; in the order of config.yaml."""
    names = dict.fromkeys(name for run in runs for name in run.options)
    return [
        name
        for name in names
        if name not in WITHOUT_EFFECT
        and name.split(".")[0] not in FREE_GROUPS
        and len({run.options.get(name) for run in runs}) > 1
    ]


def group_runs(runs: list[Experiment]) -> list[Group]:
    """Runs with equal settings together, in the order of their first run."""
    names = [name for name in differing(runs) if name != "run.seed"]
    together: dict[tuple, list[Experiment]] = {}
    for run in runs:
        together.setdefault(tuple(run.options.get(name) for name in names), []).append(run)
    last_words = [name.rpartition(".")[2] for name in names]
    short = {name: word if last_words.count(word) == 1 else name for name, word in zip(names, last_words, strict=True)}
    groups = []
    for members in together.values():
        settings = {name: members[0].options.get(name) for name in names}
        label = ", ".join(f"{short[name]} {value}" for name, value in settings.items()) or "all runs"
        if len(label) > LONGEST_LABEL:
            label = members[0].name + (f" and {len(members) - 1} more" if len(members) > 1 else "")
        groups.append(Group(label, settings, members))
    return groups


def why_not(one: Judgement, other: Judgement, part: str) -> str:
    """Why the figures of a part ("generator", "discriminator") in two judgements cannot be compared; "" if they can.

    Of a part that a run does not have (objective.kind mlm trains one network) there is nothing to be refused.
    """
    if part == "discriminator" and not has_discriminator(one):
        return ""
    for key in SAME_FOR[part]:
        if key not in one.held_out or key not in other.held_out:
            return UNKNOWN
        if one.held_out[key] != other.held_out[key]:
            return IN_WORDS[key]
    return ""


def has_discriminator(judgement: Judgement) -> bool:
    """Whether a pair was judged, not one network."""
    return any(figure.key in judgement.figures for figure in FIGURES if figure.part == "discriminator")


def standard_errors(judgement: Judgement) -> dict[str, float]:
    """Of each figure, as far as the size of the evaluation is known."""
    held_out = judgement.held_out
    if not {"selected", "judged"} <= held_out.keys():
        return {}
    return intervals.standard_errors(judgement.figures, selected=held_out["selected"], judged=held_out["judged"])


@dataclass
class Comparison:
    """Runs in groups, judged.

    Attributes:
        runs: in the order in which they were named.
        groups: the first one is the reference.
        against: the judgement that all others must be comparable with: the first one there is, before those of runs that
            trained one network alone (their corruption is another, and nobody reads it); None if there is none.
        in_training: the same for curves and best evaluations, which are not scored again.
        metric: the figure that eval.metric of the first run names.
        primary: the figure to decide by: ``metric``, or ROC-AUC where ``confounded`` and the metric follows the share.
        confounded: groups were trained on other shares of replaced tokens than the reference.
        verdicts: on every figure of every group but the first, the primary figure first.
    """

    runs: list[Experiment]
    groups: list[Group]
    against: Judgement | None
    in_training: Judgement | None
    metric: Figure
    primary: Figure
    confounded: bool
    verdicts: list[Verdict]


def compare(runs: list[Experiment]) -> Comparison:
    """Group the runs and judge each group against that of the first run."""
    groups = group_runs(runs)
    pairs_first = sorted(runs, key=lambda run: run.options["objective.kind"] == "mlm")
    against = next((run.final for run in pairs_first if run.final), None)
    by_key = {figure.key: figure for figure in FIGURES}
    metric = by_key[runs[0].options["eval.metric"]]
    confounded = not all(groups[0].same_share(group) for group in groups[1:])
    primary = by_key["auc"] if confounded and metric.key in MOVED_BY_SHARE else metric
    figures = sorted(FIGURES, key=lambda figure: figure != primary)
    verdicts = [judge(figure, groups[0], group, against) for figure in figures for group in groups[1:] if against]
    in_training = next((run.trained for run in pairs_first if run.trained), None)
    return Comparison(runs, groups, against, in_training, metric, primary, confounded, verdicts)


def judge(figure: Figure, reference: Group, group: Group, against: Judgement) -> Verdict:
    """Compare a figure of two groups: by Welch's interval over seeds, or with single seeds by what the evaluation allows.

    Args:
        against: the judgement that all must be comparable with: the one of the first run.
    """
    verdict = _judge(figure, reference, group, against)
    if verdict.difference is None or figure.key not in MOVED_BY_SHARE or reference.same_share(group):
        return verdict
    interval = f" (95% interval {_signed(verdict.low)} to {_signed(verdict.high)})" if verdict.low is not None else ""
    return verdict._replace(kind="confounded", text=f"{_signed(verdict.difference)}{interval}{CONFOUNDED}")


def _judge(figure: Figure, reference: Group, group: Group, against: Judgement) -> Verdict:
    ours, theirs = (list(side.by_seed(figure, against).values()) for side in (reference, group))
    if not ours or not theirs:
        without = reference if not ours else group
        finals = [run.final for run in without.runs if run.done and run.final]
        reasons = [why_not(final, against, figure.part) for final in finals]
        missing = "no final figure of a finished run"
        if figure.part == "discriminator" and finals and not any(map(has_discriminator, finals)):
            missing = "no discriminator"
        reason = next(filter(None, reasons), missing)
        return Verdict(figure, group, "not comparable", f"not comparable: {without.label} has {reason}")
    difference = float(np.mean(theirs) - np.mean(ours))
    if min(len(ours), len(theirs)) < 2:
        return _judge_single(figure, reference, group, difference, len(ours), len(theirs))
    if np.ptp(ours) == np.ptp(theirs) == 0:
        text = f"{_signed(difference)}; no seed differs from another, so that no interval can be given"
        return Verdict(figure, group, "unknown", text, difference)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one side without spread is no mistake
        interval = stats.ttest_ind(theirs, ours, equal_var=False).confidence_interval(0.95)
    low, high = float(interval.low), float(interval.high)
    if low <= 0 <= high:
        text = f"within noise: {_signed(difference)} (95% interval {_signed(low)} to {_signed(high)})"
        return Verdict(figure, group, "noise", text, difference, low, high)
    better, worse = (group, reference) if (difference > 0) == (figure.better == "higher") else (reference, group)
    near, far = sorted((abs(low), abs(high)))
    text = f"{better.label} better than {worse.label} by {abs(difference):.4f} (95% interval {near:.4f} to {far:.4f})"
    return Verdict(figure, group, "differs", text, difference, low, high)


def _judge_single(figure: Figure, reference: Group, group: Group, difference: float, *seeds: int) -> Verdict:
    """At least one side has one seed: nothing is known of what its seed did, only of the held-out sample."""
    lonely = [side.label for side, number in zip((reference, group), seeds, strict=True) if number < 2]
    unknown = "the spread over seeds is unknown" + (f" ({lonely[0]} has one)" if len(lonely) == 1 else "")
    errors = reference.error(figure), group.error(figure)
    if None in errors:
        text = f"{_signed(difference)}; the evaluation's own noise is not known for this figure, and {unknown}"
        return Verdict(figure, group, "unknown", text, difference)
    margin = intervals.Z95 * math.hypot(*errors)
    if abs(difference) <= margin:
        text = f"within the evaluation's own noise: {_signed(difference)} (up to {margin:.4f}); {unknown}"
        return Verdict(figure, group, "noise", text, difference)
    text = f"{_signed(difference)}, larger than the evaluation's own noise ({margin:.4f}); {unknown}"
    return Verdict(figure, group, "unknown", text, difference)


def _signed(number: float) -> str:
    return f"{number:+.4f}".replace("-", "−")
