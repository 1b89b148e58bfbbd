"""Run a grid sweep one trial after the other, without a W&B server.

    python scripts/sweep.py recipes/sweeps/grid.yaml

Each trial is the command that ``wandb agent`` would execute, with a run folder of its own: runs/sweep-<name>-<trial>. Trials
that are finished say so and end at once, so the same line goes on after an interruption. In W&B they are one group.
Then: python scripts/compare_runs.py "runs/sweep-<name>-*".
"""

import itertools
import os
import shlex
import subprocess
import sys
from pathlib import Path

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError
from electra_accel.options.yaml_file import read_yaml


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("file", metavar="FILE", help="a W&B sweep configuration with method: grid")
    parser.add_argument("--dry_run", action="store_true", help="print the commands only")
    arguments = parser.parse_args()
    sweep = read(Path(arguments.file))
    codes = []
    for number, command in enumerate(commands(sweep), start=1):
        command += [f"--run.dir=runs/sweep-{sweep['name']}-{number}"]
        print(shlex.join(command), flush=True)
        if not arguments.dry_run:
            # Not WANDB_SWEEP_ID, as an agent has it: no server knows of this sweep.
            group = {"WANDB_RUN_GROUP": os.environ.get("WANDB_RUN_GROUP", sweep["name"])}
            codes.append(subprocess.run(command, env=os.environ | group).returncode)
    if failed := [str(number) for number, code in enumerate(codes, start=1) if code]:
        print(f"trials that did not end well: {', '.join(failed)} of {len(codes)}", file=sys.stderr)
    return int(any(codes))


def read(path: Path) -> dict:
    """A sweep configuration.

    Raises:
        UserError: no such file; not a grid.
    """
    sweep = read_yaml(path, typed=True)
    sweep = sweep if isinstance(sweep, dict) else {}
    kinds = {"name": str, "program": str, "method": str, "parameters": dict}
    if wrong := [key for key, kind in kinds.items() if not isinstance(sweep.get(key), kind)]:
        raise UserError(f"{path}: no {', '.join(wrong)} in it; see recipes/sweeps/ for how a sweep is written")
    if not isinstance(sweep.get("command", []), list):
        raise UserError(f"{path}: command is not a list")
    if sweep["method"] != "grid":
        raise UserError(
            f"{path}: method {sweep['method']} needs W&B (wandb sweep {path}); without it only a grid can be run"
        )
    for name, settings in sweep["parameters"].items():
        if not isinstance(settings, dict) or not ("value" in settings or isinstance(settings.get("values"), list)):
            raise UserError(f"{path}: parameters.{name} has neither a value nor a list of values")
    return sweep


def commands(sweep: dict) -> list[list[str]]:
    """The command of every trial, as ``wandb agent`` puts it together."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    values = [settings.get("values", [settings.get("value")]) for settings in sweep["parameters"].values()]
    trials = []
    for chosen in itertools.product(*values):
        settings = {name: {"value": value} for name, value in zip(sweep["parameters"], chosen, strict=True)}
        filled = create_sweep_command_args({"args": settings})
        filled |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [sweep["program"]]}
        trial: list[str] = []
        for part in map(str, create_sweep_command(sweep.get("command"))):
            trial += filled[part[2:-1]] if part.startswith("${") and part.endswith("}") else [part]
        trials.append(trial)
    return trials


if __name__ == "__main__":
    exit_with_one_line(main)
