"""Runs as W&B holds them: in the log files of offline runs, or on its server through the public API.

Configuration and history have the same dotted keys as config.yaml and metrics.jsonl. held_out.json and environment.json are in
the configuration too, as ``held_out.…`` and ``environment.…``. Reading the server needs an account and has not been tested.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from electra_accel.errors import UserError
from electra_accel.reports.experiments import Experiment, plain_options, split_records
from electra_accel.reports.settings import flat


@dataclass
class Segment:
    """One offline log file; a run that was resumed has several with one ``run_id``. ``exit_code`` is None without an end."""

    run_id: str
    name: str
    file: Path
    config: dict
    rows: list[dict]
    exit_code: int | None


def logs_in(folder: Path) -> list[Path]:
    """The log files of an offline W&B folder."""
    return sorted(folder.glob("run-*.wandb")) if folder.is_dir() else []


def read_log(file: Path) -> Segment:
    """Read a log file with W&B's own reader, a program in its package; UserError where that is missing or cannot read it."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if "No module named wandb" in done.stderr:
        raise UserError(f"{file}: reading it needs wandb; pip install wandb, or give the run's own folder")
    records = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    run = next((record["run"] for record in records if record["type"] == "run"), None)
    if run is None:
        reason = " ".join((done.stderr.strip().splitlines() or ["it holds no run"])[-1].split())
        raise UserError(f"{file} is no whole W&B log ({reason}); leave it out, or give the run's own folder")
    updates = [record["config"].get("update", {}) for record in records if record["type"] == "config"]
    config = {name: value for update in updates for name, value in update.items()}
    rows = [record["history"]["item"] for record in records if record["type"] == "history"]
    exit_code = next((record["exit"].get("exit_code", 0) for record in records if record["type"] == "exit"), None)
    return Segment(run["run_id"], run.get("display_name") or run["run_id"], file, config, rows, exit_code)


def join_segments(segments: list[Segment]) -> Experiment:
    """One run of its offline segments, the oldest first; steps that were replayed after a resume count once. UserError where
    another program has recorded it.
    """
    newest = segments[-1]
    config = {name: value for segment in segments for name, value in segment.config.items()}
    if not _is_ours(config):
        raise UserError(f"{newest.file} is not the record of a run of scripts/pretrain.py; leave it out")
    rows = [row for segment in segments for row in segment.rows]
    source = str(segments[0].file.parent) + (f" and {len(segments) - 1} more" if len(segments) > 1 else "")
    return _experiment(newest.name, source, config, rows, finished=newest.exit_code == 0)


def read_server(source: str) -> list[Experiment]:
    """Runs on W&B's server: ``wandb:entity/project`` (all of them that are ours), or ``wandb:entity/project/run``.

    Raises:
        UserError: the address is malformed, wandb is not installed, there is no key, no such run, or no answer.
    """
    path = source.partition(":")[2]
    parts = path.strip("/").split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise UserError(f"{source}: write wandb:entity/project, or wandb:entity/project/run")
    try:
        import wandb
    except ImportError:
        raise UserError(f"{source}: reading it needs wandb; pip install wandb") from None
    try:
        api = wandb.Api()
        runs = [api.run(path)] if len(parts) == 3 else list(api.runs(path, order="+created_at"))
        ours = [run for run in runs if _is_ours(dict(run.config))]  # a project may hold runs of other programs
        found = []
        for run in ours:
            place, rows = f"wandb:{'/'.join(run.path)}", list(run.scan_history())
            found.append(_experiment(run.name, place, dict(run.config), rows, finished=run.state == "finished"))
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise UserError(f"{source} could not be read from W&B: {' '.join(str(error).split())}") from error
    if not found:
        raise UserError(f"{source} holds no run of scripts/pretrain.py")
    return found


def _is_ours(config: dict) -> bool:
    return "objective.mask_prob" in flat(config)


def _experiment(name: str, source: str, config: dict, rows: list[dict], *, finished: bool) -> Experiment:
    config = flat(config)
    held_out, environment = (
        {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
        for prefix in ("held_out.", "environment.")
    )
    records = [{**row, "step": int(row["train/step"])} for row in rows if row.get("train/step") is not None]
    state = "done" if finished else f"unfinished at step {max((record['step'] for record in records), default=0)}"
    facts = name, source, None, state, plain_options(config)
    return Experiment(*facts, held_out, {}, environment, *split_records(records))
