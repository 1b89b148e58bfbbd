"""Processes of Python that start in a tenth of a second: forked from a server that has loaded the libraries once.

A run of ours imports for four seconds before it does anything, and the tests start some two hundred. A forked process is a
process as any other: its own memory, signals, exit code, folder, environment and descriptors. What differs:

- Libraries are loaded. Tests of imports, of the interpreter's own options, of locales and of what libraries read from the
  environment when they are loaded start a new interpreter (see :func:`can_fork`).
- Its parent is the server, and it is killed when a launcher above it ends. Tests that look for processes in the system's table,
  or for orphans, use ``subprocess.Popen``.
- It ends by ``os._exit``: what native libraries do at the very end is seen where new interpreters run, as in test_two_hosts,
  test_scaling and test_preemption.
"""

import atexit
import contextlib
import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from multiprocessing import connection, forkserver, reduction
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.preloaded"])
# Variables that may differ from ours: nobody reads them when a library is loaded. Launchers set the second half.
MAY_DIFFER = (
    *(
        "CUDA_VISIBLE_DEVICES",
        "OMP_NUM_THREADS",
        "WANDB_",
        "PATH",
        "SLURM_",
        "GLOO_",
        "COLUMNS",
        "TERM",
        "PYTEST_",
        "CI",
        "FAULT_",
    ),
    *("ACCELERATE_", "FSDP_", "RANK", "LOCAL_", "WORLD_SIZE", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_"),
    *("TORCH_NCCL_", "PYTHONPATH"),
)
LAUNCHERS = ("accelerate.commands.launch", "torch.distributed.run")


def can_fork(words: list[str], environment: dict[str, str]) -> bool:
    """Whether ``words`` are this Python with a script or a module, and no variable changes that is read at the start."""
    if words[0] != sys.executable or len(words) < 2:
        return False
    if not (words[1].endswith(".py") or (words[1] == "-m" and len(words) > 2)):
        return False  # a program of -c tests imports, or is quick
    # CUDA does not survive a fork, and libraries look for GPUs when they are loaded.
    if Path("/dev/nvidiactl").exists():
        return False
    changed = {name for name in environment.keys() | os.environ.keys() if environment.get(name) != os.environ.get(name)}
    return all(name.startswith(MAY_DIFFER) for name in changed)


def popen(args: Sequence[str | Path], **options) -> subprocess.Popen:
    """``subprocess.Popen``, forked where that is the same."""
    environment = dict(os.environ if options.get("env") is None else options["env"])
    words = [os.fspath(word) for word in args]
    if words[1:2] == ["-u"]:  # which launchers add; what is forked writes every line at once
        del words[1]
    return (Forked if can_fork(words, environment) else subprocess.Popen)(words, **options)


def of_this_python(words: list[str]) -> list[str]:
    """A command of the docs, such as ``accelerate launch scripts/pretrain.py``, with the interpreter that runs the tests."""
    if words[:2] == ["accelerate", "launch"]:
        return [sys.executable, "-m", "accelerate.commands.launch", *words[2:]]
    return [sys.executable, *words[1:]] if words[0] == "python" else words


class Forked(subprocess.Popen):
    """``subprocess.Popen`` of ``[python, script or -m module, arguments …]`` in a process that the server forks."""

    def _execute_child(
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid, umask,
        start_new_session, process_group,
    ):  # fmt: skip
        assert not (preexec_fn or pass_fds or shell or process_group not in (None, -1)), "not for forked processes"
        ours = [own if given == -1 else given for own, given in enumerate((p2cread, c2pwrite, errwrite))]
        environment = dict(os.environ if env is None else env)
        settings = (args[1:], str(cwd or Path.cwd()), environment, _Descriptors(ours), start_new_session)
        self._process = CONTEXT.Process(target=_run, args=settings)
        with contextlib.chdir(ROOT):  # where the server, which the first process starts, finds what to load
            self._process.start()
        self.pid, self._child_created = self._process.pid, True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _try_wait(self, wait_flags):
        code = self._process._popen.poll(wait_flags)
        if code is None:
            return 0, 0
        return self.pid, -code if code < 0 else code << 8

    def _internal_poll(self, _deadstate=None):
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)
        return self.returncode


class _Descriptors:
    """Open files that go to the new process; there it is a list of their numbers."""

    def __init__(self, numbers: list[int]):
        self.numbers = numbers

    def __reduce__(self):
        return _numbers, tuple(reduction.DupFd(number) for number in self.numbers)


def _numbers(*duplicates) -> list[int]:
    return [duplicate.detach() for duplicate in duplicates]


def _run(words: list[str], cwd: str, environment: dict[str, str], files: list[int], new_session: bool) -> None:
    """The new process: what an interpreter does between its start and its end."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", errors="strict", buffering=1, closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    if new_session:  # a worker of a launcher, which is to end with it
        os.setsid()
        threading.Thread(target=_end_with, args=(multiprocessing.parent_process().sentinel,), daemon=True).start()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    code = 0
    try:
        _run_words(words)
    except SystemExit as ended:
        code = ended.code or 0
        if not isinstance(code, int):  # a text, which Python prints
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = code or 120
    os._exit(code)


def _run_words(words: list[str]) -> None:
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    search = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[0:0] = [path for path in search if path not in sys.path]
    if words[0] != "-m":
        sys.argv, sys.path[0:0] = words, [str(Path(words[0]).resolve().parent)]
        runpy.run_path(words[0], run_name="__main__")
        return
    sys.argv, sys.path[0:0] = words[1:], [os.getcwd()]
    if words[1] in LAUNCHERS:
        _launch(words[1])
    else:
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)


def _launch(name: str) -> None:
    """The launcher, whose workers are forked too."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    forkserver._forkserver.ensure_running = lambda: None  # the server that this process came from, not one more
    launcher = importlib.import_module(name)
    subprocess_handler.Popen = popen
    launcher.subprocess = SimpleNamespace(**vars(subprocess) | {"Popen": popen})
    launcher.main()


def _end_with(parent: int) -> None:
    connection.wait([parent])
    os.kill(os.getpid(), signal.SIGKILL)
