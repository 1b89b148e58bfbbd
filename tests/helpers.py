"""What several tests need: where the real corpora stand, and our scripts run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

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
    """Runs ``python <arguments>`` from the repository root, with text output captured and no terminal on stdin."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
