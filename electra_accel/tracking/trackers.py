"""W&B and other trackers through Accelerate, and the run folder's own metrics.jsonl and samples.jsonl.

The x-axes are our own ``train/step`` and ``train/tokens``: W&B refuses rows at or before the last step that it saw, so a run
that is resumed from an earlier checkpoint would lose the replayed steps if it used W&B's counter.
"""

import math
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from requests.utils import get_netrc_auth

from electra_accel import run_folder
from electra_accel.config import Config, flatten
from electra_accel.errors import UserError
from electra_accel.tracking.samples import Reconstruction, join

SAMPLE_COLUMNS = ["step", "original", "masked", "generated", "verdict"]


def usable_trackers(named: list[str] | None, warn: Callable[[str], None]) -> list[str]:
    """The trackers to start: those that were named (an empty list: none), else W&B where it is installed.

    Raises:
        UserError: a tracker was named that Accelerate does not know, or that is not installed.
    """
    installed = [str(name) for name in get_available_trackers()]
    if named is None:
        if "wandb" in installed:
            return ["wandb"]
        warn("wandb is not installed: the run is recorded in metrics.jsonl only")
        return []
    if unknown := [name for name in named if name not in LOGGER_TYPE_TO_CLASS]:
        raise UserError(f"tracking.trackers: {', '.join(unknown)} is none of {', '.join(LOGGER_TYPE_TO_CLASS)}")
    if missing := [name for name in named if name not in installed]:
        raise UserError(f"tracking.trackers: {', '.join(missing)} is not installed; pip install it or leave it out")
    return named


def wandb_mode(wanted: str | None) -> str:
    """online, offline, disabled or shared: WANDB_MODE, else tracking.mode, else online if a key exists, else offline."""
    if mode := os.environ.get("WANDB_MODE") or wanted:
        return mode
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    has_key = bool(os.environ.get("WANDB_API_KEY")) or get_netrc_auth(host) is not None
    return "online" if has_key else "offline"


def wandb_project(wanted: str) -> str:
    return os.environ.get("WANDB_PROJECT") or wanted


def destination(config: Config, trackers: list[str], folder: Path) -> str:
    """Where figures of a run go, and on a second line whether sentences of its text go to W&B with them."""
    line = ", ".join([run_folder.METRICS, *(name for name in trackers if name != "wandb")])
    if "wandb" not in trackers:
        return line
    mode = wandb_mode(config.tracking.mode)
    line += f", W&B {mode}, project {wandb_project(config.tracking.project)}"
    if mode == "offline":
        line += f" (later, if you like: wandb sync {folder}/wandb/offline-run-*)"
    if config.tracking.samples == "all" and mode != "disabled":
        upload = "are uploaded to W&B" if mode != "offline" else "will be uploaded to W&B if you sync the run"
        line += f"\n          sentences of the held-out text {upload}; --tracking.samples local keeps them here"
    return line


def run_id(folder: Path) -> str:
    """The one tracker id of a run folder: WANDB_RUN_ID, else what the folder holds, else a new one, kept in the folder."""
    path = folder / run_folder.RUN_ID
    known = os.environ.get("WANDB_RUN_ID") or (path.read_text(encoding="utf-8").strip() if path.exists() else "")
    if not known:
        known = uuid.uuid4().hex[:12]
    run_folder.write_atomically(path, known + "\n")
    return known


class Recorder:
    """Where figures and samples of a run go.

    Args:
        accelerator: its trackers are used; nothing is written on processes other than its main one.
        folder: the run folder.
        samples: tracking.samples: ``all`` (files and trackers), ``local`` (files only), ``none``.
        warn: prints one line.
    """

    def __init__(self, accelerator, folder: Path, *, samples: str, warn: Callable[[str], None]):
        self.accelerator, self.folder, self.samples, self.warn = accelerator, folder, samples, warn
        self.trackers: list = []

    def start(self, config: Config) -> str:
        """Start the trackers on the main process; returns :func:`destination`, or that they could not be started."""
        if not self.accelerator.is_main_process:
            return ""
        tracking = config.tracking
        wandb = {
            "name": self.folder.name,
            "id": run_id(self.folder),
            "resume": "allow",
            "dir": str(self.folder),
            "mode": wandb_mode(tracking.mode),
            "group": os.environ.get("WANDB_RUN_GROUP") or tracking.group,
            "tags": tracking.tags or None,
            "notes": tracking.notes,
            "entity": os.environ.get("WANDB_ENTITY"),
        }
        # trackers take flat values; lists and None as text
        values = {
            name: value if isinstance(value, (int, float, str)) else str(value)
            for name, value in flatten(config).items()
        }
        names = [str(getattr(name, "value", name)) for name in self.accelerator.log_with]
        try:
            self.accelerator.init_trackers(wandb_project(tracking.project), config=values, init_kwargs={"wandb": wandb})
            self.trackers = list(self.accelerator.trackers)
            for tracker in self.trackers:
                if tracker.name == "wandb":
                    tracker.tracker.define_metric("train/step")
                    tracker.tracker.define_metric("train/tokens")
                    tracker.tracker.define_metric("*", step_metric="train/step")
        except Exception as error:  # a tracker never stops training, whatever it throws
            self.trackers = []
            self.warn(f"trackers could not be started ({error}); the run is recorded in metrics.jsonl only")
            return "metrics.jsonl only"
        return destination(config, names, self.folder)

    def metrics(self, values: dict[str, float], step: int) -> None:
        """``values`` have grouped names (train/…, eval/…, speed/…); they must hold train/step and train/tokens."""
        if not self.accelerator.is_main_process:
            return
        known = {name: value if math.isfinite(value) else None for name, value in values.items()}  # JSON has no NaN
        run_folder.append_jsonl(self.folder / run_folder.METRICS, {"step": step, **known})
        self._track(lambda tracker: tracker.log(values, step=None if tracker.name == "wandb" else step))

    def reconstructions(self, found: list[Reconstruction], step: int, tokens: int, epoch: float) -> None:
        if self.samples == "none":
            return
        for sample in found:
            run_folder.append_jsonl(self.folder / run_folder.SAMPLES, sample.record(step, epoch))
        if self.samples == "all":
            rows = [
                [step, *map(join, (s.original_pieces(), s.input_pieces(), s.output_pieces())), s.verdicts()]
                for s in found
            ]
            self._track(lambda tracker: _log_table(tracker, rows, step, tokens))

    def close(self) -> None:
        self._track(lambda tracker: tracker.finish())

    def _track(self, call: Callable) -> None:
        """Call on each tracker; one that fails is dropped with a warning, training goes on."""
        for tracker in list(self.trackers):
            try:
                call(tracker)
            except Exception as error:  # whatever a tracker throws, the run is worth more
                self.trackers.remove(tracker)
                self.warn(f"tracker {tracker.name} failed ({error}) and is dropped; metrics.jsonl goes on")


def _log_table(tracker, rows: list[list], step: int, tokens: int) -> None:
    """One table per step, so that what is stored grows linearly (W&B's tables are immutable)."""
    if tracker.name == "wandb":
        import wandb

        table = wandb.Table(columns=SAMPLE_COLUMNS, data=rows)
        tracker.log({"samples/reconstructions": table, "train/step": step, "train/tokens": tokens})
