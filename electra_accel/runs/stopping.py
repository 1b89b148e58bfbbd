"""Stopping in time: a signal, a stop file or a deadline, turned into one wish that the loop asks for after each step.

A scheduler that takes the machine back warns first. Who is warned differs (every process, one of them, only the batch
script), so each process answers for itself and the loop adds the answers up (:func:`loop.train`).
"""

import os
import signal
import time
from pathlib import Path
from types import FrameType

from electra_accel.errors import UserError
from electra_accel.options.groups import deadline_time

STOP_FILE = "stop"
SAME_SIGNAL = 2.0  # seconds


def signals() -> list[signal.Signals]:
    """Those that ask a run to stop. SIGHUP comes when the terminal is lost, as with a broken ssh; nohup has it ignored, and
    then it stays so."""
    kept = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT] + [signal.SIGHUP] * (not kept)


class StopRequests:
    """Why this process should stop, if it should. A context: signals are heard inside it.

    A signal that comes again at once is the same one, passed on by the scheduler and by the launcher. One that comes later (a
    second Ctrl-C) acts as it would without us.

    Args:
        stop_file: its appearance is a request; one that is there already was meant for an earlier run and is removed when the
            context is entered, unless the launcher has started this process again: it takes a run that was asked to stop for
            one that failed. None where another process watches it.
        deadline: run.deadline.
    """

    def __init__(self, stop_file: Path | None, deadline: str | None):
        self.stop_file = stop_file
        self.deadline = deadline_time(deadline) if deadline else None
        self.heard, self.heard_at = "", 0.0
        self.stale = _written(stop_file) if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" else None

    def __enter__(self) -> "StopRequests":
        if self.stale is not None and _written(self.stop_file) == self.stale:
            try:
                self.stop_file.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(
                    f"{self.stop_file} was meant for an earlier run and cannot be removed ({error.strerror}): remove it"
                ) from error
        self._before = {number: signal.signal(number, self._hear) for number in signals()}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self.heard:
            self.heard, self.heard_at = signal.Signals(number).name, time.monotonic()
        elif number == signal.SIGHUP:
            pass  # shell and system both send it, each in its time; nobody insists
        elif time.monotonic() - self.heard_at > SAME_SIGNAL:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)

    def reason(self) -> str:
        """Who asked this process to stop; empty if nobody did."""
        if self.heard:
            return f"signal {self.heard}"
        if self.deadline is not None and time.time() >= self.deadline:
            return "run.deadline"
        if _written(self.stop_file) is not None:
            return f"file {self.stop_file}"
        return ""


def _written(path: Path | None) -> float | None:
    """When a file was written; None where there is none, or a disk does not say."""
    try:
        return path.stat().st_mtime if path else None
    except OSError:
        return None
