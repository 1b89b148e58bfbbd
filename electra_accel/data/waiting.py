"""One process makes a folder while all others wait for it, without any collective: over a lock file beside the folder.

A collective would time out (NCCL after ten minutes) where preparing takes an hour, and needs a process group, which a login
node does not have. Works between processes of one host and between hosts that share the file system.
"""

import errno
import fcntl
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from electra_accel.errors import UserError, one_line

_POLL_SECONDS = 0.2


def build_once(
    folder: Path,
    build: Callable[[Path], None],
    log: Callable[[str], None],
    silent_seconds: float = 300,
    dead_seconds: float = 10,
    beat_seconds: float = 2,
) -> None:
    """Returns when ``folder`` exists; if it does not, exactly one of all callers makes it by ``build(temporary folder)``.

    The folder appears under its name when it is complete, never before. The one who builds touches the lock file every
    ``beat_seconds``. What a dead process of this host left behind is cleared away by the next caller, after ``dead_seconds``
    without a beat (a process that looks gone may be alive in another container of the same name).

    Raises:
        UserError: in those that wait: the builder failed (its message), or was silent for ``silent_seconds``.
        Exception: in the builder: whatever ``build`` raised.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder.parent}: cannot make this folder for the prepared data: {error.strerror}") from None
    lock = folder.with_name(folder.name + ".lock")
    failure, failure_log = (folder.with_name(folder.name + end) for end in (".failed", ".failed.log"))
    while not folder.exists():
        attempt = _acquire(lock)
        if attempt is None:
            _wait(folder, lock, failure, log, silent_seconds, dead_seconds)
            continue
        try:
            if not folder.exists():  # another may have finished just before the lock was free
                _build(folder, lock, build, beat_seconds)
                failure.unlink(missing_ok=True)
                failure_log.unlink(missing_ok=True)
        except BaseException as error:
            whole = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            message = one_line(whole, failure_log.name)
            with suppress(OSError):  # the disk may be what failed; the next in line then meets the same trouble itself
                if message != one_line(whole):
                    failure_log.write_text(whole, encoding="utf-8")
                failure.write_text(json.dumps({"attempt": attempt, "message": message}), encoding="utf-8")
            raise
        finally:
            if (_read(lock) or {}).get("attempt") == attempt:
                lock.unlink(missing_ok=True)


def _acquire(lock: Path) -> str | None:
    """The attempt's id if this process now holds the lock."""
    attempt, file = uuid.uuid4().hex, None
    try:
        file = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        with open(file, "w", encoding="utf-8") as stream:
            json.dump({"attempt": attempt, "host": socket.gethostname(), "pid": os.getpid()}, stream)
    except FileExistsError:
        return None
    except OSError as error:
        if file is not None:  # a full disk: an empty lock of ours would keep the others waiting
            lock.unlink(missing_ok=True)
        raise UserError(f"{lock.parent}: cannot write there: {error.strerror}") from None
    return attempt


def _build(folder: Path, lock: Path, build: Callable[[Path], None], beat_seconds: float) -> None:
    for abandoned in folder.parent.glob(f"{folder.name}.tmp-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    temporary = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    done = threading.Event()

    def beat() -> None:
        while not done.wait(beat_seconds):
            with suppress(OSError):  # a person may delete it
                os.utime(lock)

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        temporary.mkdir()
        build(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            # It can be there if the lock was deleted and another took over; both made the same.
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        done.set()
        heart.join()


def _wait(
    folder: Path, lock: Path, failure: Path, log: Callable[[str], None], silent_seconds: float, dead_seconds: float
) -> None:
    """Returns when the folder exists or the lock may be free; time is this process's own: clocks of hosts differ."""
    holder: dict = {}
    beat, since = None, time.monotonic()
    while not folder.exists():
        found = _read(lock)
        if found is None:  # finished, failed, or cleared away
            failed = _read(failure) or {}
            if holder and failed.get("attempt") == holder["attempt"]:
                raise UserError(f"{failed['message']} (in the process that prepared the data: {_name(holder)})")
            return
        seen = _last_beat(lock)
        if found and found != holder:
            log(f"waiting for {_name(found)} to prepare {folder}")
        if (found, seen) != (holder, beat):
            holder, beat, since = found, seen, time.monotonic()
        silent = time.monotonic() - since
        if silent > dead_seconds and _is_dead(holder):
            log(f"{_name(holder)} died while it prepared {folder}: starting again")
            _clear(lock, holder)
            return
        if silent > silent_seconds:
            raise UserError(
                f"{_name(holder)} was to prepare {folder} and has been silent for {silent / 60:.0f} minutes; "
                f"if it is dead, delete {lock} and start again"
            )
        time.sleep(_POLL_SECONDS)


def _last_beat(lock: Path) -> int | None:
    """When the lock was touched last; None where it has just gone away."""
    try:
        return lock.stat().st_mtime_ns
    except OSError:
        return None


def _read(path: Path) -> dict | None:
    """None if there is no such file (any more, as NFS says it), {} while it is being written or where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return None if error.errno in (errno.ENOENT, errno.ESTALE) else {}
    except ValueError:
        return {}


def _name(holder: dict) -> str:
    return f"host {holder.get('host', '?')}, process {holder.get('pid', '?')}"


def _is_dead(holder: dict) -> bool:
    """Only what runs on this host can be known to be dead."""
    if holder.get("host") != socket.gethostname():
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, and is someone else's
    return False


def _clear(lock: Path, holder: dict) -> None:
    """Removes the lock of a dead process; of several callers on this host only the first does, so that no new lock is lost."""
    folder = os.open(lock.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if _read(lock) == holder:
            lock.unlink(missing_ok=True)
    finally:
        os.close(folder)  # releases it
