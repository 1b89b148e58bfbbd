"""What an adaptation did to tasks: fine-tunings of the network that a run started from and of its own, seed by seed.

They are read from the ``results.json`` of ``scripts/finetune.py``. Both networks are found there by what their folders hold (a
hub id by its name), so that figures of a network that was trained on since are never taken for those of the present one.
"""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from electra_accel.errors import UserError
from electra_accel.finetuning.results import RESULTS_JSON, has_figures
from electra_accel.model.fingerprint import UNTRAINED, fingerprint
from electra_accel.paired import by_seed, paired_difference, verdict
from electra_accel.reports import settings
from electra_accel.runs import run_folder

ENCODERS = ("discriminator", "encoder")  # what runs export for fine-tuning
CONFIG_JSON = "config.json"


@dataclass(frozen=True)
class TaskChange:
    """The main figure of a task, with the network before the adaptation and after it."""

    task: str
    metric: str
    split: str  # test, or dev where one of the two was not scored on test
    before: float | None  # mean over the seeds of which both are defined; None where there are none
    after: float | None
    difference: Mapping[str, Any] | None  # after minus before with its interval, see paired.paired_difference
    verdict: str  # "better", "worse", "within noise", or why it is not known

    def __str__(self) -> str:
        """Without the task's name: ``accuracy 0.8123 -> 0.8345 (+0.0222, 95% interval …, 5 seeds): better``."""
        found, said = self.difference, self.verdict
        if found is None:
            return f"{self.metric}: {said}, no seed is finished for both"
        interval = "one seed" if found["seeds"] == 1 else f"{found['seeds']} seeds"
        if found["low"] is None:
            said = f"whether it is more than noise is not known ({said.partition(':')[0]})"
        else:
            interval = f"95% interval {found['low']:+.4f} to {found['high']:+.4f}, {interval}"
        where = "" if self.split == "test" else f" on {self.split}"
        return f"{self.metric}{where} {self.before:.4f} -> {self.after:.4f} ({found['mean']:+.4f}, {interval}): {said}"


def sentence(changes: Sequence[TaskChange]) -> str:
    """``Fine-tuned, it is better on nsmc, within noise on korsts``: only what was measured."""
    known = "better", "worse", "within noise"
    groups = {said: [each.task for each in changes if each.verdict == said] for said in known}
    parts = [f"{said} on {' and '.join(tasks)}" for said, tasks in groups.items() if tasks]
    unknown = [each.task for each in changes if each.verdict not in groups]
    more = f"whether {' and '.join(unknown)} gained is not known: it takes more seeds" if unknown else ""
    return "; ".join(filter(None, (f"fine-tuned, it is {', '.join(parts)}" if parts else "", more)))


def task_changes(run: Path, finetuned: Path, exported: Path | None = None) -> tuple[TaskChange, ...]:
    """What became of each task in a folder of fine-tunings.

    Before is the network that the run started from; of a run from scratch it is its own network untrained.

    Args:
        run: folder of the pre-training.
        finetuned: folder of ``scripts/finetune.py``.
        exported: folder with the weights that are meant; default: those of ``discriminator`` or ``encoder`` in ``run``.

    Raises:
        UserError: no fine-tunings there, or none of one of the two networks as it is now; says how to make them.
    """
    tasks, options = read_results(finetuned), settings.read(run)
    kind = "encoder" if options.get("objective.kind") == "mlm" else "discriminator"
    own, after = str(run / kind), exported or run / kind
    if not (after / CONFIG_JSON).is_file():
        raise UserError(f"{run} has no {kind}/ yet, which a run exports at its end, so it cannot have been fine-tuned")
    start, revision = options.get("model.discriminator"), options.get("model.revision")
    if revision and not Path(start).is_dir():
        why = "fine-tuning reads the newest revision of a hub id: they may differ, so --tasks cannot be used"
        raise UserError(
            f"{run} started from {start} at revision {revision}, and {why}; start runs from a downloaded folder"
        )
    pair = ({start: Path(start)} if start else {f"{UNTRAINED}{own}": after}) | {own: after}
    changes = []
    for task, entry in tasks.items():
        found = [_seeds_of(model, folder, entry["models"], finetuned, pair) for model, folder in pair.items()]
        changes.append(_change(task, entry["metric"], *found))
    return tuple(changes)


def read_results(finetuned: Path) -> dict[str, dict]:
    """The tasks of a folder of fine-tunings, as ``finetuning.results.collect`` gives them.

    Raises:
        UserError: it is not one, is damaged, or was written by a version that did not yet record what the models were.
    """
    path, again = finetuned / RESULTS_JSON, "run its finetune command again, which writes it anew and trains nothing"
    tasks = run_folder.read_json(path).get("tasks")
    if not tasks:
        missing = f"holds no figures of tasks (no {RESULTS_JSON})"
        raise UserError(f"{finetuned} {missing}: give a run.dir of scripts/finetune.py")
    if not has_figures(tasks):
        raise UserError(f"{path} is not as scripts/finetune.py writes it: " + again)
    models = [model for entry in tasks.values() for model in entry["models"].values()]
    if not all({"fingerprint", "untrained"} <= model.keys() for model in models):
        raise UserError(f"{path} does not say which weights its figures are of: {again}")
    return tasks


def _seeds_of(
    wanted: str, folder: Path, models: Mapping[str, dict], finetuned: Path, pair: Iterable[str]
) -> dict[str, dict]:
    """The results by seed of the network that ``--models`` would call ``wanted`` and whose files stand in ``folder``."""
    untrained, place = wanted.startswith(UNTRAINED), os.path.realpath(wanted.removeprefix(UNTRAINED))
    alike = [model for model in models.values() if model["untrained"] == untrained]
    same = same_place = [model for model in alike if os.path.realpath(model["source"]) == place]
    if (folder / CONFIG_JSON).is_file():
        digest = fingerprint(folder, untrained)
        same = [model for model in models.values() if model["fingerprint"] == digest]
    if same:
        return same[0]["seeds"]
    path, config = finetuned / RESULTS_JSON, finetuned / run_folder.CONFIG
    script, both = "python scripts/finetune.py", f"--models {shlex.join(pair)}"
    if same_place:
        why = f"its figures of {wanted} are of other weights than the present ones"
        raise UserError(f"{path}: {why}; fine-tune these: {script} {both} … --run.dir ANOTHER")
    words = f"--config {shlex.quote(str(config))} {both}" if config.is_file() else f"{both} …"
    known = ", ".join(f"{UNTRAINED if model['untrained'] else ''}{model['source']}" for model in models.values())
    command = f"{script} {words} --run.dir {shlex.quote(str(finetuned))}"
    raise UserError(f"{path} has no figures of {wanted}, only of {known}; fine-tune both: {command}")


def _change(task: str, metric: str, before: dict[str, dict], after: dict[str, dict]) -> TaskChange:
    by_split = {split: [by_seed(seeds, split, metric) for seeds in (before, after)] for split in ("test", "dev")}
    split = "test" if all(by_split["test"]) else "dev"
    first, last = by_split[split]
    found = paired_difference(last, first)
    both = [seed for seed in last if last[seed] is not None and first.get(seed) is not None]
    means = [float(np.mean([figures[seed] for seed in both])) if both else None for figures in (first, last)]
    return TaskChange(task, metric, split, *means, found, verdict(found))
