"""Readings of detect.py for the terminal and as HTML."""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from electra_accel.reports.detect import CONTINUES, Candidates, Reading
from electra_accel.reports.page import Table, page, template
from electra_accel.terminal import Piece
from electra_accel.tracking.tokens import heat

LEGEND = (
    "below each token: the probability that it was replaced, ! where it is over one half; [token] stands at a [MASK]: there "
    "the discriminator reads the generator's most probable token"
)
CORRECTED_LEGEND = "; token! as token n, instead: what the discriminator would put there"
# Backgrounds from this probability on: rich turns them into what the terminal can show. Black on them is readable on any.
COLOURS = ((0.9, "black on #f2705a"), (0.5, "black on #f6a560"), (0.2, "black on #f7dd8c"))


def terminal_lines(reading: Reading, width: int) -> Iterator[Text]:
    """The tokens in lines of at most ``width`` cells, their probabilities below them, then the candidates at [MASK], then what
    should stand in place of those called replaced."""
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
        yield Text(f"  [MASK] as token {place + 1}: {_told(best)}")
    for place, best in reading.corrections or ():
        yield Text(f"  {columns[place][0]} as token {place + 1}, instead: {_told(best)}")


def _told(best: Candidates) -> str:
    return "  ".join(f"{visible(token)} {p:.2f}" for token, p in best)


def html(readings: Sequence[Reading]) -> str:
    """A page that shows each text on its colours, the generator's candidates, and what the discriminator would put instead."""
    parts, sections = template("detect.html"), []
    for number, reading in enumerate(readings, 1):
        first, instead = (
            {place: best[0][0] for place, best in found} for found in (reading.candidates, reading.corrections or ())
        )
        pieces = []
        for place, (token, p) in enumerate(zip(reading.tokens, reading.probability)):
            bare = token.removeprefix(CONTINUES) or token
            word = f"[{bare}]" if place in first else bare
            answers = {"best": first.get(place, ""), "correction": instead.get(place, "")}
            pieces.append(Piece(word, joined=token != bare, probability=p, **answers))
        rows = [[place + 1, _in_a_cell(best)] for place, best in reading.candidates]
        masks = Table(["[MASK] as token", "most probable, by the generator"], rows)
        rows = [[place + 1, reading.tokens[place], _in_a_cell(best)] for place, best in reading.corrections or ()]
        corrections = Table(["as token", "called replaced", "instead, by the discriminator"], rows)
        # Without a list of links, which would be as long as a file of texts.
        sections.append(("", parts.text(number, summary(reading), heat(pieces), [masks, corrections])))
    corrected = any(reading.corrections is not None for reading in readings)
    return page("Replaced tokens", sections, parts.lead(corrected))


def _in_a_cell(best: Candidates) -> str:
    return ", ".join(f"{token} {p:.2f}" for token, p in best)


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
