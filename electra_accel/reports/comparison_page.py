"""comparison.html: several runs on one page, in one file that asks the network for nothing."""

import math
from textwrap import wrap

import numpy as np
from markupsafe import Markup
from plotly.graph_objects import Figure, Scatter
from scipy import stats

from electra_accel.intervals import Z95
from electra_accel.reports import comparison_text as text
from electra_accel.reports.compare import Comparison, Group, why_not
from electra_accel.reports.experiments import Experiment
from electra_accel.reports.page import DASHES, chart, charts, label, page, table, tabs
from electra_accel.tracking.calibration import COLOURS

AXES = (("steps", "train/step"), ("tokens", "train/tokens"), ("hours", "train/hours"), ("FLOPs", "train/flops"))
CURVES = (  # record key, name, the part whose comparability it needs, note
    ("eval/generator_loss", "Held-out generator loss", "generator", ""),
    ("eval/generator_accuracy", "Held-out generator accuracy", "generator", ""),
    ("eval/discriminator_loss", "Held-out discriminator loss", "discriminator", ""),
    ("eval/auc", "Held-out ROC-AUC", "discriminator", ""),
    (
        "train/loss",
        "Training loss",
        "",
        "what is minimised; its level depends on mask_prob and on the weights of the objective",
    ),
)
MOST_POINTS = 400  # of a curve
MOST_NAMES = 6  # in a legend; more groups are numbered there
# Long names break where they must, but not at each hyphen.
STYLE = Markup(
    "<style>.named :is(th, td) {{ padding-right: .9rem }} .named td:first-child {{ min-width: 9rem }} "
    ".named td:nth-child(2):not(.number) {{ min-width: 8rem }} .groups .plot {{ height: {}rem }} "
    ".key {{ columns: 20rem; column-gap: 3rem }} .key ~ .panes .plot {{ height: 25rem }}</style>\n"
)


def comparison_page(comparison: Comparison) -> str:
    """The whole document."""
    groups = comparison.groups
    lead = STYLE.format(8 + 2.6 * len(groups))
    if len(groups) == 2 and comparison.verdicts:
        first = comparison.verdicts[0]
        sides = "" if first.kind == "differs" else f", {groups[1].label} against {groups[0].label}"
        lead += Markup("<p><strong>{}{}: {}.</strong></p>\n").format(_capital(first.figure.name), sides, first.text)
    lead += Markup("").join(Markup('<p class="warning">{}</p>\n').format(flag) for flag in text.flags(comparison))
    sections = []
    if comparison.verdicts:
        sections.append((f"Compared with {groups[0].label}", _verdicts(comparison)))
    if text.seeded(comparison):
        spread = _named(table(*text.group_rows(comparison), caption="mean ± standard deviation over seeds"))
        sections.append(("Groups", spread))
    caption = "final figures ± 95% interval of the held-out sample"
    reading = Markup("\n").join(Markup("<p>{}</p>").format(sentence) for sentence in text.explanations(comparison))
    sections += [
        ("Runs", _named(table(*text.figure_rows(comparison), caption=caption))),
        ("Curves", _curves(comparison)),
        ("Settings, speed and cost", _named(table(*text.settings_rows(comparison)))),
        ("How to read this", reading),
    ]
    return page(f"Comparison of {len(comparison.runs)} runs", sections, lead=lead)


def _named(content: Markup) -> Markup:
    return Markup('<div class="named">{}</div>').format(content)


def _capital(name: str) -> str:
    return name[0].upper() + name[1:]


def _verdicts(comparison: Comparison) -> Markup:
    """All figures in one table where two groups are compared, else a table of groups for each figure, chosen by tabs."""
    picture = _spread(comparison)
    if len(comparison.groups) == 2:
        rows = [[verdict.figure.name, verdict.text] for verdict in comparison.verdicts]
        return picture + _named(table(["figure", comparison.groups[1].label], rows))
    choices = []
    for figure in dict.fromkeys(verdict.figure for verdict in comparison.verdicts):
        rows = [[verdict.group.label, verdict.text] for verdict in comparison.verdicts if verdict.figure == figure]
        choices.append((figure.name, table(["group", f"{figure.name} ({figure.better} is better)"], rows)))
    return picture + tabs("Figure", choices)


def _spread(comparison: Comparison) -> Markup:
    """The primary figure of each group: its seeds and its interval."""
    figure, primary = Figure(), comparison.primary
    points, means = [], []
    for group in comparison.groups:
        values = list(group.by_seed(primary, comparison.against).values())
        if values:
            name = "<br>".join(map(label, wrap(group.label, 22)))
            points += [(value, name) for value in values]
            means.append((float(np.mean(values)), name, _half_width(group, values, comparison)))
    if not means:
        return Markup("")
    spread, names = zip(*points)
    figure.add_scatter(
        x=spread, y=names, mode="markers", name="a seed", marker=dict(color=COLOURS[7], symbol="line-ns-open", size=12)
    )
    centre, names, half = zip(*means)
    figure.add_scatter(
        x=centre,
        y=names,
        mode="markers",
        name="mean, 95% interval",
        marker=dict(color=COLOURS[0], size=9),
        error_x=dict(type="data", array=half, color=COLOURS[0]),
    )
    figure.update_layout(
        yaxis=dict(autorange="reversed", type="category"),
        legend=dict(yref="container", y=0, yanchor="bottom"),
        margin=dict(b=64),
    )
    note = "intervals: of means over seeds (t); of a single seed only the evaluation's noise, its spread over seeds unknown"
    return Markup('<div class="groups">{}</div>\n').format(chart(figure, _capital(primary.name), note))


def _half_width(group: Group, values: list[float], comparison: Comparison) -> float | None:
    if len(values) > 1:
        return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    error = group.error(comparison.primary)
    return None if error is None else Z95 * error


def _curves(comparison: Comparison) -> Markup:
    """Overlaid curves; groups have a colour each, their seeds the same one."""
    choices = []
    for name, axis in AXES:
        drawn = [_chart(comparison, axis, name, *curve) for curve in CURVES]
        if any(drawn):
            choices.append((name, charts(part for part in drawn if part)))
    if not choices:
        return Markup("<p>Nothing was recorded yet.</p>")
    key = Markup("")
    if len(comparison.groups) > MOST_NAMES:
        names = [group.label for group in comparison.groups]
        if not text.seeded(comparison):
            names = [f"{name}: {run.name}" for name, run in zip(names, comparison.runs, strict=True)]
        items = Markup("").join(Markup("<li>{}</li>").format(name) for name in names)
        key = Markup('<ol class="key small">{}</ol>\n').format(items)
    return key + tabs("x-axis", choices)


def _chart(
    comparison: Comparison, axis: str, axis_name: str, key: str, heading: str, part: str, note: str
) -> Markup | None:
    figure, left_out = Figure(), []
    numbered = len(comparison.groups) > MOST_NAMES
    for number, group in enumerate(comparison.groups):
        line = dict(color=COLOURS[number % len(COLOURS)], dash=DASHES[number // len(COLOURS) % len(DASHES)], width=1.8)
        shown = False
        for run in group.runs:
            if part and run.trained and why_not(run.trained, comparison.in_training, part):
                left_out.append(run.name)
                continue
            x, y = _points(run, axis, key)
            if y:
                hover = f"{label(group.label)}<br>{label(run.name)}<br>%{{y:.4f}}<extra></extra>"
                name = str(number + 1) if numbered else label(group.label)
                mode = "lines+markers" if len(y) < 30 else "lines"
                figure.add_trace(
                    Scatter(
                        x=x, y=y, mode=mode, line=line, marker=dict(size=5), name=name, hovertemplate=hover,
                        legendgroup=str(number), showlegend=not shown,
                    )
                )  # fmt: skip
                shown = True
    if left_out:
        note = f"not comparable and left out: {', '.join(left_out)}"
    figure.update_layout(xaxis=dict(title=dict(text=axis_name)))
    return chart(figure, heading, note) if figure.data else None


def _points(run: Experiment, axis: str, key: str) -> tuple[list, list]:
    """A run's curve, thinned evenly to MOST_POINTS with both ends kept."""
    records = run.evaluations if key.startswith("eval/") else run.training
    known = [(record[axis], record[key]) for record in records if None not in (record.get(axis), record.get(key))]
    if len(known) > MOST_POINTS:
        known = [known[i] for i in np.linspace(0, len(known) - 1, MOST_POINTS).round().astype(int)]
    return [x for x, _ in known], [y for _, y in known]
