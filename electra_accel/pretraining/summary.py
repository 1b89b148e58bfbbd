"""What is said at the start of a run."""

from pathlib import Path

from electra_accel.data.plan import Layout, Plan


def plan_lines(plan: Plan, layout: Layout, manifest: dict, steps: int, steps_per_pass: float) -> list[str]:
    """Data, plan and waste, as a person wants to know them before a long run.

    Args:
        manifest: of the prepared data.
        steps: of the run; ``steps_per_pass``: of one pass over the training text.
    """
    limits, split = plan.limits, manifest["splits"]["train"]
    slots, tokens = plan.bins_per_step * limits.tokens, split["tokens"]
    replayed = ""
    if plan.replay:
        general = manifest["splits"]["replay"]
        tokens += plan.replay.per_pass * general["tokens"] / general["examples"]
        replayed = f"; replay: {plan.replay.per_pass:,} of {general['examples']:,} general examples in each pass"
    waste = f", {layout.empty_bins} of them empty" if layout.empty_bins else ""
    return [
        f"data      {split['documents']:,} documents, {split['examples']:,} examples, {split['tokens']:,} tokens "
        f"({manifest['fingerprint'][:12]}){replayed}",
        f"plan      bins of {limits.tokens} tokens, {limits.slots} selected slots, {limits.segments} examples at most; "
        f"{tokens / (steps_per_pass * slots):.1%} filled",
        f"step      {plan.bins_per_step} bins = {slots:,} token slots: {layout.world_size} processes x {layout.accumulation} "
        f"micro-batches x {layout.rows} bins{waste}",
        f"length    {steps:,} steps, {steps / steps_per_pass:.2f} passes over the text",
    ]


def opening_lines(folder: Path, engine: str, plan: list[str], held_out: str, records: str, step: int) -> list[str]:
    """What a run is about to do, where it is written to and how to watch it.

    Args:
        engine, held_out, records: in words; ``plan``: of :func:`plan_lines`.
        step: that it starts from.
    """
    return [
        f"engine    {engine}",
        *plan,
        f"held out  {held_out}",
        f"records   {records}",
        f"run       {folder}, from step {step}",
        f"watch     {folder}/report.html in a browser: brought up to date at each evaluation",
    ]
