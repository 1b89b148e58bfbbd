"""What is said at the start of a run and at its end."""

from pathlib import Path

from electra_accel.data.plan import Layout, Plan
from electra_accel.tracking.terminal import duration


def plan_lines(plan: Plan, layout: Layout, manifest: dict, steps: int, steps_per_pass: float) -> list[str]:
    """Data, plan and waste, as a person wants to know them before a long run.

    Args:
        manifest: of the prepared data.
        steps: of the run; ``steps_per_pass``: of one pass over the training text.
    """
    limits, split = plan.limits, manifest["splits"]["train"]
    slots = plan.bins_per_step * limits.tokens
    waste = f", {layout.empty_bins} of them empty" if layout.empty_bins else ""
    return [
        f"data      {split['documents']:,} documents, {split['examples']:,} examples, {split['tokens']:,} tokens "
        f"({manifest['fingerprint'][:12]})",
        f"plan      bins of {limits.tokens} tokens, {limits.slots} selected slots, {limits.segments} examples at most; "
        f"{split['tokens'] / (steps_per_pass * slots):.1%} filled",
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


FIGURES = (  # (key, name, which direction is better)
    ("generator_loss", "generator loss", "lower"),
    ("generator_accuracy", "generator accuracy", "higher"),
    ("discriminator_loss", "discriminator loss", "lower"),
    ("balanced_accuracy", "discriminator balanced accuracy", "higher"),
    ("auc", "discriminator ROC-AUC", "higher"),
)


def closing_lines(
    folder: Path, first: dict[str, float], last: dict[str, float], chance: float, tokens: int, seconds: float
) -> list[str]:
    """What was made, how good it is on held-out text against the untrained model, and what to type next.

    Args:
        first, last: held-out figures of the untrained (or given) pair and of the exported one.
        chance: generator accuracy of always guessing the most frequent token.
    """
    rows = [
        f"  {name:<32} {first[f'eval/{key}']:>9.4f}   {last[f'eval/{key}']:>9.4f}   {better} is better"
        for key, name, better in FIGURES
    ]
    return [
        "",
        f"trained on {tokens:,} tokens in {duration(seconds)}",
        f"  {'held-out text, fixed corruption':<32} {'before':>9}   {'after':>9}",
        *rows,
        f"  always guessing the most frequent token has generator accuracy {chance:.4f}; an AUC of 0.5 is chance",
        "",
        f"made      {folder}/discriminator   the encoder to fine-tune, with its replaced-token head",
        f"          {folder}/generator       the masked language model",
        f"          {folder}/metrics.jsonl, samples.jsonl, checkpoints/",
        f"          {folder}/report.html     the whole run on one page, to open in a browser",
        'next      load it: python -c "from transformers import AutoModel; '
        f"print(AutoModel.from_pretrained('{folder}/discriminator'))\"",
        f"          go on:   the same command with --run.dir {folder} and more --train.steps (or --train.epochs)",
        "          your own text: see README.md",
    ]
