"""``--dry_run``: everything up to the first step, without a process group or a GPU, so that it works on a login node."""

import os

from electra_accel.config import Config, resolve
from electra_accel.config_checks import check
from electra_accel.model.metrics import training_flops
from electra_accel.tracking.summary import plan_lines
from electra_accel.tracking.terminal import Terminal
from electra_accel.training import assemble

A100_BF16 = 312e12  # FLOP/s, dense: a card that most people can compare theirs with
UTILISATION = 0.4


def report(config: Config, terminal: Terminal) -> None:
    """Prepare the data, fetch or build the pair, and print plan, memory and time; train nothing, write no run folder.

    Memory is that of weights, gradients and AdamW's two moments in fp32, 16 bytes a parameter; activations come on top.
    Arithmetic is counted as in :func:`training_flops`; the hours suppose 40% of an A100's dense bf16 peak.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    prepared = assemble.prepared_data(config, terminal.line)
    loader = assemble.step_loader(config, prepared, held_out=False, world_size=world_size, rank=0, device="cpu")
    steps, one_pass = assemble.total_steps(config, loader, prepared)
    check(resolve(config, steps), steps)
    pair = assemble.networks(config, prepared.tokenizer, terminal.line)
    split = prepared.manifest["splits"]["train"]
    for line in plan_lines(loader.plan, loader.layout, split, prepared.fingerprint, steps, one_pass):
        terminal.line(line)
    parameters = sum({id(p): p.numel() for network in pair for p in network.parameters()}.values())
    per_token, per_slot = training_flops(
        pair.generator.config, pair.discriminator.config, assemble.context_length(prepared)
    )
    tokens = steps / one_pass * split["tokens"]
    flops = tokens * (per_token + config.objective.mask_prob * per_slot)
    hours = flops / (UTILISATION * A100_BF16) / 3600
    terminal.line(
        f"memory    {parameters:,} parameters: {16 * parameters / 1e9:.2f} GB for weights, gradients and optimizer on each "
        f"process, and the activations of {loader.layout.rows * loader.plan.limits.tokens:,} tokens"
    )
    terminal.line(
        f"time      {flops:.2e} FLOP in all: {hours:.2f} hours of one A100 at {UTILISATION:.0%} of its bf16 peak (computed, "
        "not measured)"
    )
    terminal.line("dry run: nothing was trained")
