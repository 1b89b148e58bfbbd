"""What is said at the start of a run."""

from electra_accel.pretraining.planned import Planned


def plan_lines(planned: Planned) -> list[str]:
    """Data, plan and waste, as a person wants to know them before a long run."""
    plan, layout, manifest = planned.loader.plan, planned.loader.layout, planned.prepared.manifest
    steps, one_pass = planned.total_steps, planned.one_pass
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
        f"{tokens / (one_pass * slots):.1%} filled",
        f"step      {plan.bins_per_step} bins = {slots:,} token slots: {layout.world_size} processes x {layout.accumulation} "
        f"micro-batches x {layout.rows} bins{waste}",
        f"length    {steps:,} steps, {steps / one_pass:.2f} passes over the text",
    ]


def opening_lines(planned: Planned, engine: str, held_out: str, records: str, step: int) -> list[str]:
    """What a run is about to do, where it is written to and how to watch it.

    Args:
        engine, held_out, records: in words.
        step: that it starts from.
    """
    folder = planned.folder
    return [
        f"engine    {engine}",
        *plan_lines(planned),
        f"held out  {held_out}",
        f"records   {records}",
        f"run       {folder}, from step {step}",
        f"watch     {folder}/report.html in a browser: brought up to date at each evaluation",
    ]
