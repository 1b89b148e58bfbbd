"""Readings of detect.py for the terminal and as HTML."""

from collections.abc import Iterable, Iterator

from rich.cells import cell_len
from rich.text import Text

from electra_accel.reports.detect import CONTINUES, Reading
from electra_accel.reports.page import Table, page, template
from electra_accel.terminal import Piece
from electra_accel.tracking.tokens import heat

LEGEND = (
    "below each token: the probability that it was replaced, ! where it is over one half; [token] stands at a [MASK]: there "
    "the discriminator reads the generator's most probable token"
)
# Backgrounds from this probability on: rich turns them into what the terminal can show. Black on them is readable on any.
COLOURS = ((0.9, "black on #f2705a"), (0.5, "black on #f6a560"), (0.2, "black on #f7dd8c"))


def terminal_lines(reading: Reading, width: int) -> Iterator[Text]:
    """The tokens in lines of at most ``width`` cells, their probabilities below them, then the candidates at [MASK]."""
    columns, masked = [], {place for place, _ in reading.candidates}
    for place, (token, p) in enumerate(zip(reading.tokens, reading.probability)):
        word = f"[{visible(token)}]" if place in masked else visible(token)
        style = next((style for least, style in COLOURS if p >= least), "")
        columns.append((word + "!" * (p > 0.5), f"{p:.2f}".removeprefix("0"), style))
    for line in _lines(columns, width):
        for row in (0, 1):
            text = Text()
            for column in line:
                text.append(column[row], column[2] if row == 0 else "dim")
                text.append(" " * (_size(column) - cell_len(column[row])))
            text.rstrip()
            yield text
    for place, best in reading.candidates:
        words = "  ".join(f"{visible(token)} {p:.2f}" for token, p in best)
        yield Text(f"  [MASK] as token {place + 1}: {words}")


def html(readings: Iterable[Reading]) -> str:
    """A page that shows each text on its colours, and the generator's candidates."""
    parts, sections = template("detect.html"), []
    for number, reading in enumerate(readings, 1):
        first = {place: best[0][0] for place, best in reading.candidates}
        pieces = []
        for place, (token, p) in enumerate(zip(reading.tokens, reading.probability)):
            bare = token.removeprefix(CONTINUES) or token
            word = f"[{bare}]" if place in first else bare
            pieces.append(Piece(word, joined=token != bare, probability=p, best=first.get(place, "")))
        rows = [[place + 1, ", ".join(f"{token} {p:.2f}" for token, p in best)] for place, best in reading.candidates]
        masks = Table(["[MASK] as token", "most probable, by the generator"], rows)
        # Without a list of links, which would be as long as a file of texts.
        sections.append(("", parts.text(number, summary(reading), heat(pieces), masks)))
    return page("Replaced tokens", sections, parts.lead())


def summary(reading: Reading) -> str:
    """How many tokens were called replaced."""
    called = sum(p > 0.5 for p in reading.probability)
    pieces = f" (too long: read in {reading.pieces} pieces)" if reading.pieces > 1 else ""
    return f"{called} of {len(reading.tokens)} tokens called replaced{pieces}"


def visible(token: str) -> str:
    """Characters that would steer the terminal replaced by one that is shown."""
    return "".join(c if c.isprintable() else "\ufffd" for c in token)


def _lines(columns: list[tuple[str, str, str]], width: int) -> Iterator[list[tuple[str, str, str]]]:
    line: list[tuple[str, str, str]] = []
    for column in columns:
        if line and sum(map(_size, [*line, column])) - 1 > width:
            yield line
            line = []
        line.append(column)
    yield line


def _size(column: tuple[str, str, str]) -> int:
    """Cells of a token or the probability below it, and one between columns."""
    return max(map(cell_len, column[:2])) + 1
