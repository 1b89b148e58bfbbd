"""What a training has cost, and what was added to its vocabulary, for model cards and reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from electra_accel.runs import run_folder
from electra_accel.terminal import duration


@dataclass(frozen=True)
class Cost:
    """Of training, as far as it was recorded; ``device_hours`` are hours times processes."""

    steps: int
    tokens: int | None
    hours: float | None
    device_hours: float | None


def warm_start_cost(folder: Path) -> Cost | None:
    """What the warm start of a run's generator has cost; None where there was none, or its record is gone."""
    records = run_folder.read_jsonl(folder / run_folder.WARM_START / run_folder.METRICS)
    return cost_of(records) if records else None


def cost_of(records: Sequence[dict]) -> Cost:
    """By the newest of the records that says it."""
    newest = [
        next((record[key] for record in reversed(records) if record.get(key) is not None), None)
        for key in ("train/tokens", "train/hours", "train/device_hours")
    ]
    return Cost(max(record["step"] for record in records), *newest)


def cost_text(cost: Cost) -> str:
    """``20,015 tokens in 5m``; steps where tokens were not recorded."""
    text = f"{cost.steps:,} steps" if cost.tokens is None else f"{cost.tokens:,} tokens"
    if cost.hours is not None:
        text += f" in {duration(cost.hours * 3600)}"
        if cost.device_hours and cost.device_hours > 1.01 * cost.hours:
            text += f" ({cost.device_hours:.2f} hours of all processes)"
    return text


def vocabulary_text(added: Mapping[str, int]) -> str:
    """What was added to the vocabulary, see ``data.vocabulary.adapt``."""
    saved = 1 - added["tokens_after"] / max(added["tokens_before"], 1)
    return f"{added['added']:,} tokens added, {saved:.1%} fewer tokens of training text"
