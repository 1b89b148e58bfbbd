"""Runs a script that is killed or asked to stop before an operation on files: python -m tests.faults.hooked scripts/x.py …

FAULT_AT     that operation, as FAULT_LOG has it. Threads work side by side, so it has no number
FAULT_NEXT   or a file of such lines: it is the first operation that is not in it, and gets its line there
FAULT_EACH   for that, only about one of so many operations counts, chosen by its checksum
FAULT_WAY    SIGKILL where it is not named; another signal, one that comes "twice", or "stop file" for the one in the run folder
FAULT_UNDER  only what is below this folder counts
FAULT_LOG    a file that gets a line for each operation: its kind, its path, and how often it has come
FAULT_RANK   of the process that counts; the others are as ever
FAULT_PIDS   a folder that gets an empty file named after each process's number

Counted is what changes names or makes bytes safe: opening for writing, mkdir, rename, replace, unlink, rmdir, fsync. Of the
process itself, not of its data workers.
"""

import builtins
import io
import os
import re
import runpy
import signal
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# In names of what is there for a moment: the number of the process that made it, and filelock's random ones.
PASSING = re.compile(r"\.removed\d*|\.tmp-\d+|\.\d+(?=\.partial)|\.\d+\.[0-9a-f]{32}")


class Operations:
    """Counts, and kills."""

    def __init__(self, under: str, at: str, following: str, each: int, log: str):
        self.under, self.at, self.log, self.pid = os.path.realpath(under), at, log, os.getpid()
        self.following, self.each = following, each
        self.met = set(Path(following).read_text("utf-8").splitlines()) if following else set()
        self.done: Counter[str] = Counter()

    def meet(self, kind: str, path: object, folder: int | None = None) -> None:
        if os.getpid() != self.pid:
            return
        where = f"/proc/self/fd/{path}" if isinstance(path, int) else os.fsdecode(path)
        if isinstance(path, int):
            where = os.readlink(where)
        elif folder is not None:
            where = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), where)
        where = os.path.abspath(where)
        if not where.startswith(self.under + "/"):
            return
        what = f"{kind} {PASSING.sub('.PASSING', os.path.relpath(where, self.under))}"
        self.done[what] += 1
        what += f" {self.done[what]}"
        if self.log:
            append(self.log, what)
        if self.following and what not in self.met and counts(what, self.each):
            append(self.following, what)
            os.kill(os.getpid(), signal.SIGKILL)
        if what == self.at:
            ask(os.environ.get("FAULT_WAY", "SIGKILL"), self.under)


def ask(way: str, folder: str) -> None:
    """Ask this process to stop, or kill it."""
    if way == "stop file":
        with suppress(FileNotFoundError):  # there is no run folder yet
            os.close(os_open(os.path.join(folder, "run", "stop"), os.O_WRONLY | os.O_CREAT, 0o644))
        return
    name, *twice = way.split()
    os.kill(os.getpid(), signal.Signals[name])
    if twice:
        again = threading.Timer(AGAIN, os.kill, (os.getpid(), signal.Signals[name]))
        again.daemon = True
        again.start()


def counts(what: str, each: int) -> bool:
    return zlib.crc32(what.encode()) % each == 0


def append(file: str, line: str) -> None:
    descriptor = os_open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, f"{line}\n".encode())
    os.close(descriptor)


os_open = os.open
AGAIN = 2.5  # seconds until a signal that comes twice comes again: longer than stopping.SAME_SIGNAL


def install(operations: Operations) -> None:
    """Puts the counter in front of the functions of ``os``, and of ``open``."""

    def before(name: str) -> None:
        real = getattr(os, name)

        def call(path, *arguments, **named):
            operations.meet(name, path, named.get("dir_fd", named.get("src_dir_fd")))
            return real(path, *arguments, **named)

        setattr(os, name, call)

    for name in ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "fsync"):
        before(name)
    # shutil looks here whether it may use folders' descriptors.
    os.supports_dir_fd |= {os.unlink, os.rmdir, os.mkdir, os.rename}
    real_open: Callable = io.open

    def opened(file, mode="r", *arguments, **named):
        if not isinstance(file, int) and set(mode) & set("wax+"):
            operations.meet("open", file)
        return real_open(file, mode, *arguments, **named)

    builtins.open = io.open = opened


def main() -> None:
    if folder := os.environ.get("FAULT_PIDS"):
        os.makedirs(folder, exist_ok=True)
        Path(folder, str(os.getpid())).touch()
    if os.environ.get("RANK", "0") == os.environ.get("FAULT_RANK", "0"):
        at, following, log = (os.environ.get(f"FAULT_{name}", "") for name in ("AT", "NEXT", "LOG"))
        each = int(os.environ.get("FAULT_EACH", "1"))
        install(Operations(os.environ["FAULT_UNDER"], at, following, each, log))
    del sys.argv[0]
    sys.path[0:0] = [str(Path(sys.argv[0]).resolve().parent)]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
