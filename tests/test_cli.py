"""Exit codes and stderr of scripts, in real processes."""

import os
import pty
import subprocess
import sys

import pytest

from tests.helpers import run_script

PROGRAM = """
from electra_accel.cli import exit_with_one_line
from electra_accel.errors import OneProcessError, UserError
def main():
    {body}
exit_with_one_line(main)
"""


@pytest.mark.parametrize(
    ("body", "code", "stderr"),
    [
        ("return None", 0, ""),
        ("return 75", 75, ""),
        ("raise UserError('no such file:\\n  a.txt')", 2, "error: no such file: a.txt\n"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
    ],
)
def test_exit_code_and_one_line(body: str, code: int, stderr: str):
    result = run_script("-c", PROGRAM.format(body=body))
    assert (result.returncode, result.stderr, result.stdout) == (code, stderr, "")


@pytest.mark.parametrize(
    ("body", "code", "stderr"),
    [
        ("raise UserError('no such file')", 2, ""),
        ("raise OneProcessError('out of GPU memory')", 2, "error: out of GPU memory\n"),
        ("raise KeyboardInterrupt", 130, ""),
    ],
)
def test_the_first_process_of_a_host_speaks_for_all(body: str, code: int, stderr: str):
    result = run_script("-c", PROGRAM.format(body=body), RANK="5", LOCAL_RANK="1")
    assert (result.returncode, result.stderr) == (code, stderr)
    if stderr == "":
        first = run_script("-c", PROGRAM.format(body=body), RANK="4", LOCAL_RANK="0")
        assert (first.returncode, first.stderr.count("\n")) == (code, 1)


def test_a_bug_keeps_its_traceback():
    result = run_script("-c", PROGRAM.format(body="raise ValueError('a bug')"))
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "ValueError: a bug" in result.stderr


@pytest.mark.parametrize("body", ["print('word ' * 100_000)", "print('one line'); time.sleep(0.5); sys.exit(0)"])
def test_a_reader_that_leaves_early(body: str):
    """As head does: no traceback, also where what was printed is only sent at the end; other pipes stay bugs."""
    program = "import os, sys, time\n" + PROGRAM.format(body=body)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert (process.stderr.read(), process.wait(60)) == ("", 141)
    result = run_script("-c", PROGRAM.format(body="raise BrokenPipeError"))
    assert result.returncode == 1 and "Traceback" in result.stderr


@pytest.mark.parametrize(("body", "code"), [("print('a line')", 141), ("return 75", 75)])
def test_a_terminal_that_is_lost(body: str, code: int):
    """As with a broken ssh, where SIGHUP is not what ends the program: no traceback, and no bug."""
    terminal, end = pty.openpty()
    program = PROGRAM.format(body=f"import sys; sys.stdin.read(); {body}")
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=end, stderr=subprocess.PIPE, text=True
    )
    os.close(end)
    os.close(terminal)
    process.stdin.close()
    assert (process.stderr.read(), process.wait(60)) == ("", code)
