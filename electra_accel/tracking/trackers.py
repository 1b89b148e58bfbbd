"""Which trackers a run has, and what W&B is told of the run when it starts."""

import os
import shlex
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from requests.utils import get_netrc_auth

from electra_accel.errors import UserError
from electra_accel.model.figures import FIGURES, METRICS
from electra_accel.options.groups import Tracking
from electra_accel.runs import run_folder

# Summaries that are not the last value: {name: how W&B sums it up}
SUMMARIES = {
    f"{prefix}/{key}": "max" if FIGURES[key].better == "higher" else "min"
    for prefix in ("eval", "general")
    for key in METRICS
}
# What W&B takes for a mode, and what it means by it: dryrun and run are older names.
MODES = {mode: mode for mode in ("online", "offline", "disabled", "shared")} | {"dryrun": "offline", "run": "online"}


def usable_trackers(named: list[str] | None, warn: Callable[[str], None]) -> list[str]:
    """The trackers to start: those that were named (an empty list: none), else W&B where it is installed.

    Raises:
        UserError: a tracker was named that Accelerate does not know, or that is not installed; WANDB_MODE is none.
    """
    installed = [str(name) for name in get_available_trackers()]
    if named is None:
        if "wandb" in installed:
            return _with_a_mode(["wandb"])
        warn("wandb is not installed: the run is recorded in metrics.jsonl only")
        return []
    if unknown := [name for name in named if name not in LOGGER_TYPE_TO_CLASS]:
        raise UserError(f"tracking.trackers: {', '.join(unknown)} is none of {', '.join(LOGGER_TYPE_TO_CLASS)}")
    if missing := [name for name in named if name not in installed]:
        raise UserError(f"tracking.trackers: {', '.join(missing)} is not installed; pip install it or leave it out")
    return _with_a_mode(named)


def _with_a_mode(trackers: list[str]) -> list[str]:
    if "wandb" in trackers and (mode := os.environ.get("WANDB_MODE")) is not None:
        if mode.strip() and mode not in MODES:
            raise UserError(
                f"WANDB_MODE={mode} in the environment is none of {', '.join(MODES)}; unset it, or give one of them"
            )
        if not mode.strip():
            del os.environ["WANDB_MODE"]  # W&B would refuse it
    return trackers


def wandb_mode(wanted: str | None) -> str:
    """online, offline, disabled or shared: WANDB_MODE, else tracking.mode, else online if a key exists, else offline."""
    if os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on"):
        return "disabled"  # the Trainer of transformers heeds it, and who set it expects no less; W&B itself does not
    if mode := os.environ.get("WANDB_MODE") or wanted:
        return MODES.get(mode, mode)
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    has_key = bool(os.environ.get("WANDB_API_KEY")) or get_netrc_auth(host) is not None
    return "online" if has_key else "offline"


def wandb_project(wanted: str) -> str:
    return os.environ.get("WANDB_PROJECT") or wanted


def destination(tracking: Tracking, trackers: list[str], folder: Path, mode: str | None = None) -> str:
    """Where figures of a run go, and on a second line whether sentences of its text go to W&B with them.

    Args:
        mode: of W&B, if it is not :func:`wandb_mode`.
    """
    mode = mode or wandb_mode(tracking.mode)
    line = ", ".join([run_folder.METRICS, *(name for name in trackers if name != "wandb")])
    if "wandb" not in trackers:
        return line
    line += f", W&B {mode}, project {wandb_project(tracking.project)}"
    if mode == "offline":
        line += f" (later, if you like: wandb sync {shlex.quote(str(folder))}/wandb/offline-run-*)"
    if tracking.samples == "all" and mode != "disabled":
        upload = "are uploaded to W&B" if mode != "offline" else "will be uploaded to W&B if you sync the run"
        line += f"\n          sentences of the held-out text {upload}; --tracking.samples local keeps them here"
    return line


def run_id(folder: Path, known: str, given: str | None = None) -> str:
    """The one tracker id of a run folder, kept there: ``given``, else the folder's, else ``known``, else a new one.

    Args:
        known: the id in the checkpoint that the run goes on from; "" for none.
        given: WANDB_RUN_ID, where this is the only run of the command.
    """
    path = folder / run_folder.RUN_ID
    kept = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    chosen = given or kept or known or uuid.uuid4().hex[:12]
    run_folder.write_atomically(path, chosen + "\n")
    return chosen


def wandb_settings(tracking: Tracking, folder: Path, run: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``wandb.init`` but project, mode and configuration; W&B's own variables come first.

    Names and tags are cut to what W&B takes; those of folders may be longer.

    Args:
        run: name and id; group, job_type and tags where tracking does not name them, tags beside those of tracking.
    """
    named = os.environ.get("WANDB_TAGS", "").split(",")
    names = {
        "name": run["name"],
        "group": os.environ.get("WANDB_RUN_GROUP") or tracking.group or run.get("group"),
        "job_type": os.environ.get("WANDB_JOB_TYPE") or run["job_type"],
    }
    return {
        **{key: value[:128] for key, value in names.items() if value},
        "id": run["id"],
        "resume": "allow",
        "dir": str(folder.absolute()),  # its service may run in another folder
        "tags": list(dict.fromkeys(tag[:64] for tag in [*tracking.tags, *named, *run["tags"]] if tag)),
        "notes": os.environ.get("WANDB_NOTES") or tracking.notes,
        # W&B copies what a terminal shows, and that has sentences in it.
        **({"settings": {"console": "off"}} if tracking.samples in ("local", "none") else {}),
    }
