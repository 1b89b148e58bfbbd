"""One run of the harness: its command, its ends, and whether it is equal to the undisturbed one."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from electra_accel.errors import UserError
from electra_accel.runs import run_folder
from tests.helpers import ROOT
from tests.pretraining_runs import metrics, options, write_corpus
from tests.processes import popen

RUN, PIDS, OUTPUT = "run", "pids", "output.txt"
TIMEOUT = 300.0  # seconds that any process may take, on a busy machine
HUNG = 124  # exit code of a run that took longer
LAUNCHER = "accelerate.commands.launch"
# Dropout, two micro-batches a step, replay, patience, evaluations and samples: all that a resume has to take up again.
SETTINGS = dict(
    data__replay_files="general.txt", data__replay_fraction=0.2, data__num_workers=1, model__dropout=0.1,
    objective__corrective_weight=3, optim__warmup_steps=1, train__steps=4, train__batch_tokens=512,
    train__micro_batch_tokens=256, eval__every=2, eval__batches=1, eval__patience=3, checkpoint__every=1, checkpoint__keep=2,
    tracking__samples_every=3, tracking__mode="disabled", tokenizer__train_vocab_size=400,
)  # fmt: skip


def command(launch: Sequence[str] | None = None, **changed: object) -> list[str]:
    """Of a pre-training run in the folder where it is started; ``launch``: options of ``accelerate launch``."""
    return program("pretrain.py", options("text.txt", RUN, **SETTINGS | changed), launch)


def program(script: str, words: Sequence[str], launch: Sequence[str] | None = None) -> list[str]:
    """A script with the options ``words``, under the hook on operations."""
    hooked = ["-m", "tests.faults.hooked", str(ROOT / "scripts" / script), *words]
    launcher = [] if launch is None else ["-m", LAUNCHER, *launch]
    return [sys.executable, *launcher, *hooked]


def start(words: list[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
    """In ``folder``; files below it count as operations. Output goes to output.txt."""
    with open(folder / OUTPUT, "a", encoding="utf-8") as output:
        # What a launcher does to its processes is to be seen as it is: they are not forked from our server.
        return (subprocess.Popen if LAUNCHER in words else popen)(
            words,
            cwd=folder,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(ROOT),
                "WANDB_MODE": "disabled",  # which comes before the option; W&B has tracebacks of its own for a full disk
                "FAULT_UNDER": str(folder),
                "FAULT_PIDS": str(folder / PIDS),
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
        )


def finish(words: list[str], folder: Path, **environment: str) -> int:
    """Exit code of a run that is waited for."""
    return end_of(start(words, folder, **environment), folder)


def end_of(process: subprocess.Popen, folder: Path) -> int:
    """Exit code of a run in ``folder``; one that hangs is killed, with all that works there, and gives ``HUNG``."""
    try:
        return process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        for each in working_in(folder):
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.kill()
        process.wait()
        return HUNG


def write_text(folder: Path) -> None:
    """What a pre-training run reads."""
    write_corpus(folder / "text.txt", most=300)
    write_corpus(folder / "general.txt", most=60)


def new_place(base: Path, name: str) -> Path:
    """A folder with the text that a run reads."""
    folder = base / name
    folder.mkdir(parents=True)
    write_text(folder)
    return folder


def undisturbed(words: list[str], folder: Path, **environment: str) -> float:
    """Seconds of a run to which nothing happens; UserError if it fails all the same."""
    finish(
        program("pretrain.py", ["--help"]), folder
    )  # else the time has the start of the server of tests/processes.py in it
    began = time.monotonic()
    if code := finish(words, folder, **environment):
        raise UserError(f"the undisturbed run ended with exit code {code}: see {folder / OUTPUT}")
    return time.monotonic() - began


def content(folder: Path) -> dict[str, object]:
    """What must be equal however often a run was killed: exported weights, samples, figures that do not depend on the clock."""
    run = folder / RUN
    figures = metrics(run)
    steps = [record["step"] for record in figures if "train/loss" in record]
    return {
        **exported(run),
        "figures": figures,
        "each step once": steps == sorted(set(steps)),
        "samples": run_folder.read_jsonl(run / run_folder.SAMPLES),
        "state": run_folder.read_status(run)["state"],
    }


def exported(run: Path) -> dict[str, object]:
    """Digests of the weights for use, not of those in checkpoints."""
    found = [path for path in sorted(run.rglob("model.safetensors")) if run_folder.CHECKPOINTS not in path.parts]
    return {str(path.relative_to(run)): digest(path) for path in found}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def differences(found: dict[str, object], wanted: dict[str, object]) -> list[str]:
    """Names of what is not equal."""
    return [name for name in wanted | found if found.get(name) != wanted.get(name)]


def working_in(folder: Path) -> list[psutil.Process]:
    """All processes whose folder it is: the launcher, those that train, their data workers."""
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.Error):
            if each.cwd() == str(folder):
                found.append(each)
    return found


def training_in(folder: Path) -> list[psutil.Process]:
    """Those of them that train."""
    names = {path.name for path in (folder / PIDS).iterdir()} if (folder / PIDS).is_dir() else set()
    return [each for each in working_in(folder) if str(each.pid) in names]
