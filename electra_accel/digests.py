"""Sizes and SHA-256 digests of the files in a folder, by which damage is noticed before anything is read."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


class Damaged(Exception):
    """Why what is on the disk cannot be used."""


def digests(folder: Path) -> dict[str, dict[str, Any]]:
    """``{"path below the folder": {"bytes": …, "sha256": …}}`` of every file in it."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    return files


def require_whole(folder: Path, wanted: Mapping[str, Mapping[str, Any]]) -> None:
    """Compare the files in ``folder`` with what :func:`digests` gave; others may stand beside them.

    Raises:
        Damaged: names a file that is missing, short, altered, or cannot be read; ``wanted``, which was read from a file, is
            something else.
    """
    if not isinstance(wanted, Mapping):
        raise Damaged("it has no list of files")
    for name, facts in wanted.items():
        if not isinstance(facts, Mapping) or facts.keys() != {"bytes", "sha256"}:
            raise Damaged(f"it has no size and SHA-256 of {name}")
        if not Path(os.path.normpath(folder / name)).is_relative_to(os.path.normpath(folder)):
            raise Damaged(f"{name} lies outside of it")
        with _readable(folder / name) as file:  # a look beforehand says nothing: a run that goes on prunes
            size = os.fstat(file.fileno()).st_size
            if size != facts["bytes"]:
                raise Damaged(f"{name} has {size} bytes instead of {facts['bytes']}")
            if hashlib.file_digest(file, "sha256").hexdigest() != facts["sha256"]:
                raise Damaged(f"{name} was altered (its SHA-256 differs)")


@contextmanager
def _readable(path: Path) -> Iterator[BinaryIO]:
    try:
        with open(path, "rb") as file:
            yield file
    except FileNotFoundError as error:
        raise Damaged(f"{path.name} is missing") from error
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read ({error.strerror})") from error
    except ValueError as error:  # a name that no file can have
        raise Damaged(f"{path.name!r} cannot be read ({error})") from error
