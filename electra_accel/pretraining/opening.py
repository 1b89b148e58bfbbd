"""Opening a run folder: a new run, one to go on with, one that is finished, or one that is somebody else's."""

import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from torch import nn

from electra_accel.data.plan import Layout
from electra_accel.engines.engine import Engine
from electra_accel.errors import UserError
from electra_accel.options.yaml_file import read_yaml
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.config_checks import difference, moved
from electra_accel.pretraining.config_parser import dump, load
from electra_accel.pretraining.content import changed_content
from electra_accel.pretraining.progress import Progress
from electra_accel.reports.report import write_report
from electra_accel.runs import checkpoint, run_folder
from electra_accel.runs.ending import recorded_end
from electra_accel.runs.stopping import STOP_FILE
from electra_accel.terminal import Terminal

OF_A_WARM_START = {run_folder.WARM_START, run_folder.STATUS}  # before the run itself has begun
EMPTY = {STOP_FILE, run_folder.LOCK, run_folder.PROBE}  # a kill before the first file of a run may leave the last two
LAUNCHER = ("ACCELERATE_", "FSDP_")  # how variables begin that ``accelerate launch`` sets
PACKAGES = ("torch", "accelerate", "transformers", "datasets", "tokenizers", "numpy", "deepspeed", "wandb")


def open_run(folder: Path, config: Config, warn: Callable[[str], None]) -> Path | None:
    """What a run in ``folder`` starts from: the newest whole checkpoint, or None for step 0. Changes nothing.

    Raises:
        UserError: the folder holds something else, or a run of another configuration (each key, old -> new), or a run
            although ``run.resume`` is never; ``run.resume`` names no whole checkpoint.
    """
    known = folder / run_folder.CONFIG
    if known.exists():
        content = read_yaml(str(known), "run.dir")
        if isinstance(content, dict) and "models" in content:
            raise UserError(f"run.dir {folder} holds fine-tunings; choose another --run.dir")
        if config.run.resume == "never":
            raise UserError(f"run.dir {folder} holds a run already and run.resume is never; choose another --run.dir")
        require_same(folder, config)
    elif folder.is_dir() and _foreign({path.name for path in folder.iterdir()}):
        raise UserError(f"run.dir {folder} is not empty and not a run of ours; choose another --run.dir")
    run_folder.require_creatable(folder)
    own = checkpoint.newest_valid(folder / run_folder.CHECKPOINTS, warn)
    if own or config.run.resume in ("auto", "never"):
        return own  # a run that began at another's checkpoint goes on from its own
    path = Path(config.run.resume)
    try:
        checkpoint.verify(path)
    except checkpoint.Damaged as reason:
        raise UserError(f"run.resume {path} is not a whole checkpoint: {reason}") from reason
    origin = path.resolve().parent.parent
    if (origin / run_folder.CONFIG).exists():
        require_same(origin, config)
    return path


def _foreign(names: set[str]) -> set[str]:
    """What stands in a folder without config.yaml and is not ours. A status alone is of a run that has lost the rest: to begin
    at step 0 there would hide that."""
    return names - EMPTY - (OF_A_WARM_START if run_folder.WARM_START in names else set())


def require_same(folder: Path, config: Config) -> None:
    """Raises UserError with each key, old -> new, unless the run in ``folder`` was started with this configuration.

    Text, vocabulary and networks may stand elsewhere than before; :func:`require_same_content` compares them.
    """
    known = load(folder / run_folder.CONFIG)
    changed = difference(known, config)
    if not (folder / run_folder.CONTENT).exists():  # a run of an earlier version: only the names are known
        changed += moved(known, config)
    if changed:
        raise UserError(
            f"run.dir {folder} was started with another configuration ({'; '.join(changed)}); "
            "use the old values to go on with it, or another --run.dir"
        )


def require_same_content(
    folder: Path, checkpoint: Path | None, config: Config, content: dict[str, str], log: Callable[[str], None]
) -> None:
    """What is read must be what the run in ``folder`` read, and the run of the checkpoint that it begins at. Changes nothing.

    Args:
        content: see ``content.content_of``.
        log: takes a line for each option that names another place with the same content.

    Raises:
        UserError: names the parts that are others.
    """
    for run in dict.fromkeys([folder, *([checkpoint.resolve().parent.parent] if checkpoint else [])]):
        if changed := changed_content(run, content):
            raise UserError(
                f"run.dir {run} was started with another configuration ({'; '.join(changed)}); restore it to go on, or use "
                "another --run.dir"
            )
    if (folder / run_folder.CONFIG).exists():
        for line in moved(load(folder / run_folder.CONFIG), config):
            log(f"{line}: the same content")


def finished(folder: Path, total_steps: int) -> str | None:
    """What to tell if the run ended by itself: all steps done, or the held-out metric no longer improved."""
    status = run_folder.read_status(folder)
    if status["state"] != "done" or not (status["reason"] or status["step"] >= total_steps):
        return None
    if status["reason"]:
        return f"run.dir {folder} is finished: {status['reason']}"
    return f"run.dir {folder} is finished; the same command with more --train.steps (or --train.epochs, --train.flops) goes on"


def require_equal_data(engine: Engine, fingerprint: str) -> None:
    """Processes on hosts that do not share a disk prepare the data one by one: what they made must be the same.

    Raises:
        UserError: on every process, naming the hosts.
    """
    found = engine.everywhere((platform.node(), fingerprint))
    if len({made for _, made in found}) > 1:
        hosts = ", ".join(f"{host} {made}" for host, made in sorted(set(found)))
        raise UserError(f"the prepared data differs between hosts ({hosts}): give all of them the same files")


def require_space(folder: Path, model: nn.Module, config: Config) -> None:
    """Room for the checkpoints that are still to come, and the exported pair.

    A checkpoint is weights and AdamW's two moments, 12 bytes a parameter. There are ``checkpoint.keep`` of them, the best where
    patience is set, and one that is being written; those of earlier starts are among them, or make way.

    Raises:
        UserError: too little is free, or the folder cannot be written.
    """
    parameters = sum(p.numel() for p in model.parameters())
    most = config.checkpoint.keep + 1 + (config.eval.patience > 0)
    there = checkpoint.bytes_in(folder / run_folder.CHECKPOINTS)
    run_folder.require_writable(folder, max(12 * parameters, 12 * parameters * most - there) + 4 * parameters)


def recorded_status(
    folder: Path, config: Config, progress: Progress, layout: Layout, terminal: Terminal
) -> AbstractContextManager[None]:
    """Keeps status.json and the report true however the run ends.

    The end of a warm start before its last step is that of its run too.
    """
    whole_run = folder.parent if config.is_warm_start else folder

    def record(state: str, reason: str, code: int) -> None:
        reason = progress.stopped_because if state == "done" else reason
        run_folder.write_status(folder, state, progress.step, reason, code)
        if code and whole_run != folder:
            run_folder.write_status(whole_run, state, 0, reason, code)
        if terminal.speaks:
            write_report(folder)

    smaller = f"--train.micro_batch_tokens {layout.rows // 2 * config.train.bin_tokens}"
    remedy = "--model.gradient_checkpointing true" if layout.rows == 1 else smaller
    return recorded_end(
        whole_run,
        record,
        terminal,
        stopped=lambda: f"at step {progress.step}",
        memory_remedy=f"{remedy}; the global step stays the same",
    )


def begin(folder: Path, config: Config, content: dict[str, str], engine: Engine, progress: Progress | None) -> None:
    """Take the run folder: write config.yaml, content.json and environment.json, cut files back to where the run goes on.

    On the main process, when all is known to be well. A run that begins at another run's checkpoint takes over that run's
    evaluation of step 0: the networks that they started from are the same, and "before" means these.

    Args:
        progress: of the checkpoint that the run goes on from; None: of none, nothing is kept.

    Raises:
        UserError: another process trains in this folder.
    """
    step = progress.step if progress else -1
    with run_folder.storage_errors(folder):
        engine.run_lock = run_folder.lock(folder)
        run_folder.write_atomically(folder / run_folder.CONFIG, dump(config))
        run_folder.write_json(folder / run_folder.CONTENT, content)
        run_folder.write_json(folder / run_folder.ENVIRONMENT, environment(engine))
        for name in (run_folder.METRICS, run_folder.SAMPLES):
            run_folder.cut_back(folder / name, step)
        if step > 0 and not (folder / run_folder.METRICS).exists():
            first = {name: value if math.isfinite(value) else None for name, value in progress.first.items()}
            run_folder.append_jsonl(folder / run_folder.METRICS, {"step": 0, **first, **Progress("").axes()})
        checkpoint.set_aside(folder / run_folder.CHECKPOINTS, after_step=step)
        run_folder.write_status(folder, "running", max(step, 0))


def environment(engine: Engine) -> dict:
    """What a result may depend on beside the configuration: versions, commit, hardware, launch."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "host": platform.node(),
        "engine": engine.describe(),
        "engine_kind": engine.kind,
        "world_size": engine.world_size,
        "precision": engine.precision,
        "accelerate": {key: value for key, value in sorted(os.environ.items()) if key.startswith(LAUNCHER)},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the clone that this file is in, with "-dirty" where tracked files differ from it; None outside of git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
