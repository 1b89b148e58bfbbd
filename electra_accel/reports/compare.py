"""Several runs side by side: what differs in their settings, which of their figures may be compared, and which differences
are more than noise.

Two sources of noise are kept apart. The held-out text is a sample (intervals.py), and a run with another seed ends elsewhere.
Only several seeds show the second one, so a difference between single runs is never called real.
"""

import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from electra_accel.intervals import Z95
from electra_accel.model.figures import FIGURES, Figure, shown
from electra_accel.pretraining.config_checks import FREE_GROUPS, FREE_OPTIONS
from electra_accel.reports.experiments import Experiment
from electra_accel.reports.judgements import Judgement

# May change when a run is resumed, and still make two experiments.
LENGTH_AND_ROUNDING = {
    "train.steps",
    "train.epochs",
    "train.flops",
    "train.precision",
    "train.compile",
    "train.cuda_graphs",
}
WITHOUT_EFFECT = set(FREE_OPTIONS) - LENGTH_AND_ROUNDING
LONGEST_LABEL = 48
SAME_SHARE = 0.05  # relative; runs that differ in their seed alone are within 1%


@dataclass
class Group:
    """Runs that differ in their seed only, finished or not. ``label``: short and unique."""

    label: str
    runs: list[Experiment]

    @property
    def judged(self) -> list[Experiment]:
        """The finished runs that have figures."""
        return [run for run in self.runs if run.done and run.final]

    def by_seed(self, figure: Figure, reference: Judgement | None) -> dict[str, float]:
        """The final figure of each seed; runs that are unfinished or cannot be compared with ``reference`` are left out.

        A seed that was run twice counts once, with the mean: it is no second sample of what seeds do.
        """
        found: dict[str, list[float]] = {}
        for run in self.judged if reference else []:
            value = run.final.figures.get(figure.key)
            if value is not None and not run.final.why_not(reference, figure.network):
                found.setdefault(run.seed, []).append(value)
        return {seed: float(np.mean(values)) for seed, values in found.items()}

    def error(self, figure: Figure) -> float | None:
        """The largest standard error that the evaluation's size gives the figure in one of the runs; None where unknown."""
        errors = [run.final.errors.get(figure.key) for run in self.judged]
        return max((error for error in errors if error is not None), default=None)

    @property
    def replaced_share(self) -> float | None:
        """Mean over the runs of the share of replaced tokens in training; None where none of them says it."""
        shares = [share for run in self.runs if (share := run.replaced_share) is not None]
        return sum(shares) / len(shares) if shares else None

    def same_share(self, other: "Group") -> bool:
        """Whether the discriminators of both were trained on one share of replaced tokens, as far as is known.

        What was counted decides, as many options change it; without a count objective.mask_prob does. One network alone reads
        no replaced tokens: there is nothing to keep apart.
        """
        first, second = self.runs[0], other.runs[0]
        if first.is_mlm or second.is_mlm:
            return True
        shares = self.replaced_share, other.replaced_share
        if None in shares:
            return first.options["objective.mask_prob"] == second.options["objective.mask_prob"]
        return math.isclose(*shares, rel_tol=SAME_SHARE)


class Verdict(NamedTuple):
    """What can be said of one figure of two groups."""

    figure: Figure
    group: Group
    kind: str  # differs, noise, unknown (single seeds), confounded (by the replaced shares in training), not comparable
    text: str
    difference: float | None = None  # of group from the reference
    low: float | None = None  # the 95% interval of the difference
    high: float | None = None


@dataclass
class Comparison:
    """Runs in groups, judged.

    All must be comparable with ``against``, the first judgement that there is. It is that of a run that trained one network
    alone, on a corruption of its own, only where there is no other.
    """

    runs: list[Experiment]  # in the order in which they were named
    groups: list[Group]  # the first one is the reference
    against: Judgement | None
    in_training: Judgement | None  # the same for curves and best evaluations, which are not scored again
    metric: Figure  # that eval.metric of the first run names
    primary: Figure  # to decide by: metric, or ROC-AUC where confounded and the metric follows the share
    confounded: bool  # groups were trained on other shares of replaced tokens than the reference
    figures: list[Figure]  # that are compared
    verdicts: list[Verdict]  # on every figure of every group but the first, the primary figure first

    @property
    def seeded(self) -> bool:
        """Whether a group has several runs, so that groups are worth a table of their own."""
        return any(len(group.runs) > 1 for group in self.groups)

    def group_of(self, run: Experiment) -> Group:
        return next(group for group in self.groups if any(run is other for other in group.runs))


def compare(runs: list[Experiment]) -> Comparison:
    """Group the runs and judge each group against that of the first run."""
    groups = group_runs(runs)
    pairs_first = sorted(runs, key=lambda run: run.is_mlm)
    against = next((run.final for run in pairs_first if run.final), None)
    in_training = next((run.trained for run in pairs_first if run.trained), None)
    metric = FIGURES[runs[0].options["eval.metric"]]
    confounded = not all(groups[0].same_share(group) for group in groups[1:])
    primary = FIGURES["auc"] if confounded and metric.follows_share else metric
    known = {primary.key}.union(*(run.final.figures for run in runs if run.final))
    figures = [figure for figure in shown("comparison") if not figure.optional or figure.key in known]
    primary_first = sorted(figures, key=lambda figure: figure != primary)
    verdicts = [judge(figure, groups[0], group, against) for figure in primary_first for group in groups[1:] if against]
    return Comparison(runs, groups, against, in_training, metric, primary, confounded, figures, verdicts)


def differing(runs: list[Experiment]) -> list[str]:
    """The options in which runs differ, but for what has no effect on their figures; in the order of config.yaml."""
    names = dict.fromkeys(name for run in runs for name in run.options)
    counted = [name for name in names if name not in WITHOUT_EFFECT and name.split(".")[0] not in FREE_GROUPS]
    return [name for name in counted if len({run.options.get(name) for run in runs}) > 1]


def group_runs(runs: list[Experiment]) -> list[Group]:
    """Runs with equal settings together, in the order of their first run."""
    names = [name for name in differing(runs) if name != "run.seed"]
    together: dict[tuple, list[Experiment]] = {}
    for run in runs:
        together.setdefault(tuple(run.options.get(name) for name in names), []).append(run)
    last_words = [name.rpartition(".")[2] for name in names]
    short = [word if last_words.count(word) == 1 else name for name, word in zip(names, last_words, strict=True)]
    groups = []
    for values, members in together.items():
        label = ", ".join(f"{name} {value}" for name, value in zip(short, values)) or "all runs"
        if len(label) > LONGEST_LABEL:
            label = members[0].name + (f" and {len(members) - 1} more" if len(members) > 1 else "")
        groups.append(Group(label, members))
    return groups


def judge(figure: Figure, reference: Group, group: Group, against: Judgement) -> Verdict:
    """Compare a figure of two groups: by Welch's interval over seeds, or with single seeds by what the evaluation allows.

    What cannot be compared with ``against`` is left out.
    """
    sides = reference, group
    values = [list(side.by_seed(figure, against).values()) for side in sides]
    for side, found in zip(sides, values):
        if not found:
            why = f"not comparable: {side.label} has {_why_nothing(side, figure, against)}"
            return Verdict(figure, group, "not comparable", why)
    ours, theirs = values
    difference, low, high, interval = float(np.mean(theirs) - np.mean(ours)), None, None, ""
    if lonely := [side.label for side, found in zip(sides, values) if len(found) < 2]:
        kind, text = _single(figure, sides, difference, lonely)
    elif np.ptp(ours) == np.ptp(theirs) == 0:
        kind, text = "unknown", f"{_signed(difference)}; all seeds of a group agree, so there is no interval"
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # one side without spread is no mistake
            low, high = map(float, stats.ttest_ind(theirs, ours, equal_var=False).confidence_interval(0.95))
        interval = f" (95% interval {_signed(low)} to {_signed(high)})"
        kind, text = "noise", f"within noise: {_signed(difference)}{interval}"
        if not low <= 0 <= high:
            better, worse = (group, reference) if figure.is_better(difference, 0) else sides
            near, far = sorted((abs(low), abs(high)))
            kind, text = "differs", f"{better.label} better than {worse.label} by {abs(difference):.4f}"
            text += f" (95% interval {near:.4f} to {far:.4f})"
    if figure.follows_share and not reference.same_share(group):
        why = "this does not say which is better: the share of replaced tokens in training changes it by itself"
        kind, text = "confounded", f"{_signed(difference)}{interval}; {why}"
    return Verdict(figure, group, kind, text, difference, low, high)


def _why_nothing(group: Group, figure: Figure, against: Judgement) -> str:
    """Why a group has no value of a figure that may be compared."""
    finals = [run.final for run in group.judged]
    if reason := next(filter(None, (final.why_not(against, figure.network) for final in finals)), ""):
        return reason
    if figure.network == "discriminator" and finals and not any(final.has_discriminator for final in finals):
        return "no discriminator"
    lacks_it = figure.optional and finals and not any(figure.key in final.figures for final in finals)
    return "no such figure" if lacks_it else "no final figure of a finished run"


def _single(figure: Figure, sides: tuple[Group, Group], difference: float, lonely: list[str]) -> tuple[str, str]:
    """Kind and text where at least one side has one seed: only the noise of the held-out sample is known."""
    unknown = "the spread over seeds is unknown" + (f" ({lonely[0]} has one)" if len(lonely) == 1 else "")
    errors, said, own = [side.error(figure) for side in sides], _signed(difference), "the evaluation's own noise"
    if None in errors:
        return "unknown", f"{said}; {own} is not known for this figure, and {unknown}"
    margin = Z95 * math.hypot(*errors)
    if abs(difference) <= margin:
        return "noise", f"within {own}: {said} (up to {margin:.4f}); {unknown}"
    return "unknown", f"{said}, larger than {own} ({margin:.4f}); {unknown}"


def _signed(number: float) -> str:
    return f"{number:+.4f}".replace("-", "−")
