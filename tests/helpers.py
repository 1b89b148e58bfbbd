"""What several tests need: where the real corpora stand, and our scripts run as a user runs them."""

import importlib
import logging
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType
from unittest import mock

import psutil
import pytest

from tests.processes import popen

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


def run_script(*arguments: str | Path, timeout: float = 240, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs ``python <arguments>`` from the repository root, see :func:`run_command`."""
    return run_command([sys.executable, *arguments], ROOT, timeout, **more)


def run_command(
    command: list[str | Path], cwd: Path, timeout: float, *, begin: Callable = popen, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Text output captured, no terminal on stdin. After ``timeout`` seconds everything that it started is killed.

    ``begin`` is ``subprocess.Popen`` for tests of what forked processes do not show (see ``tests/processes.py``).
    """
    process = begin(
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


def benchmark(name: str) -> ModuleType:
    """A script of scripts/benchmarks/ as a module, which finds its neighbours there."""
    with mock.patch.object(sys, "path", [str(ROOT / "scripts" / "benchmarks"), *sys.path]):
        return importlib.import_module(name)


def run_in_process(
    script: str, *arguments: str | Path, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs ``scripts/<script>`` inside the process of the tests, which has the libraries loaded already: seconds less.

    Gives what :func:`run_script` gives. For tests of what a script says, writes and returns; those of signals, kills, pipes,
    imports or several processes need a process. Afterwards this process is as it was before.
    """
    words = [str(ROOT / "scripts" / script), *map(str, arguments)]
    with ExitStack() as stack:
        stack.enter_context(_process_restored())
        stack.enter_context(mock.patch.dict(os.environ, environment))
        stack.enter_context(mock.patch.object(sys, "argv", words))
        stack.enter_context(mock.patch.object(sys, "path", [str(Path(words[0]).parent), *sys.path]))
        files = [stack.enter_context(_captured(name)) for name in ("stdout", "stderr")]
        os.chdir(cwd)
        try:
            runpy.run_path(words[0], run_name="__main__")
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        except Exception:
            traceback.print_exc()
            code = 1
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        out, err = (file.read_text(encoding="utf-8") for file in files)
    return subprocess.CompletedProcess(words, code, out, err)


@contextmanager
def _captured(name: str) -> Iterator[Path]:
    """A file that gets what this process and those that it starts write to ``sys.<name>``.

    The stream that stands there meanwhile writes to the descriptor, whatever it leads to: libraries that keep it may go on.
    """
    descriptor = {"stdout": 1, "stderr": 2}[name]
    stream = open(descriptor, "w", encoding="utf-8", buffering=1, closefd=False)
    kept = os.dup(descriptor)
    with tempfile.NamedTemporaryFile() as file, mock.patch.object(sys, name, stream):
        os.dup2(file.fileno(), descriptor)
        try:
            yield Path(file.name)
        finally:
            stream.flush()
            os.dup2(kept, descriptor)
            os.close(kept)


@contextmanager
def _process_restored() -> Iterator[None]:
    """What a script may change in its process is afterwards as it was."""
    import torch
    from accelerate.state import AcceleratorState

    folder, handlers = Path.cwd(), {number: signal.getsignal(number) for number in signal.valid_signals()}
    loggers = {name: logging.getLogger(name) for name in logging.root.manager.loggerDict}
    levels = {name: logger.level for name, logger in loggers.items()}
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    AcceleratorState._reset_state(reset_partial_state=True)  # it is one for the whole process
    try:
        with mock.patch.dict(os.environ), warnings.catch_warnings():
            yield
    finally:
        os.chdir(folder)
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.set_rng_state(random)
        torch.set_num_threads(threads)
        if torch.are_deterministic_algorithms_enabled() != deterministic:  # it imports for seconds
            torch.use_deterministic_algorithms(deterministic)
        for name, logger in loggers.items():
            logger.setLevel(levels[name])
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def wait_for(process: subprocess.Popen[str], timeout: float) -> tuple[int, str, str]:
    """Exit code, stdout, stderr. One that hangs is killed with all its descendants (launchers give workers sessions of their
    own, which outlive them; forked workers end with their launcher) and fails the test. With PYTHONFAULTHANDLER in their
    environment they first say where they are."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        family = [*psutil.Process(process.pid).children(recursive=True), process]
        for number, patience in ((signal.SIGABRT, 3), (signal.SIGKILL, 0)):
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    member.send_signal(number)
            time.sleep(patience)
        out, err = process.communicate(timeout=30)
        raise AssertionError(f"still running after {timeout} s\n{out[-3000:]}\n{err[-9000:]}") from None
    return process.returncode, out, err
