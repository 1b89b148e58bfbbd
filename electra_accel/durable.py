"""What is renamed into place is on the disk by then: after a power cut there is no name with half a content behind it."""

import os
from collections.abc import Iterable
from pathlib import Path


def flush(path: Path) -> None:
    """Wait until a file, or a folder with all that is below it, is on the disk."""
    _flush([*path.rglob("*"), path])


def flush_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, such as one that was just given."""
    _flush([folder])


def _flush(paths: Iterable[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
