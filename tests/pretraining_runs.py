"""A small pre-training run for tests: real prose that every Python has, and the script as a user starts it."""

import functools
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

from electra_accel.runs import run_folder
from tests.helpers import ROOT, wait_for
from tests.processes import popen

STEPS = 20
SPEEDS = ("speed/", "train/hours", "train/device_hours")  # figures that differ between two equal runs


def write_corpus(path: Path, most: int | None = None) -> None:
    """The language reference that ``help()`` shows: English prose, one paragraph a line, ``most`` of them or all."""
    paragraphs = (" ".join(part.split()) for name in sorted(topics) for part in topics[name].split("\n\n"))
    path.write_text("\n".join([part for part in paragraphs if len(part) > 40][:most]), encoding="utf-8")


def options(corpus: Path, run: Path, **changed: object) -> list[str]:
    """A command line; ``changed`` has double underscores for dots."""
    values = {
        "data.train_files": corpus,
        "data.max_length": 64,
        "data.eval_fraction": 0.05,
        "tokenizer.train_vocab_size": 1000,
        "model.size": "tiny",
        "model.generator_width": 0.25,
        "optim.learning_rate": 1e-3,
        "optim.warmup_steps": 5,
        "train.steps": STEPS,
        "train.batch_tokens": 1024,
        "train.micro_batch_tokens": 256,
        "eval.every": 10,
        "eval.batches": 4,
        "checkpoint.every": 5,
        "tracking.log_every": 1,
        "tracking.samples_every": 10,
        "run.dir": run,
    }
    values |= {name.replace("__", "."): value for name, value in changed.items()}
    return [f"--{name}={value}" for name, value in values.items() if value is not None]


def start(
    arguments: list, cwd: Path, launch: list | None = None, *, begin: Callable = popen, **environment: str
) -> subprocess.Popen[str]:
    """The script in ``cwd``, as plain python or under ``accelerate launch`` with the given options.

    ``begin`` is ``subprocess.Popen`` for tests that look for the processes in the system's table.
    """
    script = str(ROOT / "scripts" / "pretrain.py")
    command = [sys.executable, script] if launch is None else [sys.executable, "-m", "accelerate.commands.launch"]
    command += [] if launch is None else [*map(str, launch), script]
    return begin(
        [*command, *map(str, arguments)],
        cwd=cwd,
        # A W&B service that a run in this process has started must not serve this one too: it would survive a kill.
        env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_SERVICE": "", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_here(arguments: list, cwd: Path, monkeypatch, capfd, script: str = "pretrain.py") -> tuple[int, str, str]:
    """A script in this process, which has the libraries loaded: exit code, stdout, stderr."""
    monkeypatch.chdir(cwd)
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    capfd.readouterr()
    try:
        runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
    except SystemExit as exit_:
        code = exit_.code
    out, err = capfd.readouterr()
    return code, out, err


def run_short(short: dict, place: Path, monkeypatch, capfd):
    """``run("name", option=…)`` -> :func:`run_here` in ``place`` on its text.txt, with the options ``short`` unless changed."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return lambda run, **changed: run_here(options("text.txt", run, **short | changed), place, monkeypatch, capfd)


def exported_weights(run: Path) -> bytes:
    return (run / "discriminator" / "model.safetensors").read_bytes()


def finish(process: subprocess.Popen[str], timeout: float = 200) -> tuple[int, str, str]:
    """Exit code, stdout, stderr; a process that hangs is killed and fails the test."""
    return wait_for(process, timeout)


def metrics(run: Path) -> list[dict]:
    """metrics.jsonl without what depends on the clock."""
    records = run_folder.read_jsonl(run / run_folder.METRICS)
    return [{key: value for key, value in record.items() if not key.startswith(SPEEDS)} for record in records]


def wandb_segments(run: Path) -> list[list[dict]]:
    """What each offline W&B segment of a run really holds, oldest first: its records."""
    return [
        [json.loads(line) for line in _inspected(log, "--json").splitlines() if line.startswith("{")]
        for log in sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
    ]


def wandb_summary(run: Path) -> dict[str, str]:
    """The summary of a run's last segment, values as W&B prints them."""
    log = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))[-1]
    words = (line.split() for line in _inspected(log, "--summary").splitlines())
    return {found[0]: found[1] for found in words if len(found) == 2}


def _inspected(log: Path, form: str) -> str:
    """What W&B's own reader prints of a log."""
    return _inspected_once(log, form, log.stat().st_mtime_ns, log.stat().st_size)


@functools.cache
def _inspected_once(log: Path, form: str, *version: int) -> str:
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", form, str(log)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def wandb_rows(records: list[dict]) -> list[dict]:
    """The logged rows of a segment."""
    return [record["history"]["item"] for record in records if record["type"] == "history"]
