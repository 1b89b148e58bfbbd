"""A run takes its folder: room on the disk, its first files, and a status that stays true however it ends."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from torch import nn

from electra_accel.engines.engine import Engine
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.config_parser import dump
from electra_accel.pretraining.planned import Planned
from electra_accel.pretraining.progress import Progress
from electra_accel.runs import checkpoint, opening, run_folder
from electra_accel.runs.ending import recorded_end
from electra_accel.terminal import Terminal


def require_space(folder: Path, model: nn.Module, config: Config, steps: int) -> None:
    """Room for the checkpoints that are still to come, and the exported networks.

    A checkpoint is weights and AdamW's two moments, at most 12 bytes a parameter. There are ``checkpoint.keep`` of them, those
    of ``checkpoint.keep_every``, the best where patience is set, and one that is being written; those of earlier starts are
    among them, or make way. UserError where too little is free, or the folder cannot be written.
    """
    parameters = sum(p.numel() for p in model.parameters())
    every = config.checkpoint.keep_every
    most = config.checkpoint.keep + 1 + (config.eval.patience > 0) + (steps // every if every else 0)
    there = checkpoint.bytes_in(folder / run_folder.CHECKPOINTS)
    exported = parameters
    if config.is_corrective:  # the corrector has the discriminator's encoder once more
        exported += sum(p.numel() for p in model.discriminator.parameters())
    run_folder.require_writable(folder, max(12 * parameters, 12 * parameters * most - there) + 4 * exported)


def recorded_status(
    planned: Planned, progress: Progress, terminal: Terminal, report: Callable[[Path], object]
) -> AbstractContextManager[None]:
    """Keeps status.json and the report true however the run ends; ``report`` writes the run's page.

    The end of a warm start before its last step is that of its run too.
    """
    config, folder, rows = planned.config, planned.folder, planned.loader.layout.rows
    whole_run = folder.parent if config.is_warm_start else folder

    def record(state: str, reason: str, code: int) -> None:
        reason = progress.stopped_because if state == "done" else reason
        run_folder.write_status(folder, state, progress.step, reason, code)
        if code and whole_run != folder:
            run_folder.write_status(whole_run, state, 0, reason, code)
        if terminal.speaks:
            report(folder)

    smaller = f"--train.micro_batch_tokens {rows // 2 * config.train.bin_tokens}"
    remedy = "--model.gradient_checkpointing true" if rows == 1 else smaller
    return recorded_end(
        whole_run,
        record,
        terminal,
        stopped=lambda: f"at step {progress.step}",
        memory_remedy=f"{remedy}; the global step stays the same",
    )


def begin(planned: Planned, engine: Engine, progress: Progress, warn: Callable[[str], None]) -> None:
    """Take the run folder. On the main process, when all is known to be well.

    A run that begins at another run's checkpoint takes over that run's evaluation of step 0: both started from the same
    networks, and "before" means these. UserError where another process trains in this folder.
    """
    folder, step = planned.folder, progress.step if planned.checkpoint else -1
    if planned.checkpoint and planned.checkpoint.resolve().is_relative_to(folder.resolve()):
        for name in run_folder.altered_records(folder, progress.records):
            warn(f"{folder / name} was altered since step {step} was saved: do not trust its earlier records")
    opening.take(folder, engine, dump(planned.config), step, {run_folder.CONTENT: planned.content})
    if step > 0 and not (folder / run_folder.METRICS).exists():
        first = {name: value if math.isfinite(value) else None for name, value in progress.first.items()}
        run_folder.append_jsonl(folder / run_folder.METRICS, {"step": 0, **first, **Progress("").axes()})
    run_folder.write_status(folder, "running", max(step, 0))
