"""What a fine-tuning can be told: one dataclass per group of options, their defaults, and what is impossible.

An option's name on the command line is ``group.option``. A default of None is filled in by what its help names: the task's
kind, or the model's size. Nothing here imports torch, so that ``--help`` and mistakes are answered at once.
"""

import datetime
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import ClassVar, Literal

from electra_accel.errors import UserError
from electra_accel.finetuning.kinds.registry import KINDS, METRIC_NAMES, by_kind
from electra_accel.model.fingerprint import UNTRAINED
from electra_accel.options import groups
from electra_accel.options.declare import COUNT, NOT_NEGATIVE, POSITIVE, Alternative, option, outside_intervals
from electra_accel.text.readers import READERS
from electra_accel.text.writing import normalise_name

FRACTIONS = {"dev": 0.1, "test": 0.0}  # of the training texts, unless said otherwise
NAME = re.compile(r"[\w+-][\w.+-]*")  # of a task, which is that of a folder too
TAKEN = {
    *("config.yaml", "environment.json", "status.json", "results.json", "results.md", "stop"),
    *("checkpoints", "discriminator", "encoder", "generator", "corrector", "metrics.jsonl"),
}  # other things in a run's folder, and what a pre-training run is known by


@dataclass
class Task:
    """what is learnt, and the labelled data: train_file or dataset"""

    kind: Literal[tuple(KINDS)] | None = option(None, "; ".join(kind.learns for kind in KINDS.values()))
    name: str | None = option(None, "in tables; default: that of the training file or data set", "NAME")
    train_file: str | None = option(
        None,
        f"{', '.join(suffix[1:] for suffix in READERS if suffix != '.txt')}, each also as .gz or .xz; tagging also columns "
        "(word first, tag last, blank line between sentences) under any other suffix",
        "FILE",
    )
    dev_file: str | None = option(None, "chooses the best epoch; default: dev_fraction of the training texts", "FILE")
    test_file: str | None = option(
        None, "scored once with the best epoch; default: test_fraction of the training texts", "FILE"
    )
    dataset: str | None = option(
        None,
        "hub id in place of files: NAME or NAME:CONFIG; its splits train, validation and, where it has labels, test",
        "NAME",
    )
    text_columns: list[str] | None = option(
        None, f"one or two; default: {by_kind(lambda kind: ' '.join(kind.text_columns))}", "NAME"
    )
    label_column: str | None = option(None, f"default: {by_kind(lambda kind: kind.label_column)}", "NAME")
    metric: Literal[METRIC_NAMES] | None = option(
        None, f"chooses the epoch and stands in the table; default: {by_kind(lambda kind: kind.metrics[0])}"
    )
    max_length: int = option(
        128, "tokens of an example with the special ones; the rest of it is cut", within="[4, inf)"
    )
    train_rows: int | None = option(
        None, "train on so many rows only: the first ones of a shuffle that the seed decides", within=COUNT
    )
    dev_fraction: float = option(
        FRACTIONS["dev"], "share of the training texts for dev if no dev data is given", within="[0, 1)"
    )
    test_fraction: float = option(
        FRACTIONS["test"], "share of the training texts for test if no test data is given", within="[0, 1)"
    )


@dataclass
class Run(groups.Run):
    """where the results go"""

    dir: str | None = option(None, "folder of the results; default: runs/finetune-<UTC time>", "FOLDER")
    seed: ClassVar = None
    resume: ClassVar = None
    seeds: list[int] = option(
        [1, 2, 3], "one fine-tuning each: order, dropout, new weights and train_rows follow from it"
    )
    save_models: Literal["none", "best"] = option(
        "none",
        "best: keep the best epoch's model of each fine-tuning as a Hugging Face folder, in <task>/<model>/seed-<n>/model",
    )


@dataclass
class Optim(groups.Optim):
    """AdamW; defaults of the ELECTRA paper, table 7 (where its released code has another one, it is named)"""

    learning_rate: float | None = option(
        None, "peak, of the head; default by hidden size: below 512 3e-4, below 1024 1e-4, else 5e-5", within=POSITIVE
    )
    layer_decay: float | None = option(
        None,
        "each layer learns at this share of the rate of the layer above; default: 0.8, hidden size from 1024 on 0.9",
        within="(0, 1]",
    )
    warmup_fraction: float = option(
        0.1, "share of the steps with linear warmup; then linearly down to 0", within="[0, 1)"
    )
    weight_decay: float = option(
        0.0, "on matrices; biases and LayerNorm have none; released code: 0.01", within=NOT_NEGATIVE
    )


@dataclass
class Train:
    """how long, and how much at once"""

    epochs: int = option(3, "passes over the training rows; published: 3, small data 10", within=COUNT)
    batch_size: int = option(32, "examples of a step, all processes", within=COUNT)
    micro_batch_size: int | None = option(
        None,
        "most examples at once per process, for memory and speed; with dropout it changes the random numbers, "
        "without it only rounding; default: 16 on a CPU, batch_size on a GPU",
        within=COUNT,
    )
    precision: Literal["auto", "no", "bf16", "fp16"] = option(
        "auto", "no is fp32; auto is bf16 where the GPU supports it, else no"
    )


@dataclass
class Tracking(groups.Tracking):
    """what is recorded besides metrics.jsonl"""

    group: str | None = option(None, "W&B group; default: the name of run.dir", "NAME")
    notes: ClassVar = None
    log_every: int = option(50, "steps between recorded figures", within=COUNT)
    samples_every: ClassVar = None
    samples: ClassVar = None


@dataclass
class Settings:
    """All options, in the order of ``--help`` and config.yaml."""

    models: list[str] = option(
        [], "folders or hub ids; untrained:FOLDER has the shape of FOLDER and random weights", "MODEL"
    )
    suite: str | None = option(None, "YAML file with a list of tasks, see recipes/suites", "FILE")
    suite_data: str | None = option(None, "folder that {data} stands for in the suite", "FOLDER")
    task: Task = field(default_factory=Task)
    run: Run = field(default_factory=Run)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    tracking: Tracking = field(default_factory=Tracking)


CHOICES = (
    (Alternative(("task.train_file",)), Alternative(("task.dataset",), settles=("task.dev_file", "task.test_file"))),
)


def check(settings: Settings, tasks: list[Task], of_tasks: Sequence[Settings] = ()) -> None:
    """Find everything that is impossible, before any work is done.

    Args:
        of_tasks: the settings of each task, where they may differ from ``settings``.

    Raises:
        UserError: one line with all problems.
    """
    problems = []
    if not settings.models:
        problems.append("give the models to fine-tune: --models FOLDER …")
    models = [(place_of(model), model.startswith(UNTRAINED)) for model in settings.models]
    for name, values in (("run.seeds", settings.run.seeds), ("models", models)):
        if len(set(values)) < len(values):
            problems.append(f"{name} names one of them twice")
    if not settings.run.seeds:
        problems.append("run.seeds is empty")
    of_all = [problem for each in (settings, *of_tasks) for problem in outside_intervals(each)]
    problems += dict.fromkeys(problem for problem in of_all if not problem.startswith("task."))
    problems += groups.deadline_problems(settings.run)
    names = [task.name for task in tasks]
    if twice := sorted({str(name) for name in names if names.count(name) > 1}):
        problems.append(f"two tasks are called {', '.join(twice)}")
    for task in tasks:
        where = f"task {task.name}: " if len(tasks) > 1 else ""
        problems += [where + problem for problem in _of_task(task)]
    if problems:
        raise UserError("; ".join(problems))


def place_of(model: str) -> str:
    """Where one of ``--models`` is read from: of a folder one path, however it was written and whatever links lead to it."""
    source = model.removeprefix(UNTRAINED)
    return os.path.realpath(source) if os.path.isdir(source) else source


def _of_task(task: Task) -> list[str]:
    problems = outside_intervals(task, "task.")
    if not NAME.fullmatch(task.name) or task.name in TAKEN:
        problems.append(
            f"task.name {task.name!r} cannot be a folder of the run: letters, digits, _ . + -, and none of its files"
        )
    if task.kind is None:
        problems.append(f"task.kind is missing: {', '.join(KINDS)}")
    if bool(task.train_file) == bool(task.dataset):
        problems.append("give either task.train_file or task.dataset")
    if task.dataset and (task.dev_file or task.test_file):
        problems.append("task.dataset brings its own splits: leave out task.dev_file and task.test_file")
    files = [(f"task.{name}_file", getattr(task, f"{name}_file")) for name in ("train", "dev", "test")]
    for (one, first), (other, second) in combinations([(name, path) for name, path in files if path], 2):
        if os.path.realpath(first) == os.path.realpath(second):
            problems.append(f"{one} and {other} are the same file, {second}: its figures would say nothing")
    if not task.dev_file and task.dev_fraction == 0:
        problems.append("nothing chooses the epoch: give task.dev_file, or a task.dev_fraction above 0")
    if task.dev_fraction + task.test_fraction >= 1:
        problems.append("task.dev_fraction and task.test_fraction leave nothing to train on")
    if task.kind is None:
        return problems
    kind = KINDS[task.kind]
    if len(task.text_columns) not in kind.takes:
        problems.append(f"task.kind {task.kind} takes {' or '.join(map(str, kind.takes))} task.text_columns")
    if task.metric not in kind.metrics:
        problems.append(f"task.metric {task.metric} is none of {task.kind}'s: {', '.join(kind.metrics)}")
    return problems


def resolve(task: Task) -> Task:
    """A copy with the defaults that depend on the kind, and names written in one way; :func:`check` names what is wrong."""
    source = normalise_name((task.train_file or task.dataset or "task").rsplit("/", 1)[-1])
    kind = KINDS[task.kind or "classification"]
    usual = re.sub(r"[^\w+-]", "-", source.partition(".")[0].partition(":")[0])
    return replace(
        task,
        name=usual if task.name is None else normalise_name(task.name),
        text_columns=[normalise_name(name) for name in task.text_columns or kind.text_columns],
        label_column=normalise_name(task.label_column or kind.label_column),
        metric=task.metric or kind.metrics[0],
    )


def default_folder() -> str:
    return f"runs/finetune-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}"
