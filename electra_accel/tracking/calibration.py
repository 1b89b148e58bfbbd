"""The chart that tells how far the discriminator's probabilities can be believed."""

from collections.abc import Sequence

import numpy as np
from plotly import graph_objects as go

# Readable on the light and on the dark page; blue and orange first, which colour-blind readers tell apart.
COLOURS = ("#3b82f6", "#d97706", "#16a34a", "#a855f7", "#ef4444", "#0d9488", "#ec4899", "#7c8594")
BLUE, ORANGE, GREY = COLOURS[0], COLOURS[1], COLOURS[-1]

Bins = Sequence[Sequence[float]]


def calibration_chart(bins: Bins, earlier: Sequence[tuple[int, Bins]] = ()) -> go.Figure:
    """How often tokens were really replaced, over the probability that the discriminator gave them.

    Args:
        bins: (mean probability, share really replaced, tokens) of the non-empty bins of the probability.
        earlier: (step, bins) of evaluations before, drawn faintly.
    """
    figure = go.Figure()
    diagonal = {"color": GREY, "width": 1, "dash": "dot"}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line=diagonal, name="calibrated", hoverinfo="skip")
    for i, (step, those) in enumerate(earlier):
        x, y, _ = np.array(those, dtype=float).reshape(-1, 3).T
        faint = {"mode": "lines", "line": {"color": ORANGE, "width": 1}, "opacity": 0.6}
        once = {"showlegend": i == 0, "name": "earlier evaluations", "legendgroup": "earlier"}
        figure.add_scatter(x=x, y=y, hovertemplate=f"step {step:,}<extra></extra>", **faint, **once)
    x, y, tokens = np.array(bins, dtype=float).reshape(-1, 3).T
    sizes = 5 + 9 * np.sqrt(tokens / max(tokens.max(initial=0), 1))
    figure.add_scatter(
        x=x,
        y=y,
        name="this evaluation",
        mode="lines+markers",
        line={"color": BLUE, "width": 2.5},
        marker={"size": sizes, "opacity": 1},
        cliponaxis=False,
        customdata=tokens,
        hovertemplate="said %{x:.3f}, was %{y:.3f} of %{customdata:,.0f} tokens<extra></extra>",
    )
    figure.update_xaxes(title={"text": "probability that the discriminator gave"}, range=[0, 1])
    figure.update_yaxes(title={"text": "share really replaced"}, range=[0, 1])
    return figure.update_layout(hovermode="closest", legend={"y": -0.25})
