"""Sentences on a terminal: colours where there are some, the same text everywhere, and silence on other processes."""

import errno
import io
import re

import pytest
from rich.console import Console

from electra_accel.terminal import MOST_TOKENS, STYLES, Piece, Terminal
from electra_accel.tracking.samples import join
from tests.tracking.test_samples import korean


def printed(terminal: Terminal, **options) -> str:
    terminal.console = Console(file=io.StringIO(), highlight=False, markup=False, soft_wrap=True, width=20, **options)
    terminal.pieces("  output: ", korean().output_pieces())
    return terminal.console.file.getvalue()


def test_verdicts_have_colours_on_a_terminal_and_signs_everywhere():
    plain = printed(Terminal(speaks=True))
    assert plain == f"  output: {join(korean().output_pieces())}\n", "one line, whatever the width"
    coloured = printed(Terminal(speaks=True), force_terminal=True, color_system="truecolor")
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain
    colour_of = {sign: codes for codes, sign in re.findall(r"\x1b\[([\d;]+)m[^\x1b]*([=+\-!])\x1b\[0m", coloured)}
    assert set(colour_of) == {"=", "+", "-", "!"} and len(set(colour_of.values())) == 4, "each verdict has its own"
    assert len(set(STYLES.values())) == len(STYLES)


def test_of_a_long_sentence_the_begin_is_shown_and_how_much_more_there_is():
    terminal = Terminal(speaks=True)
    terminal.console = Console(file=io.StringIO(), soft_wrap=True)
    for tokens in (MOST_TOKENS, MOST_TOKENS + 1500):
        terminal.pieces("", [Piece(f"word{number}", joined=False) for number in range(tokens)])
    whole, long = terminal.console.file.getvalue().splitlines()
    assert long == f"{whole} … 1,500 more tokens" and whole.endswith(f"word{MOST_TOKENS - 1}")


@pytest.mark.parametrize("width", [80, 150])
def test_the_bar_tells_steps_and_time_left_on_any_width(monkeypatch, width):
    monkeypatch.delenv("CI", raising=False)
    terminal = Terminal(speaks=True)
    terminal.console = Console(file=io.StringIO(), force_terminal=True, width=width)
    terminal.start(0, 10_000)
    terminal.update(9_999, "1h06m left  loss 43.21  AUC 0.538  11,234 tokens/s", ", MFU 41.2%  data wait 0%")
    terminal.stop()
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", terminal.console.file.getvalue())
    last = [line for line in re.split(r"[\r\n]+", shown) if "9999/10000" in line][-1]
    assert "━" in last and "1h06m left  loss 43.21  AUC 0.538  11,234 tokens/s" in last and len(last.rstrip()) <= width
    assert ("MFU 41.2%  data wait 0%" in last) == (width > 80)


def test_only_the_first_process_speaks():
    assert printed(Terminal(speaks=False)) == ""


class Gone(io.StringIO):
    """An output that has gone away."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def write(self, text):
        raise OSError(self.number, "gone")


@pytest.mark.parametrize(
    ("number", "ends"),
    [
        (errno.EIO, False),  # a terminal, lost
        (errno.EPIPE, False),  # tee or less, which has ended
        (errno.ENOSPC, True),  # a full disk
    ],
)
def test_a_reader_who_goes_away_ends_no_run(number, ends):
    terminal = Terminal(speaks=True)
    terminal.console.file = Gone(number)
    for say in (terminal.line, terminal.warn):
        if ends:
            with pytest.raises(OSError) as ended:
                say("a line")
            assert ended.value.errno == number
        else:
            say("a line")
