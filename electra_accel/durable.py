"""What is renamed into place is on the disk by then: after a power cut there is no name with half a content behind it."""

import errno
import itertools
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LEFT = ("*.[0-9]*.partial", ".*.partial", ".*.removed*")  # names of run_folder's and of checkpoint's
UNABLE = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}  # some network file systems, of a folder


def flush(path: Path) -> None:
    """Wait until a file, or a folder with all that is below it, is on the disk. OSError names the file."""
    _flush([*path.rglob("*"), path])


def flush_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, such as one that was just given."""
    _flush([folder])


def sweep(folder: Path) -> None:
    """Delete what kills have left: files and folders of ours that were half written or half deleted.

    For whoever alone writes there. What cannot be deleted stays.
    """
    for left in itertools.chain.from_iterable(map(folder.glob, LEFT)):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):
                left.unlink()


def _flush(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if not (path.is_dir() and error.errno in UNABLE):
                raise OSError(error.errno, error.strerror, str(path)) from error
        finally:
            os.close(descriptor)
