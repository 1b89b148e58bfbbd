"""The exceptions that are not bugs: a mistake that a user can mend, and the wish that a run stops; and how reasons are told."""

from collections.abc import Iterator
from contextlib import contextmanager

REASON_LENGTH = 300


class UserError(Exception):
    """Input that cannot be used: one clear line that names the file or option and the remedy.

    Scripts print it on stderr as ``error: …`` and leave with exit code 2, without a traceback.
    Anything else that escapes is a bug of ours and exits with 1.
    """


class OneProcessError(UserError):
    """A UserError that perhaps only this one of several processes has met, such as a GPU that is out of memory."""


class Preempted(Exception):
    """The run was asked to stop and has saved its state; the text says who asked."""


@contextmanager
def named(where: str) -> Iterator[None]:
    """Puts the place, such as a file and its line, before what a UserError says is wrong there."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


@contextmanager
def writing(option: str, path: object) -> Iterator[None]:
    """Turns an ``OSError`` met while ``path`` is written into the user's line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{option} {path} cannot be written ({error.strerror}); choose another") from error


def one_line(reason: object, log: str = "") -> str:
    """A reason as files and warnings have it: what a compiler printed may be 100 KB on many lines.

    Args:
        log: the file beside it that has all of it; named where something is left out.
    """
    line = " ".join(str(reason).split())
    if len(line) <= REASON_LENGTH:
        return line
    rest = f"… (all of it: {log})" if log else "…"
    return line[: REASON_LENGTH - len(rest)] + rest
