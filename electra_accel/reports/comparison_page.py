"""comparison.html: several runs on one page, in one file that asks the network for nothing."""

import math
from textwrap import wrap

import numpy as np
from markupsafe import Markup
from plotly.graph_objects import Figure as Chart
from scipy import stats

from electra_accel.intervals import Z95
from electra_accel.model.figures import shown
from electra_accel.reports import comparison_text as text
from electra_accel.reports.compare import Comparison, Group
from electra_accel.reports.curves import spread
from electra_accel.reports.experiments import Experiment
from electra_accel.reports.page import DASHES, Table, capital, chart, charts, label, page, tabs, template
from electra_accel.tracking.calibration import COLOURS

AXES = {"steps": "train/step", "tokens": "train/tokens", "hours": "train/hours", "FLOPs": "train/flops"}
LOSS_NOTE = "what is minimised; its level depends on mask_prob and on the weights of the objective"
MOST_POINTS = 400  # of a curve
MOST_NAMES = 6  # in a legend; more groups are numbered there


def comparison_page(comparison: Comparison) -> str:
    """The whole document."""
    parts, groups, sections = template("comparison.html"), comparison.groups, []
    for heading, (caption, found) in text.tables(comparison).items():
        verdicts = heading.startswith("Compared with")
        sections.append((heading, _verdicts(comparison) if verdicts else parts.named(found, caption)))
        if heading == "Runs":
            sections.append(("Curves", _curves(comparison)))
    sections.append(("How to read this", parts.paragraphs(text.explanations(comparison))))
    verdict = comparison.verdicts[0] if len(groups) == 2 and comparison.verdicts else None
    lead = parts.head(groups, capital(comparison.primary.name), verdict, text.flags(comparison))
    return page(f"Comparison of {len(comparison.runs)} runs", sections, lead)


def _verdicts(comparison: Comparison) -> Markup:
    """All figures in one table where two groups are compared, else a table of groups for each figure, chosen by tabs."""
    picture, verdicts = _spread(comparison), comparison.verdicts
    if len(comparison.groups) == 2:
        rows = [[verdict.figure.name, verdict.text] for verdict in verdicts]
        return picture + template("comparison.html").named(Table(["figure", comparison.groups[1].label], rows), "")
    choices = []
    for figure in dict.fromkeys(verdict.figure for verdict in verdicts):
        rows = [[verdict.group.label, verdict.text] for verdict in verdicts if verdict.figure == figure]
        choices.append((figure.name, Table(["group", f"{figure.name} ({figure.better} is better)"], rows).html()))
    return picture + tabs("Figure", choices)


def _spread(comparison: Comparison) -> Markup:
    """The primary figure of each group: its seeds and its interval."""
    drawn, primary = Chart(), comparison.primary
    found = [(group, list(group.by_seed(primary, comparison.against).values())) for group in comparison.groups]
    found = [("<br>".join(map(label, wrap(group.label, 22))), group, seeds) for group, seeds in found if seeds]
    if not found:
        return Markup("")
    each, names = zip(*((value, name) for name, _, seeds in found for value in seeds))
    marker = dict(color=COLOURS[7], symbol="line-ns-open", size=12)
    drawn.add_scatter(x=each, y=names, mode="markers", name="a seed", marker=marker)
    x, y = [float(np.mean(seeds)) for _, _, seeds in found], [name for name, _, _ in found]
    half = [_half_width(group, seeds, comparison) for _, group, seeds in found]
    look = dict(marker=dict(color=COLOURS[0], size=9), error_x=dict(type="data", array=half, color=COLOURS[0]))
    drawn.add_scatter(x=x, y=y, mode="markers", name="mean, 95% interval", **look)
    legend = dict(yref="container", y=0, yanchor="bottom")
    drawn.update_layout(yaxis=dict(autorange="reversed", type="category"), legend=legend, margin=dict(b=64))
    note = "intervals: of means over seeds (t); of a single seed only the evaluation's noise, its spread over seeds unknown"
    return template("comparison.html").spread(chart(drawn, capital(primary.name), note))


def _half_width(group: Group, values: list[float], comparison: Comparison) -> float | None:
    if len(values) > 1:
        return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    error = group.error(comparison.primary)
    return None if error is None else Z95 * error


def _curves(comparison: Comparison) -> Markup:
    """Overlaid curves; groups have a colour each, their seeds the same one."""
    parts, choices = template("comparison.html"), []
    curves = [(f"eval/{each.key}", f"Held-out {each.name}", each.network) for each in shown("story")]
    for name in AXES:
        drawn = [_chart(comparison, name, *curve) for curve in (*curves, ("train/loss", "Training loss", ""))]
        if any(drawn):
            choices.append((name, charts(filter(None, drawn))))
    if not choices:
        return parts.paragraphs(["Nothing was recorded yet."])
    groups = comparison.groups if len(comparison.groups) > MOST_NAMES else []
    names = [group.label if comparison.seeded else f"{group.label}: {group.runs[0].name}" for group in groups]
    return parts.key(names) + tabs("x-axis", choices)


def _chart(comparison: Comparison, axis: str, key: str, heading: str, network: str) -> Markup | None:
    """Args: network: whose figure it is; runs in which it is not comparable are left out. "": it always is."""
    drawn, left_out = Chart(), []
    numbered = len(comparison.groups) > MOST_NAMES
    for number, group in enumerate(comparison.groups):
        line = dict(color=COLOURS[number % len(COLOURS)], dash=DASHES[number // len(COLOURS) % len(DASHES)], width=1.8)
        legend = dict(
            name=str(number + 1) if numbered else label(group.label), legendgroup=str(number), showlegend=True
        )
        for run in group.runs:
            if network and run.trained and run.trained.why_not(comparison.in_training, network):
                left_out.append(run.name)
                continue
            x, y = _points(run, AXES[axis], key)
            if y:
                look = dict(mode="lines+markers" if len(y) < 30 else "lines", line=line, marker=dict(size=5), **legend)
                hover = f"{label(group.label)}<br>{label(run.name)}<br>%{{y:.4f}}<extra></extra>"
                drawn.add_scatter(x=x, y=y, hovertemplate=hover, **look)
                legend["showlegend"] = False
    note = f"not comparable and left out: {', '.join(left_out)}" if left_out else "" if network else LOSS_NOTE
    drawn.update_layout(xaxis=dict(title=dict(text=axis)))
    return chart(drawn, heading, note) if drawn.data else None


def _points(run: Experiment, axis: str, key: str) -> tuple[list, list]:
    """A run's curve, thinned evenly to MOST_POINTS with both ends kept."""
    records = run.evaluations if key.startswith("eval/") else run.training
    known = [(record[axis], record[key]) for record in records if None not in (record.get(axis), record.get(key))]
    known = spread(known, MOST_POINTS)
    return [x for x, _ in known], [y for _, y in known]
