"""The folder of a run of fine-tunings: opening it, the results in it, its status, and what trackers are told.

config.yaml  environment.json  status.json  results.json  results.md  <task>/<model>/seed-<n>/ (see job.py)
"""

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from electra_accel.engines.engine import Engine
from electra_accel.finetuning import results
from electra_accel.finetuning.config_parser import Arguments
from electra_accel.finetuning.heads import names, open_encoder, require_positions
from electra_accel.finetuning.job import (
    IDENTITY,
    RESULT,
    Job,
    State,
    finished_seeds,
    require_same,
    results_in,
    shared_identity,
)
from electra_accel.finetuning.results import RESULTS_JSON, has_figures
from electra_accel.finetuning.saving import require_models
from electra_accel.finetuning.tasks import TaskData, load_task
from electra_accel.options.declare import flatten
from electra_accel.runs import run_folder
from electra_accel.runs.ending import recorded_end
from electra_accel.runs.opening import require_own
from electra_accel.terminal import Terminal
from electra_accel.tracking.recorder import Recorder
from electra_accel.tracking.trackers import run_id

RESULTS_TABLE = "results.md"


def read_jobs(asked: Arguments, folder: Path) -> list[Job]:
    """Read models and data: one fine-tuning for each task, model and seed, in this order.

    Raises:
        UserError: one of them cannot be used.
    """
    models, seeds = asked.settings.models, asked.settings.run.seeds
    encoders = [open_encoder(model, name) for model, name in zip(models, names(models), strict=True)]
    tasks = [(load_task(task), settings) for task, settings in zip(asked.tasks, asked.of_tasks, strict=True)]
    every = itertools.product(tasks, encoders, seeds)
    return [Job(settings, data, encoder, seed, folder) for (data, settings), encoder, seed in every]


def tasks_of(jobs: list[Job]) -> list[TaskData]:
    """Each once, in order."""
    return list(dict.fromkeys(job.data for job in jobs))


def notes_of(jobs: list[Job]) -> list[str]:
    """Lines for a person, on the tasks' rows and the models' tokenizers."""
    on_models = dict.fromkeys(note for job in jobs for note in job.encoder.notes)  # a model may be given untrained too
    return [*(f"{data.task.name}: {'; '.join(data.notes)}" for data in tasks_of(jobs)), *on_models]


def open_run(folder: Path, jobs: list[Job]) -> None:
    """Find out whether the fine-tunings may go into ``folder``. Changes nothing.

    Raises:
        UserError: it holds something else, or figures of another configuration; a model is too short for its task, or was to
            be saved and is gone.
    """
    require_own(folder, run_folder.FINE_TUNING)
    for job in jobs:
        require_positions(job.encoder, job.data.task.max_length)
        require_models(job)
    for job in jobs:
        identity = job.identity()
        for place in {job.folder, *finished_seeds(job.folder.parent).values()}:
            require_same(place, identity)


def earlier_results(folder: Path, jobs: list[Job]) -> dict[str, dict[str, Any]]:
    """The tasks in ``results.json``, each with those of its models that can stand in one table with ``jobs``: trained on the
    same rows with the same settings, and still there."""
    tasks = run_folder.read_json(folder / RESULTS_JSON).get("tasks", {})
    if not has_figures(tasks) or not all({"kind", "notes"} <= entry.keys() for entry in tasks.values()):
        return {}  # damaged, and about to be written anew
    wanted = {job.data.task.name: shared_identity(job.settings, job.data) for job in jobs}
    found: dict[str, dict[str, Any]] = {}
    for task, entry in tasks.items():
        models = {}
        for name, model in entry["models"].items():
            places = finished_seeds(folder / task / name).values()
            identities = [run_folder.read_json(place / IDENTITY) for place in places]
            if places and all(wanted.get(task, {}).items() <= identity.items() for identity in identities):
                models[name] = model | {"seeds": results_in(folder / task / name)}
        of_models = tuple(f"{name}{sign}" for name in entry["models"] for sign in (":", ", seed"))
        notes = [note for note in entry["notes"] if not note.startswith((*of_models, results.MIXED))]
        if models:
            found[task] = entry | {"models": models, "notes": notes}
    return found


def left_out(folder: Path, jobs: list[Job]) -> list[str]:
    """``task/model`` of finished fine-tunings in ``folder`` that the table of ``jobs`` will not have."""
    known = {f"{task}/{model}" for task, entry in earlier_results(folder, jobs).items() for model in entry["models"]}
    known |= {job.folder.parent.relative_to(folder).as_posix() for job in jobs}
    found = {path.parent.parent.relative_to(folder).as_posix() for path in folder.glob(f"*/*/seed-*/{RESULT}")}
    return sorted(found - known)


def finished(jobs: list[Job]) -> int:
    return sum(job.result() is not None for job in jobs)


def write_results(folder: Path, jobs: list[Job]) -> str:
    """results.json and results.md of what is finished by now; returns the table."""
    found = results.collect(jobs, earlier_results(folder, jobs))
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
            task, model = job.data.task, job.encoder
            settings = {name: value for name, value in flatten(job.settings).items() if "." in name}
            settings |= {f"task.{name}": value for name, value in vars(task).items()}
            settings |= {"model": model.source, "seed": job.seed}
            wandb = {"name": job.name, "id": run_id(job.folder, ""), "group": job.run.name, "job_type": "fine-tuning"}
            wandb["tags"] = [task.name, model.name]
            where = recorder.start(job.settings.tracking, settings, state.step, wandb, mode)
            mode = recorder.mode
            terminal.line(f"{job.name} is recorded in {where}")
        return recorder

    return start
