"""Sentences with highlighted tokens as HTML: reconstructions with their verdicts, and tokens by probability."""

from collections.abc import Callable, Iterable
from pathlib import Path

from markupsafe import Markup, escape

from electra_accel.tracking.samples import Piece, Reconstruction

STYLE = Path(__file__).with_name("tokens.css")
LEGEND = (  # class, an example with its sign, meaning
    ("masked", "[MASK]", "hidden from the generator"),
    ("restored", "[token]=", "filled in as it was"),
    ("caught", "[token]+", "replaced, and caught"),
    ("missed", "[token]-", "replaced, and missed"),
    ("false-alarm", "token!", "original, but called replaced"),
)


def reconstruction(sample: Reconstruction) -> Markup:
    """Original, input, output and the generator's most probable tokens as running text.

    A token's title says with which probability the discriminator called it replaced; a page shows it where one taps, too.
    """
    lines = [
        ("original", sample.original_pieces()),
        ("input", sample.input_pieces()),
        ("output", sample.output_pieces()),
    ]
    if any(sample.best):
        lines.append(("most likely", sample.best_pieces()))
    body = Markup("").join(
        Markup("<dt>{}</dt><dd>{}</dd>").format(name, _join(pieces, _verdict)) for name, pieces in lines
    )
    return Markup('<div class="reconstruction"><dl class="lines">{}</dl><p class="told">{}</p></div>\n').format(
        body, sample.verdicts()
    )


def legend() -> Markup:
    """What the colours, lines and signs mean."""
    entries = [
        Markup('<span><span class="token {}">{}</span> {}</span> ').format(name, example, text)
        for name, example, text in LEGEND
    ]
    entries.append(Markup("<span>(token) filled in though not masked</span> "))
    entries.append(Markup("<span>(token)~ random token in the input</span>"))
    return Markup('<p class="verdict-legend">{}</p>\n').format(Markup("").join(entries))


def reconstructions_panel(samples: Iterable[Reconstruction]) -> Markup:
    """A small fragment that stands by itself, with its style and legend: for ``wandb.Html``, a notebook, a mail."""
    style = Markup(STYLE.read_text(encoding="utf-8"))
    own = Markup("body { background: var(--paper); color: var(--ink); font: .9375rem/1.5 system-ui, sans-serif; }")
    meta = '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    return Markup(meta + "<style>\n{}{}\n</style>\n{}{}").format(
        style, own, legend(), Markup("").join(map(reconstruction, samples))
    )


def heat(pieces: Iterable[Piece]) -> Markup:
    """Running text, each token on a background by the probability that it was replaced.

    Args:
        pieces: ``probability`` gives the background and, with ``best``, the title; those without one are plain. Above one
            half the token has the sign ``!`` after it, so that it can be found without colour.
    """
    return Markup('<div class="reconstruction"><p>{}</p><p class="told"></p></div>\n').format(_join(pieces, _heat))


def _join(pieces: Iterable[Piece], one: Callable[[Piece], Markup]) -> Markup:
    parts = []
    for piece in pieces:
        parts += ["" if piece.joined or not parts else " ", one(piece)]
    return Markup("".join(parts))  # all of them are escaped; Markup's own join would look again


def _verdict(piece: Piece) -> Markup:
    if not piece.verdict:
        return escape(piece.text)
    # "%" and not format: a report has tens of thousands of them
    return Markup('<span class="token %s" title="%s">%s</span>') % (
        piece.verdict.replace(" ", "-"),
        _title(piece),
        piece.text,
    )


def _heat(piece: Piece) -> Markup:
    if piece.probability is None:
        return escape(piece.text)
    sign = "!" if piece.probability > 0.5 else ""
    return Markup('<span class="token heat" style="--p:%.3f" title="%s">%s%s</span>') % (
        piece.probability,
        _title(piece),
        piece.text,
        sign,
    )


def _title(piece: Piece) -> str:
    parts = [piece.verdict]
    if piece.probability is not None:
        parts.append(f"replaced with probability {piece.probability:.2f}")
    if piece.best:
        parts.append(f"the generator's most probable token: {piece.best}")
    return "; ".join(filter(None, parts))
