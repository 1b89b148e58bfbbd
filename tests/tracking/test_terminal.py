"""Sentences on a terminal: colours where there are some, the same text everywhere, and silence on other processes."""

import io
import re

from rich.console import Console

from electra_accel.tracking.samples import join
from electra_accel.tracking.terminal import STYLES, Terminal
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


def test_only_the_first_process_speaks():
    assert printed(Terminal(speaks=False)) == ""
