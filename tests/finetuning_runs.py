"""What the tests of scripts/finetune.py share: a place with two encoders and a task, and a command line there."""

import json
from pathlib import Path

from tests.finetuning.small import make_encoder, rows, write_jsonl

SCRIPT = "finetune.py"
PREDICTIONS = ("predictions-dev.jsonl", "predictions-test.jsonl")


def make_place(folder: Path) -> Path:
    """Two encoders, one of them without dropout, and 300 / 60 / 90 labelled rows."""
    make_encoder(folder / "first" / "discriminator")
    make_encoder(folder / "second" / "discriminator", dropout=0.0, seed=2)
    for name, number in (("train", 300), ("dev", 60), ("test", 90)):
        write_jsonl(folder / f"{name}.jsonl", rows(number, seed=number))
    return folder


def line(run: str, *more: str, models: tuple = ("first/discriminator",), kind: str = "classification") -> list[str]:
    files = [f"--task.{name}_file={name}.jsonl" for name in ("train", "dev", "test")]
    fixed = [
        "--optim.learning_rate=5e-3",
        "--train.epochs=8",
        "--optim.layer_decay=1",
        "--run.seeds",
        "1",
        "--tracking.trackers",
        "--task.name=t",
    ]
    return ["--models", *models, f"--task.kind={kind}", *files, f"--run.dir={run}", *fixed, *more]


def results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())
