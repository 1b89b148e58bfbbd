"""However a run ends: it is recorded, and the user is told how to go on."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from electra_accel.cli import PREEMPTED
from electra_accel.errors import OneProcessError, Preempted, UserError, one_line
from electra_accel.terminal import Terminal


@contextmanager
def recorded_end(
    folder: Path,
    record: Callable[[str, str, int], None],
    terminal: Terminal,
    *,
    stopped: Callable[[], str],
    memory_remedy: str,
) -> Iterator[None]:
    """Record the end of what runs inside, and turn running out of GPU memory into the user's line.

    Every process reports its end: the one that fails may not be the first.

    Args:
        folder: run.dir.
        record: called with the state of ``status.json``, the reason ("" where all went well) and the exit code.
        stopped: words for the terminal, such as "at step 12", when it ends early.
        memory_remedy: what to try, in words.
    """

    def end(state: str, reason: str, code: int) -> None:
        terminal.stop()
        try:
            record(state, reason, code)
        except Exception as error:  # a full disk, or a page that cannot be drawn, must not hide why the run ended
            terminal.warn(f"the end of the run could not be recorded: {one_line(error)}")
        if code:
            why = f" ({reason})" if state == "preempted" else ""
            go_on = f"the same command with --run.dir {shlex.quote(str(folder))} goes on from what is saved"
            terminal.line(f"stopped {stopped()}{why}; {go_on}")

    try:
        yield
    except torch.OutOfMemoryError as error:
        text = f"out of GPU memory: try {memory_remedy}"
        end("failed", text, 2)
        raise OneProcessError(text) from error  # the other processes may have room
    except UserError as error:
        end("failed", str(error), 2)
        raise
    except Preempted as asked:
        end("preempted", str(asked), PREEMPTED)
        raise
    except KeyboardInterrupt:
        end("failed", "interrupted", 130)
        raise
    except BaseException as error:
        end("failed", f"{type(error).__name__}: {error}", 1)
        raise
    end("done", "", 0)
