"""What a person sees while a run goes on: lines, and below them a progress bar where the output is a terminal."""

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

MOST_TOKENS = 128  # of a sentence
STYLES = {"masked": "dim", "restored": "green", "caught": "bold cyan", "missed": "red", "false alarm": "magenta"}


class Piece(NamedTuple):
    """A token as people see it."""

    text: str  # with brackets and sign
    joined: bool  # it follows the piece before without a space
    verdict: str = ""  # a key of STYLES
    probability: float | None = None  # that it was replaced, as the discriminator says; None in the generator's input
    best: str = ""  # the generator's most probable token at a selected position
    correction: str = ""  # what the discriminator would put in its place


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        raise  # BrokenPipeError, for Terminal to see; rich itself would leave with exit code 1


class Terminal:
    """Prints on the first process only (``speaks``); the others hold a silent one."""

    def __init__(self, speaks: bool):
        self.speaks = speaks
        self.console = _Console(highlight=False, markup=False, soft_wrap=True, file=sys.stdout)
        self._bar: Progress | None = None

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """A reader who is gone must not end a run: a lost terminal (EIO), or a tee or less that has ended (EPIPE)."""
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EPIPE):
                raise
            self.speaks = False

    def line(self, text: str = "") -> None:
        if self.speaks:
            with self._shown():
                self.console.print(text)

    def warn(self, text: str) -> None:
        if self.speaks:
            with self._shown():
                self.console.print(f"warning: {text}", style="yellow")

    def pieces(self, label: str, pieces: list[Piece]) -> None:
        """A sentence, tokens with a verdict in its colour where the output has colours; their signs tell it everywhere.

        A long one ends with how many tokens are left out; the files have them.
        """
        text = Text(label)
        for i, piece in enumerate(pieces[:MOST_TOKENS]):
            text.append("" if piece.joined or i == 0 else " ")
            text.append(piece.text, style=STYLES.get(piece.verdict))
        if len(pieces) > MOST_TOKENS:
            text.append(f" … {len(pieces) - MOST_TOKENS:,} more tokens")
        if self.speaks:
            with self._shown():
                self.console.print(text)

    def start(self, done: int, total: int) -> None:
        """Show the bar; not where the output goes into a file or a CI log, which get the log lines alone."""
        if self.speaks and self.console.is_terminal and not os.environ.get("CI"):
            bar = BarColumn(40 if self._is_wide else 10)
            columns = (bar, MofNCompleteColumn(), TextColumn("{task.fields[figures]}"))
            self._bar = Progress(*columns, console=self.console)
            self._task = self._bar.add_task("training", total=total, completed=done, figures="")
            self._bar.start()

    @property
    def _is_wide(self) -> bool:
        return self.console.width >= 120

    def update(self, done: int, figures: str | None = None, more: str = "") -> None:
        """Move the bar to step ``done``; ``figures`` (at most 50 characters), where there is room with ``more`` behind them,
        stay until the next ones."""
        if self._bar:
            shown = {} if figures is None else {"figures": figures + (more if self._is_wide else "")}
            self._bar.update(self._task, completed=done, **shown)

    def stop(self) -> None:
        if self._bar:
            with self._shown():
                self._bar.stop()
            self._bar = None


def quiet_libraries() -> None:
    """Keep progress bars, advice and deprecation notes of the libraries out of a run's output; errors still appear."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("WANDB_SILENT", "true")  # start-up prints in one line where the run goes
    warnings.filterwarnings("ignore", category=FutureWarning)


def duration(seconds: float) -> str:
    """65 -> "1m05s", 4000 -> "1h06m"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
