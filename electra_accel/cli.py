"""How every script begins and ends: it prints to any terminal and takes words in UTF-8; a mistake of the user is one line and
exit code 2, a bug of ours a traceback and exit code 1."""

import argparse
import errno
import io
import math
import os
import select
import sys
import time
from collections.abc import Callable, Iterable
from typing import NoReturn, TextIO

from electra_accel.errors import OneProcessError, Preempted, UserError

LET_THE_FIRST_SPEAK = 3.0  # seconds; launchers end all processes of a host when one has left
PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: the state is saved, start me again
# What the place of a file is to blame for, never our code: where no line of ours has met it, the system's words are the line.
OF_THE_PLACE = {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENOSPC, errno.EDQUOT}
TOLD = "which the locale has told Python to use: set PYTHONUTF8=1, or LC_ALL=C.UTF-8"
READER_LEFT = 141  # 128 + SIGPIPE, as a shell reports it
LEAVE_TOGETHER = 60.0  # seconds; all is saved, so nobody waits for long for a process that was killed meanwhile
# Called when ``main`` has returned or raised Preempted, which it does on all processes together: ``Processes.leave``.
at_good_end: list[Callable[[float], None]] = []


def exit_with_one_line(main: Callable[[], int | None]) -> NoReturn:
    """Runs ``main`` and leaves the process with its return value as exit code (None: 0).

    UserError becomes ``error: …`` on one line of stderr and exit code 2, as does a file's name that is too long, lack of
    permission or of space; Preempted exit code 75, Ctrl-C exit code 130, and a reader of stdout that leaves early, as ``head``
    does, or a lost terminal 141. All else is a bug and keeps its traceback.

    Several processes meet a mistake of the user together: what one host lacks, all processes of that host lack, and
    ``Engine.together`` passes on what only some have met. So the first process of each host speaks for all of it;
    OneProcessError is printed by whoever raises it.
    """
    speaks = os.environ.get("LOCAL_RANK", "0") == "0"
    for stream in (sys.stdout, sys.stderr):
        print_any_character(stream)
    try:
        require_utf8(sys.argv[1:])
        patience = math.inf
        try:
            code = main() or 0
        except Preempted:
            code, patience = PREEMPTED, LEAVE_TOGETHER
        # Not while the exception lives: it holds the frames of ``main``, and with them the networks.
        for leave in at_good_end:
            leave(patience)
    except SystemExit as ended:  # of --help
        code = ended.code
    except UserError as error:
        if speaks or isinstance(error, OneProcessError):
            print("error:", " ".join(str(error).split()), file=sys.stderr)
        else:
            time.sleep(LET_THE_FIRST_SPEAK)
        code = 2
    except KeyboardInterrupt:
        if speaks:
            print("interrupted", file=sys.stderr)
        code = 130  # 128 + SIGINT, as a shell reports it
    except OSError as error:
        if error.errno in OF_THE_PLACE and error.filename is not None:
            print("error:", " ".join(f"{error.filename}: {error.strerror}".split()), file=sys.stderr)
            code = 2
        elif error.errno in (errno.EPIPE, errno.EIO) and _nobody_reads():
            code = READER_LEFT
        else:
            raise
    except UnicodeEncodeError as error:  # of a file's name: all that is written or printed is UTF-8, or escaped
        if error.encoding != sys.getfilesystemencoding() or error.encoding == "utf-8":
            raise
        print(f"error: no file can be called {error.object!r} in {error.encoding}, {TOLD}", file=sys.stderr)
        code = 2
    at_good_end.clear()
    lost = code == READER_LEFT
    try:
        sys.stdout.flush()
    except OSError:
        if not _nobody_reads():
            raise
        lost, code = True, code or READER_LEFT
    if lost:  # what is still to be printed goes nowhere, or Python complains of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def print_any_character(stream: TextIO) -> None:
    """A character that is not in the terminal's encoding is written as an escape (\\u20ac): it must not end a run, hours in."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors="backslashreplace")


def require_utf8(words: Iterable[str]) -> None:
    """What is not UTF-8 could not be written into the files of a run, nor told to libraries: better found now than then.

    Raises:
        UserError: names the first such word.
    """
    for word in words:
        if not any("\udc80" <= sign <= "\udcff" for sign in word):  # how Python keeps bytes that it cannot decode
            continue
        shown = os.fsencode(word).decode("utf-8", "backslashreplace")
        try:
            os.fsencode(word).decode("utf-8")
        except UnicodeDecodeError:
            raise UserError(
                f"'{shown}' is not UTF-8: rename the file or folder, for example with `convmv -f cp949 -t utf-8`; text files "
                "may have any name where a glob in quotes finds them, such as 'data/*.txt'"
            ) from None
        raise UserError(f"'{shown}' is UTF-8 and not {sys.getfilesystemencoding()}, {TOLD}")


def _nobody_reads() -> bool:
    """Whether stdout is a pipe whose reader has left, or a lost terminal."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


def argument_parser(description: str) -> argparse.ArgumentParser:
    """For the small scripts: the docstring as help, no abbreviations, and a mistake is the user's line (UserError)."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the options")

    parser.error = refuse
    return parser
