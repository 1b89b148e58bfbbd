"""Groups of options that every job has. A job takes them as they are, adds to them or leaves some out (see ``declare``)."""

import datetime
from dataclasses import dataclass
from typing import Literal

from electra_accel.options.declare import COUNT, NOT_NEGATIVE, POSITIVE, option


@dataclass
class Run:
    """where the run lives"""

    dir: str | None = option(None, "folder of the run; default: runs/<recipe>-<UTC time>", "FOLDER")
    seed: int = option(1, "order, masks, replacements, dropout and initial weights follow from it")
    resume: str = option(
        "auto", "auto: go on where run.dir stopped; never; or a checkpoint's folder", "auto|never|FOLDER"
    )
    deadline: str | None = option(
        None, "save and stop at this time: hours:minutes from the start, or a time such as 2026-12-24T07:30", "TIME"
    )


@dataclass
class Optim:
    """AdamW and its learning rate"""

    learning_rate: float | None = option(None, "peak", within=POSITIVE)
    weight_decay: float = option(0.01, "on matrices; biases and LayerNorm have none", within=NOT_NEGATIVE)


@dataclass
class Tracking:
    """what is recorded besides metrics.jsonl and samples.jsonl"""

    trackers: list[str] | None = option(None, "wandb, tensorboard, …; default: wandb where it is installed", "NAME")
    mode: Literal["online", "offline", "disabled"] | None = option(
        None, "mode of W&B; default: WANDB_MODE, else online where a key is stored, else offline"
    )
    project: str = option("electra-accel", "W&B project, unless WANDB_PROJECT is set", "NAME")
    group: str | None = option(None, "W&B group", "NAME")
    tags: list[str] = option([], "W&B tags", "NAME")
    notes: str | None = option(None, "W&B notes", "TEXT")
    log_every: int = option(50, "steps between log lines", within=COUNT)
    samples_every: int = option(500, "steps between reconstructions of held-out sentences", within=COUNT)
    samples: Literal["all", "local", "none"] = option(
        "all", "where sentences of the corpus go: trackers and files, files only, nowhere"
    )


def deadline_time(text: str) -> float:
    """``run.deadline`` as Unix time: ``11:30`` is hours and minutes from now, else an ISO time, local unless it says.

    Raises:
        ValueError: it is neither.
    """
    hours, colon, minutes = text.partition(":")
    if colon and hours.isdecimal() and minutes.isdecimal():
        wait = datetime.timedelta(hours=int(hours), minutes=int(minutes))
        return (datetime.datetime.now() + wait).timestamp()
    return datetime.datetime.fromisoformat(text).timestamp()


def deadline_problems(run: Run) -> list[str]:
    """What is wrong with ``run.deadline``: at most one line."""
    try:
        if run.deadline and deadline_time(run.deadline) < datetime.datetime.now().timestamp() - 60:
            return [f"run.deadline {run.deadline} is past"]
    except (ValueError, OverflowError):
        form = "neither hours:minutes from now nor a time such as 2026-12-24T07:30"
        return [f"run.deadline {run.deadline} is {form}"]
    return []
