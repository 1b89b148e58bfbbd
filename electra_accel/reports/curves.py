"""The charts of one run: what its figures say over its steps."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup
from plotly import graph_objects as go

from electra_accel.reports.page import chart, charts
from electra_accel.tracking.calibration import BLUE, GREY, ORANGE

MOST_POINTS = 2000
SOURCES = {  # prefix of a figure's name: where it was measured, and how its curve looks
    "train": ("training", {"color": GREY, "width": 1.5}, "lines"),
    "eval": ("held-out, fixed corruption", {"color": BLUE, "width": 2.5}, "lines+markers"),
    "eval_own": ("held-out, own generator", {"color": ORANGE, "width": 2.5, "dash": "dash"}, "lines+markers"),
}
EVERYWHERE = ("train", "eval", "eval_own")
LEARNING = (  # figure, name, note, where from (the generator is the same in eval and eval_own), a line to compare with
    ("generator_loss", "Generator loss", "nats per selected token", ("train", "eval"), None),
    ("discriminator_loss", "Discriminator loss", "nats per token", EVERYWHERE, None),
    (
        "generator_accuracy",
        "Generator accuracy",
        "the most probable token is the original",
        ("train", "eval"),
        "chance",
    ),
    ("auc", "Discriminator ROC-AUC", "0.5 is chance", EVERYWHERE, 0.5),
    ("balanced_accuracy", "Discriminator balanced accuracy", "mean over selected and other tokens", EVERYWHERE, 0.5),
    ("recall", "Discriminator recall", "share of the replaced tokens that it finds", EVERYWHERE, None),
    ("precision", "Discriminator precision", "share of its finds that were replaced", EVERYWHERE, None),
    ("generator_entropy", "Generator entropy", "nats; near 0 it has collapsed", ("train", "eval"), None),
)
OF_TRAINING = (  # name, note, unit after the number in the hover text, [(key, name of the curve)]
    ("Loss", "both parts, weighted", "", [("train/loss", "")]),
    (
        "Replaced, and called replaced",
        "share of the tokens",
        "",
        [("train/replaced_fraction", "replaced"), ("train/predicted_positive_rate", "called replaced")],
    ),
    ("Learning rate", "", "", [("train/learning_rate", "")]),
    ("Gradient norm", "before clipping", "", [("train/gradient_norm", "")]),
)
OF_SPEED = (
    (
        "Throughput",
        "per second, all processes",
        "",
        [("speed/tokens_per_second", "real tokens"), ("speed/slots_per_second", "token slots")],
    ),
    ("Waiting for data", "share of the time", "", [("speed/data_wait", "")]),
    ("Peak memory", "of one process", " GB", [("speed/peak_memory_gb", "")]),
    ("Model FLOPs utilisation", "share of the card's peak", "", [("speed/mfu", "")]),
)


Columns = dict[str, tuple[list[float], list[float]]]


def columns(records: Iterable[dict]) -> Columns:
    """``{figure: (steps, values)}`` where it has a value."""
    found: Columns = defaultdict(lambda: ([], []))
    for record in records:
        step = record["step"]
        for name, value in record.items():
            if isinstance(value, (float, int)):
                steps, values = found[name]
                steps.append(step)
                values.append(value)
    return dict(found)


def series(curves: Columns, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values of a figure, empty where it is not known; at most ``MOST_POINTS``.

    A longer curve is cut into equal stretches of which the lowest and the highest value stay, so that no spike is lost.
    """
    x, y = (np.array(column, dtype=float) for column in curves.get(name, ([], [])))
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if len(x) <= MOST_POINTS:
        return x, y
    kept = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), MOST_POINTS // 2 - 1):
        kept |= {part[y[part].argmin()], part[y[part].argmax()]}
    kept = sorted(kept)
    return x[kept], y[kept]


def learning_charts(curves: Columns, chance: float | None) -> Markup:
    """Held-out figures over training ones.

    Args:
        chance: generator accuracy of always guessing the most frequent token, where it is known.
    """
    made = []
    for key, name, note, sources, reference in LEARNING:
        figure = go.Figure()
        for source in sources:
            text, line, mode = SOURCES[source]
            x, y = series(curves, f"{source}/{key}")
            if len(x):
                figure.add_scatter(x=x, y=y, name=text, mode=mode, line=line, marker={"size": 5})
        level = chance if reference == "chance" else reference
        if reference == "chance" and level is not None:
            note += f"; {level:.3f} by always guessing the most frequent one"
        if level is not None:
            figure.add_hline(y=level, line={"color": GREY, "width": 1, "dash": "dot"})
        if figure.data:
            made.append(chart(_over_steps(figure), name, note))
    return charts(made)


def training_charts(curves: Columns) -> Markup:
    return _plain_charts(curves, OF_TRAINING)


def speed_charts(curves: Columns) -> Markup:
    return _plain_charts(curves, OF_SPEED)


def _plain_charts(curves: Columns, wanted: Sequence[tuple]) -> Markup:
    made = []
    for name, note, unit, shown in wanted:
        figure = go.Figure()
        for (key, text), colour in zip(shown, (BLUE, ORANGE)):
            x, y = series(curves, key)
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
