"""One process makes a folder while all others wait for it, without any collective: over a lock file beside the folder.

A collective would time out (NCCL after ten minutes) where preparing takes an hour, and it needs a process group, which a login
node does not have. The lock is a file that `filelock` creates and keeps touching, so it works between hosts that share the
file system; it needs no locks of the file system, which some NFS mounts keep to one host.
"""

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import SoftFileLease, SoftFileLock, Timeout

from electra_accel.durable import flush, flush_names
from electra_accel.errors import UserError, one_line

_POLL_SECONDS = 0.2
_NEVER = 1e9  # seconds: a person decides whether a silent process of another host is dead


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
    ``beat_seconds``. Another process of the same host takes over from a dead one at once, or after ``dead_seconds`` without a
    touch where the file system cannot exchange two files (NFS).

    Raises:
        UserError: in those that wait: the builder failed (its message), or was silent for ``silent_seconds``.
        Exception: in the builder: whatever ``build`` raised.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder.parent}: cannot make this folder for the prepared data: {error.strerror}") from None
    path, failure = Path(f"{folder}.lock"), Path(f"{folder}.failed")
    lock = SoftFileLease(path, lease_duration=_NEVER, heartbeat_interval=beat_seconds)
    builders: dict[str, str] = {}  # whom this process has waited for: token of the lock -> name
    last, since = None, 0.0  # what the lock file was like when it last changed; the time is this process's own
    while not folder.exists():
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            owner, beat = lock.owner, None
            with suppress(OSError):  # it may just have gone away
                beat = path.stat().st_mtime_ns
            name = f"host {_host(owner)}, process {owner.pid}" if owner else "an unknown process"
            if owner and owner.token not in builders:
                builders[owner.token] = name
                log(f"waiting for {name} to prepare {folder}")
            if (owner, beat) != last:
                last, since = (owner, beat), time.monotonic()
            silent = time.monotonic() - since
            if silent > dead_seconds and _is_dead(owner):
                # One at a time, and only the lock that was judged: another may have taken over, and build by now.
                with suppress(Timeout), SoftFileLock(f"{path}.breaking", timeout=0):
                    if lock.owner == owner:
                        lock.force_break()
            elif silent > silent_seconds:
                raise UserError(
                    f"{name} was to prepare {folder} and has been silent for {silent / 60:.0f} minutes; "
                    f"if it is dead, delete {path} and start again"
                ) from None
            time.sleep(_POLL_SECONDS)
            continue
        except OSError as error:
            raise UserError(f"{folder.parent}: cannot write there: {error.strerror}") from None
        with held:
            failed = {}
            with suppress(OSError, ValueError):
                failed = json.loads(failure.read_text(encoding="utf-8"))
            if failed.get("attempt") in builders:
                name = builders[failed["attempt"]]
                raise UserError(f"{failed['message']} (in the process that prepared the data: {name})")
            if not folder.exists():  # another may have finished just before the lock was free
                if builders:
                    log(f"{list(builders.values())[-1]} died while it prepared {folder}: starting again")
                _build(folder, build, lock.token, failure)


def _build(folder: Path, build: Callable[[Path], None], attempt: str, failure: Path) -> None:
    """Makes the folder; or leaves in ``failure`` why not, for those who wait."""
    for abandoned in folder.parent.glob(f"{folder.name}.tmp-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    temporary = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    whole_message = Path(f"{failure}.log")
    try:
        temporary.mkdir()
        build(temporary)
        flush(temporary)
        try:
            temporary.rename(folder)
            flush_names(folder.parent)
        except OSError:
            if not folder.exists():
                raise
            # It can be there if the lock was deleted and another took over; both made the same.
    except BaseException as error:
        whole = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        message = one_line(whole, whole_message.name)
        with suppress(OSError):  # the disk may be what failed; the next in line then meets the same trouble itself
            if message != one_line(whole):
                whole_message.write_text(whole, encoding="utf-8")
            failure.write_text(json.dumps({"attempt": attempt, "message": message}), encoding="utf-8")
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    failure.unlink(missing_ok=True)
    whole_message.unlink(missing_ok=True)


def _host(owner) -> str:
    return owner.hostname.partition("?")[0]  # filelock writes "?pidns-…" behind it where a process is in a container


def _is_dead(owner) -> bool:
    """Only what runs on this host can be known to be dead."""
    return bool(owner) and _host(owner) == socket.gethostname() and not psutil.pid_exists(owner.pid)
