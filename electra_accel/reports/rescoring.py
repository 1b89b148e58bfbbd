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
    runs: Sequence[Experiment],
    script: Path,
    files: Sequence[str],
    options: Mapping[str, str | None],
    warn: Callable[[str], None],
) -> None:
    """Judge each run anew; one without weights (read from W&B) or without a pair keeps its own figures.

    Args:
        script: scripts/evaluate.py.
        files: text that no run was trained on; none: the held-out text of the first run.
        options: more of the script, None where they were not given.

    Raises:
        UserError: the script refuses, or a run may have been trained on the held-out text of the first one.
    """
    first = runs[0]
    for run in runs:
        if run.folder is None:
            warn(f"{run.name} was read from W&B, which has no weights: it is not scored again")
            continue
        if run.is_mlm:
            why = "trained one network (objective.kind mlm), so there is no pair to judge"
            warn(f"{run.name} {why}: it is not scored again")
            continue
        words = ["--run", run.folder]
        if files:
            words += ["--files", *files]
            for option in ("eval.mask_prob", "eval.seed", "data.max_length"):  # one corruption for all
                words += [f"--{option.partition('.')[2]}", first.options[option]]
        elif first.folder is None:
            raise UserError(f"--rescore: {first.name} was read from W&B; give --rescore FILE, or its folder first")
        elif run.held_out.get("data") != first.held_out.get("data"):
            raise UserError(
                f"--rescore: {run.name} is not known to share the held-out text of {first.name} and may have been trained "
                "on it; give --rescore FILE with text that no run was trained on"
            )
        else:
            words += ["--held_out", first.folder]
        words += [word for option, value in options.items() if value for word in (option, value)]
        print(f"scoring {run.name}", flush=True)
        run.rescored = _score(run.name, [script, *words])


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
