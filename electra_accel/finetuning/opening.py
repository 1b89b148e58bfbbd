"""The folder of a run of fine-tunings: opening it, the results in it, its status, and what trackers are told.

config.yaml  environment.json  status.json  results.json  results.md  <task>/<model>/seed-<n>/ (see job.py)
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from electra_accel.engines.engine import Engine
from electra_accel.finetuning import results
from electra_accel.finetuning.config_parser import Arguments
from electra_accel.finetuning.heads import names, open_encoder, require_positions
from electra_accel.finetuning.job import IDENTITY, RESULT, Job, State, shared_identity
from electra_accel.finetuning.results import RESULTS_JSON, has_figures
from electra_accel.finetuning.saving import require_models
from electra_accel.finetuning.tasks import TaskData, load_task
from electra_accel.options.declare import flatten
from electra_accel.runs import run_folder
from electra_accel.runs.ending import recorded_end
from electra_accel.runs.opening import FINE_TUNING, require_own
from electra_accel.terminal import Terminal
from electra_accel.tracking.recorder import Recorder
from electra_accel.tracking.trackers import run_id

RESULTS_TABLE = "results.md"
SEED_FOLDER = re.compile(r"seed-(-?\d+)")


def read_jobs(asked: Arguments, folder: Path) -> list[Job]:
    """Read models and data: one fine-tuning for each task, model and seed, in this order.

    Raises:
        UserError: one of them cannot be used.
    """
    named = zip(asked.settings.models, names(asked.settings.models), strict=True)
    encoders = [open_encoder(model, name) for model, name in named]
    tasks = [(load_task(task), settings) for task, settings in zip(asked.tasks, asked.of_tasks, strict=True)]
    return [
        Job(settings, data, encoder, seed, folder)
        for data, settings in tasks
        for encoder in encoders
        for seed in asked.settings.run.seeds
    ]


def tasks_of(jobs: list[Job]) -> list[TaskData]:
    """Each once, in order."""
    return list(dict.fromkeys(job.data for job in jobs))


def notes_of(jobs: list[Job]) -> list[str]:
    """Lines for a person, on the tasks' rows and the models' tokenizers."""
    encoders = dict.fromkeys(job.encoder for job in jobs)
    on_models = dict.fromkeys(
        note for encoder in encoders for note in encoder.notes
    )  # a model may be given untrained too
    return [*(f"{data.task.name}: {'; '.join(data.notes)}" for data in tasks_of(jobs)), *on_models]


def open_run(folder: Path, jobs: list[Job]) -> None:
    """Find out whether the fine-tunings may go into ``folder``. Changes nothing.

    Raises:
        UserError: it holds something else, or figures of another configuration; a model is too short for its task, or was to
            be saved and is gone.
    """
    require_own(folder, FINE_TUNING)
    for job in jobs:
        require_positions(job.encoder, job.data.task.max_length)
        require_models(job)
    for job in with_earlier_seeds(jobs):
        job.require_same()


def with_earlier_seeds(jobs: list[Job]) -> list[Job]:
    """``jobs``, and those that their folder holds finished of the same tasks and models with other seeds."""
    found = {job.folder: job for job in jobs}
    for job in jobs:
        for path in job.folder.parent.glob(f"seed-*/{RESULT}"):
            if seed := SEED_FOLDER.fullmatch(path.parent.name):
                found.setdefault(path.parent, replace(job, seed=int(seed[1])))
    return list(found.values())


def earlier_results(folder: Path, jobs: list[Job]) -> dict[str, dict[str, Any]]:
    """The tasks in ``results.json``, each with those of its models that can stand in one table with ``jobs``: trained on the
    same rows with the same settings, and still there."""
    tasks, wanted = run_folder.read_json(folder / RESULTS_JSON).get("tasks", {}), {}
    if not has_figures(tasks) or not all({"kind", "notes"} <= entry.keys() for entry in tasks.values()):
        return {}  # damaged, and about to be written anew
    for job in jobs:
        wanted[job.data.task.name] = shared_identity(job.settings, job.data)
    found: dict[str, dict[str, Any]] = {}
    for task, entry in tasks.items():
        models = {}
        for name, model in entry["models"].items():
            places = [path.parent for path in (folder / task / name).glob(f"seed-*/{RESULT}")]
            found_seeds = {seed[1]: place for place in places if (seed := SEED_FOLDER.fullmatch(place.name))}
            seeds = {seed: run_folder.read_json(place / RESULT) for seed, place in found_seeds.items()}
            identities = [run_folder.read_json(place / IDENTITY) for place in found_seeds.values()]
            if seeds and all(wanted.get(task, {}).items() <= identity.items() for identity in identities):
                models[name] = model | {"seeds": seeds}
        of_models = tuple(f"{name}{sign}" for name in entry["models"] for sign in (":", ", seed"))
        notes = [note for note in entry["notes"] if not note.startswith((*of_models, results.MIXED))]
        found[task] = entry | {"models": models, "notes": notes}
    return {task: entry for task, entry in found.items() if entry["models"]}


def left_out(folder: Path, jobs: list[Job]) -> list[str]:
    """``task/model`` of finished fine-tunings in ``folder`` that the table of ``jobs`` will not have."""
    known = {job.folder.parent for job in jobs}
    known |= {
        folder / task / model for task, entry in earlier_results(folder, jobs).items() for model in entry["models"]
    }
    found = {path.parent.parent for path in folder.glob(f"*/*/seed-*/{RESULT}")} - known
    return sorted(path.relative_to(folder).as_posix() for path in found)


def finished(jobs: list[Job]) -> int:
    return sum(job.result() is not None for job in jobs)


def write_results(folder: Path, jobs: list[Job]) -> str:
    """results.json and results.md of what is finished by now; returns the table."""
    found = results.collect(with_earlier_seeds(jobs), earlier_results(folder, jobs))
    table = results.markdown(found)
    run_folder.write_json(folder / RESULTS_JSON, found)
    run_folder.write_atomically(folder / RESULTS_TABLE, table)
    run_folder.write_status(folder, "running", finished(jobs))
    return table


def recorded_status(folder: Path, jobs: list[Job], terminal: Terminal) -> AbstractContextManager[None]:
    """Keeps status.json true however the run ends; its ``step`` counts finished fine-tunings."""
    return recorded_end(
        folder,
        lambda state, reason, code: run_folder.write_status(folder, state, finished(jobs), reason, code),
        terminal,
        stopped=lambda: f"after {finished(jobs)} of {len(jobs)} fine-tunings",
        memory_remedy="a smaller --train.micro_batch_size; the step stays the same",
    )


def recorder_of(engine: Engine, terminal: Terminal) -> Callable[[Job, State], Recorder]:
    """What starts the recorder of each fine-tuning: its metrics.jsonl, and a run of its own in each tracker."""
    mode = None  # of W&B, as the last one found it: where it cannot be reached, the next ones need not wait for it too

    def start(job: Job, state: State) -> Recorder:
        nonlocal mode
        recorder = Recorder(engine.accelerator, job.folder, samples="none", warn=terminal.warn)
        if engine.is_main and engine.accelerator.log_with:
            tracking, task = job.settings.tracking, vars(job.data.task)
            settings = {name: value for name, value in flatten(job.settings).items() if "." in name}
            settings |= {f"task.{name}": value for name, value in task.items()}
            wandb = {
                "name": job.name,
                "id": run_id(job.folder, ""),
                "group": job.run.name,
                "job_type": "fine-tuning",
                "tags": [job.data.task.name, job.encoder.name],
            }
            settings |= {"model": job.encoder.source, "seed": job.seed}
            where = recorder.start(tracking, settings, state.step, wandb, mode)
            terminal.line(f"{job.name} is recorded in {where}")
            mode = recorder.mode
        return recorder

    return start
