"""What several tests need: where the real corpora stand, and our scripts run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]


def shared_data(name: str) -> Path:
    """Path of a real corpus, such as ``corpora/nsmc_reviews.csv.xz``; the test is skipped where it is missing.

    The corpora are not part of the repository: they are looked for in ``../shared/data`` beside it, or in the folder
    that ELECTRA_ACCEL_SHARED names.
    """
    folder = Path(os.environ.get("ELECTRA_ACCEL_SHARED") or ROOT.parent / "shared" / "data")
    if not (folder / name).exists():
        pytest.skip(f"real corpus {name} not found in {folder} (set ELECTRA_ACCEL_SHARED)")
    return folder / name


def run_script(*arguments: str | Path, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs ``python <arguments>`` from the repository root."""
    return run_command([sys.executable, *arguments], ROOT, timeout, **environment)


def run_command(
    command: list[str | Path], cwd: Path, timeout: float, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Text output captured, no terminal on stdin. After ``timeout`` seconds everything that it started is killed."""
    process = subprocess.Popen(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    code, out, err = wait_for(process, timeout)
    return subprocess.CompletedProcess(command, code, out, err)


def wait_for(process: subprocess.Popen[str], timeout: float) -> tuple[int, str, str]:
    """Exit code, stdout, stderr. One that hangs is killed with all its descendants (launchers give workers sessions of their
    own, which outlive them) and fails the test."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        family = [*psutil.Process(process.pid).children(recursive=True), process]
        for member in family:
            member.kill()
        out, err = process.communicate(timeout=30)
        raise AssertionError(f"still running after {timeout} s\n{out[-3000:]}\n{err[-3000:]}") from None
    return process.returncode, out, err
