"""The charts of one run: its figures over its steps."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from plotly import graph_objects as go

from electra_accel.model.figures import shown
from electra_accel.reports.judgements import finite
from electra_accel.reports.page import chart, charts
from electra_accel.tracking.calibration import BLUE, GREY, ORANGE

MOST_POINTS = 2000
SOURCES = {  # prefix of a figure's name: where it was measured, and how its curve looks
    "train": ("training", {"color": GREY, "width": 1.5}, "lines"),
    "eval": ("held-out, fixed corruption", {"color": BLUE, "width": 2.5}, "lines+markers"),
    "eval_own": ("held-out, own generator", {"color": ORANGE, "width": 2.5, "dash": "dash"}, "lines+markers"),
}
# Name, note, unit after the number in the hover text, {key: name of the curve}.
TRAINING = (
    ("Loss", "its parts, weighted", "", {"train/loss": ""}),
    ("Replaced, and called replaced", "share of the tokens", "",
     {"train/replaced_fraction": "replaced", "train/predicted_positive_rate": "called replaced"}),
    ("Learning rate", "", "", {"train/learning_rate": "", "train/matrix_learning_rate": "of Muon's matrices"}),
    ("Gradient norm", "before clipping", "", {"train/gradient_norm": ""}),
)  # fmt: skip
SPEED = (
    ("Throughput", "per second, all processes", "",
     {"speed/tokens_per_second": "real tokens", "speed/slots_per_second": "token slots"}),
    ("Waiting for data", "share of the time", "", {"speed/data_wait": ""}),
    ("Peak memory", "of one process", " GB", {"speed/peak_memory_gb": ""}),
    ("Model FLOPs utilisation", "share of the card's peak", "", {"speed/mfu": ""}),
)  # fmt: skip


def series(records: Sequence[dict], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values of a figure, empty where it is not known; at most ``MOST_POINTS``.

    A longer curve is cut into equal stretches of which the lowest and the highest value stay, so that no spike is lost.
    """
    known = [(record["step"], record[name]) for record in records if finite(record.get(name)) is not None]
    x, y = np.array(known, dtype=float).reshape(-1, 2).T
    if len(x) <= MOST_POINTS:
        return x, y
    kept = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), MOST_POINTS // 2 - 1):
        kept |= {part[y[part].argmin()], part[y[part].argmax()]}
    kept = sorted(kept)
    return x[kept], y[kept]


def spread(entries: Sequence, most: int) -> list:
    """At most so many of them, evenly spread; the first and the last are among them."""
    places = range(len(entries)) if len(entries) <= most else np.linspace(0, len(entries) - 1, most).round().astype(int)
    return [entries[i] for i in places]


def learning_charts(records: Sequence[dict], chance: float | None) -> Markup:
    """Held-out figures over training ones; ``chance``: generator accuracy of always guessing the most frequent token."""
    made = []
    for of in shown("curves"):
        figure, note, level = go.Figure(), of.note, chance if of.level == "chance" else of.level
        for source, (text, line, mode) in SOURCES.items():
            x, y = series(records, f"{source}/{of.key}")
            if len(x) and (source != "eval_own" or of.network == "discriminator"):  # eval has the same generator
                figure.add_scatter(x=x, y=y, name=text, mode=mode, line=line, marker={"size": 5})
        if level is not None:
            figure.add_hline(y=level, line={"color": GREY, "width": 1, "dash": "dot"})
            note += f"; {level:.3f} by always guessing the most frequent one" if of.level == "chance" else ""
        if figure.data:
            made.append(chart(_over_steps(figure), of.title, note))
    return charts(made)


def plain_charts(records: Sequence[dict], wanted: Sequence[tuple]) -> Markup:
    """The charts of ``TRAINING`` or ``SPEED`` that have a value."""
    made = []
    for name, note, unit, keys in wanted:
        figure = go.Figure()
        for (key, text), colour in zip(keys.items(), (BLUE, ORANGE)):
            x, y = series(records, key)
            if len(x):
                figure.add_scatter(x=x, y=y, name=text or name, mode="lines", line={"color": colour, "width": 1.5})
        if figure.data:
            figure.update_layout(showlegend=len(figure.data) > 1, yaxis_rangemode="tozero" if unit else "normal")
            made.append(chart(_over_steps(figure, unit), name, note))
    return charts(made)


def _over_steps(figure: go.Figure, unit: str = "") -> go.Figure:
    figure.update_layout(hovermode="x unified", legend={"y": -0.25})
    hover = {"unifiedhovertitle": {"text": "step %{x:,d}"}, "spikecolor": GREY, "spikethickness": 1, "spikedash": "dot"}
    figure.update_xaxes(title={"text": "step"}, tickformat=",d", rangemode="tozero", **hover)
    figure.update_yaxes(hoverformat=".4g", ticksuffix=unit)
    return figure
