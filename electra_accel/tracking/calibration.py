"""Whether the discriminator's probabilities are true, as a picture."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def calibration_chart(bins: list[tuple[float, float, int]]) -> "Figure":
    """Share of tokens that really were replaced over the probability that the discriminator gave them.

    Args:
        bins: (mean probability, share really replaced, tokens), as ``model.metrics.Calibration.bins``.
    """
    from plotly import graph_objects as go

    said, true, tokens = zip(*bins, strict=True) if bins else ((), (), ())
    figure = go.Figure()
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", line={"dash": "dot", "color": "#7c8594"}, name="calibrated")
    figure.add_scatter(
        x=said,
        y=true,
        mode="lines+markers",
        name="discriminator",
        text=[f"{n:,} tokens" for n in tokens],
        hovertemplate="said %{x:.3f}, true %{y:.3f}<br>%{text}<extra></extra>",
    )
    figure.update_layout(
        template="none",
        xaxis={"title": {"text": "probability that the token was replaced"}, "range": [0, 1]},
        yaxis={"title": {"text": "share that really was"}, "range": [0, 1]},
    )
    return figure
