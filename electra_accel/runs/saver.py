"""Checkpoints are written while training goes on: the state is copied, a thread writes the copy, never two at once."""

from collections.abc import Callable
from threading import Thread
from types import TracebackType

from electra_accel.engines.engine import Engine
from electra_accel.engines.state import Snapshot


class Saver:
    """Used on every process, and with ``with``: what was begun is finished, however the run ends, but by a kill.

    A kill in the middle leaves the checkpoint before (:mod:`electra_accel.runs.checkpoint`).
    """

    def __init__(self, engine: Engine):
        self.engine = engine
        self._writing: Thread | None = None  # on the main process
        self._problem: BaseException | None = None
        self._then: Callable[[], None]

    def save(self, write: Callable[[Snapshot], None], then: Callable[[], None] = lambda: None) -> None:
        """Have ``write`` called with a copy of the state, in a thread of the main process. Called on every process.

        Waits for the one before; errors as of :meth:`wait`. ``then`` is called outside of the thread, when all is written and
        :meth:`check` or :meth:`wait` finds it.
        """
        self.wait()
        snapshot = self.engine.snapshot()
        if self.engine.is_main:
            self._then = then
            self._writing = Thread(target=self._write, args=(write, snapshot), name="checkpoint")
            self._writing.start()

    def wait(self) -> None:
        """Until all is written. Called on every process; raises there what the writing raised."""
        self.engine.on_main(lambda: self._finish(None))

    def check(self) -> None:
        """As :meth:`wait`, of what is written by now."""
        self.engine.on_main(lambda: self._finish(0))

    def _write(self, write: Callable[[Snapshot], None], snapshot: Snapshot) -> None:
        self._problem = None
        try:
            write(snapshot)
        except BaseException as problem:  # for the main thread to raise
            self._problem = problem

    def _finish(self, seconds: float | None) -> None:
        if self._writing is None:
            return
        self._writing.join(seconds)
        if self._writing.is_alive():
            return
        self._writing = None
        if self._problem:
            raise self._problem
        self._then()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writing is not None:
            self._writing.join()
