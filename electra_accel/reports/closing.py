"""What is said at the end of a run."""

import json
import shlex
from pathlib import Path

from electra_accel.reports import story
from electra_accel.reports.adaptation import FRESH_GENERATOR, SCRATCH, Story
from electra_accel.runs import run_folder


def closing_lines(folder: Path, told: Story | None) -> list[str]:
    """What was made, how good it is on held-out text against what it started from, and what to type next.

    ``folder`` is that of the run, with what it exported; ``told`` is None where nothing was judged.
    """
    if told and told.start == FRESH_GENERATOR:
        return ["warm start done: the pair comes next"]
    uses = {
        "discriminator": "the encoder to fine-tune, with its replaced-token head",
        "encoder": "the encoder to fine-tune, with its LM head",
        "generator": "the masked language model",
        "corrector": "that encoder with an LM head, which names the token that should stand at each place",
    }
    made = [name for name in uses if (folder / name).is_dir()]
    records = [name for name in (run_folder.METRICS, run_folder.SAMPLES) if (folder / name).exists()]
    typed, more = (
        shlex.quote(str(folder)),
        f"judge it on other text: python scripts/evaluate.py --run {shlex.quote(str(folder))} --files FILE",
    )
    if told and told.start != SCRATCH:
        more = f"before and after, also of several runs:  python scripts/adaptation.py {typed}"
    network = json.dumps("/".join([str(folder), *made[:1]]), ensure_ascii=False)
    load = f"from transformers import AutoModel; print(AutoModel.from_pretrained({network}))"
    return [
        "",
        *(story.lines(told) if told else ["nothing was judged"]),
        "",
        *(f"{'made' * (name == made[0]):<10}{folder}/{name:<15} {uses[name]}" for name in made),
        f"          {folder}/{', '.join(records)}, {run_folder.CHECKPOINTS}/",
        f"          {folder}/report.html     the whole run on one page, to open in a browser",
        f"next      load it: python -c {shlex.quote(load)}",
        f"          go on:   the same command with --run.dir {typed} and more --train.steps (or --train.epochs)",
        f"          {more}",
    ]
