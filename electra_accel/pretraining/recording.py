"""What trackers are told of a pre-training."""

import os

from electra_accel.options.declare import flatten
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.progress import Progress
from electra_accel.runs import run_folder
from electra_accel.tracking.recorder import Recorder
from electra_accel.tracking.trackers import run_id


def start_trackers(recorder: Recorder, config: Config, progress: Progress) -> str:
    """On the main process. Gives ``progress`` the run's id, and returns in words where the run is recorded.

    Settings are the options by dotted names, with ``environment.…`` and ``held_out.…`` beside them. Tags are the size, the
    engine and the git commit.
    """
    folder = recorder.folder
    progress.run_id = run_id(folder, progress.run_id, os.environ.get("WANDB_RUN_ID"))
    environment = run_folder.read_json(folder / run_folder.ENVIRONMENT)
    held_out = run_folder.read_json(folder / run_folder.HELD_OUT / run_folder.HELD_OUT_IDENTITY)
    settings = flatten(config) | _dotted("environment", environment) | _dotted("held_out", held_out)
    wandb = {
        "name": os.environ.get("WANDB_NAME") or folder.name,
        "id": progress.run_id,
        "job_type": "adaptation" if config.from_pair else "pre-training",
        "tags": [config.model.size or "pair", environment.get("engine_kind"), environment.get("commit")],
    }
    return recorder.start(config.tracking, settings, progress.step, wandb)


def _dotted(name: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        return {name: value}
    return {key: inner for part in value for key, inner in _dotted(f"{name}.{part}", value[part]).items()}
