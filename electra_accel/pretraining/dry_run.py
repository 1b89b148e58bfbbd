"""``--dry_run``: everything up to the first step, without a process group or a GPU, so that it works on a login node."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from electra_accel.engines.hardware import wants_cpu
from electra_accel.engines.open import planned_device
from electra_accel.pretraining import networks, warm_start
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.config_checks import small_held_out
from electra_accel.pretraining.opening import finished
from electra_accel.pretraining.planned import plan
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

    What only the machine of the run can settle (no GPU here) is warned about; UserError for all else that would stop the run.
    Memory is that of weights, gradients and AdamW's two moments in fp32, 16 bytes a parameter: a
    little much for Muon, which keeps one number for each of a matrix.
    """
    trackers = usable_trackers(config.tracking.trackers, terminal.warn)
    device = planned_device(config.train.precision, cpu, terminal.warn, config.optim.kind)
    planned = plan(config, folder, Alone(int(os.environ.get("WORLD_SIZE", "1")), torch.device(device)), terminal)
    config, splits, one_pass = planned.config, planned.prepared.manifest["splits"], planned.one_pass
    planned.progress()
    pair = networks.networks(config, planned.prepared.tokenizer, terminal.line)
    model = networks.joint_module(config, pair, planned.prepared.tokenizer, terminal.line)
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    require_space(existing, model, config, planned.total_steps)

    most_judged = config.eval.batches * config.train.batch_tokens  # token slots of an evaluation
    selected = round(config.eval.mask_prob * min(splits["held_out"]["tokens"], most_judged))
    if message := small_held_out(selected, bool(config.data.eval_files)):
        terminal.warn(message)
    parameters = sum(p.numel() for p in model.parameters())
    generator, discriminator = (network and network.config for network in pair)
    flops = planned.total_steps * one_pass.flops_per_step(one_pass.costs(generator, discriminator))
    extra = []
    if warm_start.is_due(planned):
        steps = config.model.warm_start_steps
        before = steps * one_pass.flops_per_step(one_pass.costs(generator, None))
        flops += before
        extra.append(f"warm start {steps:,} steps first: {before:.2e} FLOP")
    for name in planned.held_out_loaders():
        tokens, heading = splits[name]["tokens"], {"held_out": "held out"}.get(name, name)
        limit = f", of which {most_judged:,} token slots are used (eval.batches)" if tokens > most_judged else ""
        extra.append(f"{heading:<10}{splits[name]['examples']:,} examples, {tokens:,} tokens{limit}")
    seconds = flops / (UTILISATION * A100_BF16)
    time = duration(seconds) if seconds >= 1 else "less than 1s"
    planned_for = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    if device == "cpu" and not wants_cpu(cpu):
        planned_for += ", as no GPU can be used here (on one, micro-batches are larger by default)"
    run = f"{folder}, {f'from {planned.checkpoint.name}' if planned.checkpoint else 'a new run'}"
    for line in (
        f"planned   for {planned_for}",
        *planned.lines(),
        *extra,
        f"memory    {parameters:,} parameters: {16 * parameters / 1e9:.2f} GB for weights, gradients and optimizer on each "
        f"process, and the activations of {planned.loader.layout.rows * planned.loader.plan.limits.tokens:,} tokens",
        f"time      {flops:.2e} FLOP in all: {time} of one A100 at {UTILISATION:.0%} of its bf16 peak "
        "(computed, not measured)",
        f"records   {destination(config.tracking, trackers, folder)}",
        f"run       {finished(folder, planned.total_steps) or run}",
        "dry run: nothing was trained",
    ):
        terminal.line(line)
