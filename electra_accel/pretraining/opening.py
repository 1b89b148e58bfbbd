"""Opening a run folder: a new run, one to go on with, one that is finished, or one that is somebody else's."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from torch import nn

from electra_accel.data.plan import Layout
from electra_accel.engines.engine import Engine
from electra_accel.errors import UserError
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.config_checks import difference, moved
from electra_accel.pretraining.config_parser import dump, load
from electra_accel.pretraining.content import changed_content
from electra_accel.pretraining.progress import Progress
from electra_accel.runs import checkpoint, run_folder
from electra_accel.runs import opening as runs
from electra_accel.runs.ending import recorded_end
from electra_accel.terminal import Terminal

OF_A_WARM_START = {run_folder.WARM_START, run_folder.STATUS}  # before the run itself has begun


def open_run(folder: Path, config: Config, warn: Callable[[str], None]) -> Path | None:
    """What a run in ``folder`` starts from: the newest whole checkpoint, or None for step 0. Changes nothing.

    Raises:
        UserError: the folder holds something else, or a run of another configuration (each key, old -> new), or a run
            although ``run.resume`` is never; ``run.resume`` names no whole checkpoint.
    """
    # A status alone is of a run that has lost the rest: to begin at step 0 there would hide that.
    others = OF_A_WARM_START if (folder / run_folder.WARM_START).exists() else ()
    if runs.require_own(folder, runs.PRE_TRAINING, others):
        if config.run.resume == "never":
            raise UserError(f"run.dir {folder} holds a run already and run.resume is never; choose another --run.dir")
        require_same(folder, config)
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


def require_same(folder: Path, config: Config) -> None:
    """Raises UserError with each key, old -> new, unless the run in ``folder`` was started with this configuration.

    Text, vocabulary and networks may stand elsewhere than before; :func:`require_same_content` compares them.
    """
    known = load(folder / run_folder.CONFIG)
    changed = difference(known, config)
    if not (folder / run_folder.CONTENT).exists():  # a run of an earlier version: only the names are known
        changed += moved(known, config)
    runs.require_unchanged(folder, changed)


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
        runs.require_unchanged(run, changed_content(run, content))
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
    folder: Path, config: Config, progress: Progress, layout: Layout, terminal: Terminal, report: Callable[[Path], None]
) -> AbstractContextManager[None]:
    """Keeps status.json and the report true however the run ends.

    The end of a warm start before its last step is that of its run too.

    Args:
        report: writes the run's page.
    """
    whole_run = folder.parent if config.is_warm_start else folder

    def record(state: str, reason: str, code: int) -> None:
        reason = progress.stopped_because if state == "done" else reason
        run_folder.write_status(folder, state, progress.step, reason, code)
        if code and whole_run != folder:
            run_folder.write_status(whole_run, state, 0, reason, code)
        if terminal.speaks:
            report(folder)

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
    """Take the run folder. On the main process, when all is known to be well.

    A run that begins at another run's checkpoint takes over that run's evaluation of step 0: both started from the same
    networks, and "before" means these.

    Args:
        content: see ``content.content_of``; it becomes content.json.
        progress: of the checkpoint that the run goes on from; None: of none.

    Raises:
        UserError: another process trains in this folder.
    """
    step = progress.step if progress else -1
    runs.take(folder, engine, dump(config), step, {run_folder.CONTENT: content})
    if step > 0 and not (folder / run_folder.METRICS).exists():
        first = {name: value if math.isfinite(value) else None for name, value in progress.first.items()}
        run_folder.append_jsonl(folder / run_folder.METRICS, {"step": 0, **first, **Progress("").axes()})
    run_folder.write_status(folder, "running", max(step, 0))
