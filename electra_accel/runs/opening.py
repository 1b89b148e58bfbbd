"""Opening the folder of a run and taking it: the same for every job. Nothing is changed before :func:`take`."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from electra_accel.durable import sweep
from electra_accel.engines.engine import Engine
from electra_accel.errors import UserError
from electra_accel.runs import checkpoint, run_folder
from electra_accel.runs.environment import environment
from electra_accel.runs.stopping import STOP_FILE

# A kill before the first file of a run, its configuration, may leave all but the first of these.
EMPTY = (STOP_FILE, run_folder.LOCK, run_folder.PROBE, f"{run_folder.CONFIG}.*.partial")


def require_own(folder: Path, job: str, others: Container[str] = ()) -> bool:
    """Whether ``folder`` holds a run of this job already; False where it is new or empty.

    Args:
        job: ``run_folder.PRE_TRAINING`` or ``run_folder.FINE_TUNING``.
        others: names that may stand in the folder of a new run.

    Raises:
        UserError: it holds a run of another job, or something else; it cannot be created.
    """
    config = folder / run_folder.CONFIG
    if config.exists():
        if (there := run_folder.job_in(folder)) != job:
            raise UserError(f"run.dir {folder} holds {there}; choose another --run.dir")
    elif folder.is_dir() and any(
        not any(map(path.match, EMPTY)) and path.name not in others for path in folder.iterdir()
    ):
        raise UserError(f"run.dir {folder} is not empty and not a run of ours; choose another --run.dir")
    run_folder.require_creatable(folder)
    return config.exists()


def require_unchanged(folder: Path, changed: Sequence[str]) -> None:
    """Raises UserError where a run cannot go on in ``folder``: ``changed`` says in words what is another now."""
    if changed:
        raise UserError(
            f"run.dir {folder} was started with another configuration ({'; '.join(changed)}); restore the old values to go on "
            "with it, or use another --run.dir"
        )


def take(folder: Path, engine: Engine, config: str, step: int, more: Mapping[str, Any] | None = None) -> None:
    """Lock the folder, write config.yaml and environment.json, cut the files back to where the run goes on.

    On the main process, when all is known to be well.

    Args:
        config: text of config.yaml; ``more``: {name: value} of other JSON files.
        step: of the checkpoint that the run goes on from; -1: of none, nothing is kept.

    Raises:
        UserError: another process trains in this folder; it cannot be written.
    """
    with run_folder.storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        engine.run_lock = run_folder.lock(folder)
        run_folder.write_atomically(folder / run_folder.CONFIG, config)
        for name, value in {run_folder.ENVIRONMENT: environment(engine), **(more or {})}.items():
            run_folder.write_json(folder / name, value)
    cut_back(folder, step)


def cut_back(folder: Path, step: int) -> None:
    """Forget what came after ``step``: records and checkpoints of a course that is now abandoned, and what kills have left."""
    for place in (folder, folder / run_folder.CHECKPOINTS, folder / run_folder.HELD_OUT):
        sweep(place)
    with run_folder.storage_errors(folder):
        for name in (run_folder.METRICS, run_folder.SAMPLES, run_folder.SKIPPED):
            run_folder.cut_back(folder / name, step)
        checkpoint.set_aside(folder / run_folder.CHECKPOINTS, after_step=step)
