"""Runs that were judged on different corruptions, judged again on one by scripts/evaluate.py."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from electra_accel.errors import UserError
from electra_accel.reports.experiments import Experiment
from electra_accel.reports.judgements import Judgement


def rescore(
    runs: Sequence[Experiment], script: Path, files: Sequence[str], options: Mapping, warn: Callable[[str], None]
) -> None:
    """Judge each run anew; one without weights (read from W&B) or without a pair keeps its own figures.

    Args:
        script: scripts/evaluate.py; ``options``: more of its options, ``{name: value}``, None where they were not given.
        files: text that no run was trained on; none: the held-out text of the first run.

    Raises:
        UserError: the script refuses, or a run may have been trained on the held-out text of the first one.
    """
    for run in runs:
        if run.folder is None:
            warn(f"{run.name} was read from W&B, which has no weights: it is not scored again")
        elif run.is_mlm:
            warn(f"{run.name} trained one network (objective.kind mlm), not a pair: it is not scored again")
        else:
            given = [word for option, value in options.items() if value for word in (option, value)]
            words = ["--run", run.folder, *_text(run, runs[0], files), *given]
            print(f"scoring {run.name}", flush=True)
            run.rescored = _score(run.name, [script, *words])


def _text(run: Experiment, first: Experiment, files: Sequence[str]) -> list:
    """The options that say on which text and corruption a run is judged."""
    if files:
        same = ("eval.mask_prob", "eval.seed", "data.max_length")  # one corruption for all
        values = [word for name in same for word in (f"--{name.partition('.')[2]}", first.options[name])]
        return ["--files", *files, *values]
    if first.folder is None:
        raise UserError(f"--rescore: {first.name} was read from W&B; give --rescore FILE, or its folder first")
    if run.held_out.get("data") != first.held_out.get("data"):
        raise UserError(
            f"--rescore: {run.name} is not known to share the held-out text of {first.name} and may have been trained on it; "
            "give --rescore FILE with text that no run was trained on"
        )
    return ["--held_out", first.folder]


def _score(name: str, command: list) -> Judgement:
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "figures.json"
        command = [sys.executable, *map(str, command), "--json", str(out)]
        environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise UserError(f"{name} cannot be scored again: {reason.removeprefix('error: ')}")
        for line in done.stdout.splitlines():
            if line.startswith(("unknown tokens: ", "warning: ")):
                print(line)
        scored = json.loads(out.read_text(encoding="utf-8"))
    return Judgement(scored["step"], scored["eval"], scored["held_out"])
