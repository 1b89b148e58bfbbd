"""Exit codes and stderr of scripts, in real processes."""

import pytest

from tests.helpers import run_script

PROGRAM = """
from electra_accel.cli import exit_with_one_line
from electra_accel.errors import UserError
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


def test_a_bug_keeps_its_traceback():
    result = run_script("-c", PROGRAM.format(body="raise ValueError('a bug')"))
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "ValueError: a bug" in result.stderr
