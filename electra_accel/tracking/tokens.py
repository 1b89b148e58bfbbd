"""Sentences with highlighted tokens as HTML: reconstructions with their verdicts, and tokens by probability."""

from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from electra_accel.terminal import Piece
from electra_accel.tracking.samples import Reconstruction

STYLE = Path(__file__).with_name("tokens.css")


def templates(folder: Path) -> Environment:
    """The templates in a folder. Those of HTML escape every text that they are given; ``Markup`` is HTML and stays as it is."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=lambda name: name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _title(piece: Piece) -> str:
    parts = [piece.verdict]
    if piece.probability is not None:
        parts.append(f"replaced with probability {piece.probability:.2f}")
    if piece.best:
        parts.append(f"the generator's most probable token: {piece.best}")
    if piece.correction:
        parts.append(f"the discriminator would put {piece.correction}")
    return "; ".join(filter(None, parts))


TEMPLATES = templates(STYLE.parent)
TEMPLATES.filters["title"] = _title
PARTS = TEMPLATES.get_template("tokens.html").module


def reconstruction(sample: Reconstruction) -> Markup:
    """Original, input, output, its correction and the generator's most probable tokens as running text.

    A token's title gives the discriminator's probability that it was replaced; a tap on a page shows the title too.
    """
    lines = [
        ("original", sample.original_pieces()),
        ("input", sample.input_pieces()),
        ("output", sample.output_pieces()),
        *([("corrected", sample.corrected_pieces())] if sample.corrected else []),
        *([("most likely", sample.best_pieces())] if any(sample.best) else []),
    ]
    return PARTS.reconstruction(sample, lines)


def legend(corrected: bool = False) -> Markup:
    """What the colours, lines and signs mean; also those of a corrected sentence, where there are such."""
    return PARTS.legend(corrected)


def reconstructions_panel(samples: Iterable[Reconstruction]) -> Markup:
    """A small fragment with its own style and legend: for ``wandb.Html``, a notebook, a mail."""
    samples = list(samples)
    corrected = any(sample.corrected for sample in samples)
    return PARTS.panel(Markup(STYLE.read_text(encoding="utf-8")), map(reconstruction, samples), corrected)


def heat(pieces: Iterable[Piece]) -> Markup:
    """Running text, each token on a background by the probability that it was replaced.

    Args:
        pieces: ``probability`` gives the background and, with ``best``, the title; those without one are plain. Above one
            half the token has the sign ``!`` after it, so that it can be found without colour.
    """
    return PARTS.heat(pieces)
