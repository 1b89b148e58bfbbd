"""``--dry_run``: everything up to the first step, without a process group or a GPU, so that it works on a login node."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from electra_accel.engines.hardware import wants_cpu
from electra_accel.engines.open import planned_device
from electra_accel.model.pair import Pair
from electra_accel.pretraining import assemble, networks, warm_start
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.held_out_size import small
from electra_accel.pretraining.opening import finished
from electra_accel.pretraining.planned import plan
from electra_accel.pretraining.summary import plan_lines
from electra_accel.pretraining.taking import require_space
from electra_accel.terminal import Terminal, duration
from electra_accel.tracking.trackers import destination, usable_trackers

A100_BF16 = 312e12  # FLOP/s, dense: a card that most people can compare theirs with
UTILISATION = 0.4


@dataclass(frozen=True)
class Alone:
    """One process that plans for ``world_size``: as much of an Engine as planning needs."""

    world_size: int
    device: torch.device
    rank: int = 0

    def on_main(self, function: Callable[[], Any]) -> Any:
        return function()

    together = on_main

    def everywhere(self, value: Any) -> list:
        return [value]


def report(config: Config, terminal: Terminal, *, cpu: bool, folder: Path) -> None:
    """Check everything, prepare the data, fetch or build the pair, print plan, memory and time; train nothing.

    The plan is that of this machine's device, or of the CPU with ``cpu`` (``--cpu``). What only the machine of the run can
    settle (no GPU here) is warned about. Memory is that of weights, gradients and AdamW's two moments in fp32, 16 bytes a
    parameter; activations come on top. Arithmetic is counted as in :func:`training_flops`; the hours suppose 40% of an
    A100's dense bf16 peak.

    Args:
        folder: of the run; nothing is written there.

    Raises:
        UserError: whatever would stop the run.
    """
    trackers = usable_trackers(config.tracking.trackers, terminal.warn)
    device = planned_device(config.train.precision, cpu, terminal.warn)
    planned = plan(config, folder, Alone(int(os.environ.get("WORLD_SIZE", "1")), torch.device(device)), terminal)
    config, prepared, loader = planned.config, planned.prepared, planned.loader
    planned.progress()
    pair = networks.networks(config, prepared.tokenizer, terminal.line)
    model = networks.joint_module(config, pair)
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    require_space(existing, model, config)

    judged = min(prepared.manifest["splits"]["held_out"]["tokens"], config.eval.batches * config.train.batch_tokens)
    if message := small(round(config.eval.mask_prob * judged), bool(config.data.eval_files)):
        terminal.warn(message)
    parameters = sum(p.numel() for p in model.parameters())
    context = assemble.context_length(config, loader, prepared)
    flops = planned.total_steps * assemble.flops_per_step(loader, prepared, networks.flops(pair, context))
    first = []
    if warm_start.is_due(planned):
        costs = networks.flops(Pair(pair.generator, None), context)
        before = config.model.warm_start_steps * assemble.flops_per_step(loader, prepared, costs)
        flops += before
        first.append(f"warm start {config.model.warm_start_steps:,} steps first: {before:.2e} FLOP")
    hours = flops / (UTILISATION * A100_BF16) / 3600
    planned_for = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    if device == "cpu" and not wants_cpu(cpu):
        planned_for += ", as no GPU can be used here (on one, micro-batches are larger by default)"
    run = f"{folder}, {f'from {planned.checkpoint.name}' if planned.checkpoint else 'a new run'}"
    for line in (
        f"planned   for {planned_for}",
        *plan_lines(planned),
        *first,
        *(_judged_text(name, prepared.manifest["splits"][name], config) for name in planned.held_out_loaders()),
        f"memory    {parameters:,} parameters: {16 * parameters / 1e9:.2f} GB for weights, gradients and optimizer on each "
        f"process, and the activations of {loader.layout.rows * loader.plan.limits.tokens:,} tokens",
        f"time      {flops:.2e} FLOP in all: {duration(hours * 3600)} of one A100 at {UTILISATION:.0%} of its bf16 peak "
        "(computed, not measured)",
        f"records   {destination(config.tracking, trackers, folder)}",
        f"run       {finished(folder, planned.total_steps) or run}",
        "dry run: nothing was trained",
    ):
        terminal.line(line)


def _judged_text(name: str, split: dict, config: Config) -> str:
    """Size of a held-out set, and how much of it an evaluation uses."""
    heading = {"held_out": "held out", "general": "general"}[name]
    most = config.eval.batches * config.train.batch_tokens
    limit = f", of which {most:,} token slots are used (eval.batches)" if split["tokens"] > most else ""
    return f"{heading:<10}{split['examples']:,} examples, {split['tokens']:,} tokens{limit}"
