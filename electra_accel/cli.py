"""How every script ends: a mistake of the user is one line and exit code 2, a bug of ours a traceback and exit code 1."""

import sys
from collections.abc import Callable
from typing import NoReturn

from electra_accel.errors import UserError


def exit_with_one_line(main: Callable[[], int | None]) -> NoReturn:
    """Runs ``main`` and leaves the process with its return value as exit code (None: 0).

    UserError becomes ``error: …`` on one line of stderr and exit code 2, Ctrl-C exit code 130. Anything else is a bug
    and keeps its traceback.
    """
    try:
        code = main() or 0
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130  # 128 + SIGINT, as a shell reports it
    sys.exit(code)
