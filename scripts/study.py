"""Pre-train one variant after the other, several seeds each, fine-tune them all on a task, and put it into one table.

    python scripts/study.py recipes/studies/ablations.yaml --set data=FOLDER pair=FOLDER --seeds 1 2

All rows share the options in the file; those in --pretrain and --finetune come after them. Pre-training goes
seed by seed through the rows, each in a run folder of its own, so a study that is stopped leaves whole seeds. What is finished
is not done again: the same command goes on, and more --seeds or --rows may be added. DIR/results.md has the table,
DIR/results.json all figures, DIR/results.html the table with charts. A row that has not been run is shown as such.
"""

import shlex
import subprocess
import sys
from pathlib import Path

from electra_accel import run_folder
from electra_accel.cli import PREEMPTED, argument_parser, exit_with_one_line
from electra_accel.downstream.study import TASKS, is_done, network_of, read_study, words
from electra_accel.errors import Preempted, UserError

SCRIPTS = Path(__file__).parent


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="the study, see recipes/studies")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="what {NAME} in the file stands for")
    parser.add_argument("--dir", type=Path, metavar="FOLDER", help="default: runs/<name of the file>")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[1, 2], metavar="N", help="of pre-training; default: 1 2"
    )
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="run these only; the table has all")
    parser.add_argument(
        "--pretrain", default="", metavar="OPTIONS", help="of scripts/pretrain.py for all rows, in quotes"
    )
    parser.add_argument("--finetune", default="", metavar="OPTIONS", help="of scripts/finetune.py, in quotes")
    parser.add_argument("--dry_run", action="store_true", help="print the commands only")
    asked = parser.parse_args(sys.argv[1:])

    if wrong := [pair for pair in asked.set if "=" not in pair]:
        raise UserError(f"--set {wrong[0]}: write NAME=VALUE")
    study = read_study(asked.file, dict(pair.split("=", 1) for pair in asked.set))
    folder = asked.dir or Path("runs") / asked.file.stem
    names = [row.name for row in study.rows]
    if unknown := [name for name in asked.rows or [] if name not in names]:
        raise UserError(f"--rows {unknown[0]}: {asked.file} has {', '.join(names)}")
    wanted = [row for row in study.rows if row.name in (asked.rows or names)]
    runs = [(row, seed, study.run(folder, row, seed)) for seed in asked.seeds for row in wanted]
    for row, seed, run in runs:
        options = words({**study.pretrain, **row.options}) + shlex.split(asked.pretrain)
        options += ["--run.seed", str(seed), "--run.dir", str(run)]
        if asked.dry_run or not is_done(run):
            execute("pretrain.py", options, asked.dry_run)
    every = [study.run(folder, row, seed) for row in study.rows for seed in asked.seeds]
    models = [str(network_of(run)) for run in every if is_done(run)] if not asked.dry_run else ["…"]
    options = ["--models", *models, *words(study.finetune), *shlex.split(asked.finetune)]
    execute("finetune.py", [*options, "--run.dir", str(folder / TASKS)], asked.dry_run)
    if asked.dry_run:
        return

    # Imported only now, so that --help and mistakes are answered at once.
    from electra_accel.downstream.study_results import collect, html, markdown

    found = collect(study, folder, asked.seeds)
    run_folder.write_json(folder / "results.json", found)
    run_folder.write_atomically(folder / "results.html", html(study, found, folder.name))
    run_folder.write_atomically(folder / "results.md", markdown(study, found))
    print(markdown(study, found))


def execute(script: str, options: list[str], only_print: bool) -> None:
    """Run one of our scripts; what it says is its own.

    Raises:
        UserError: it did not end well.
        Preempted: it was asked to stop.
    """
    print(shlex.join(["python", f"scripts/{script}", *options]), flush=True)
    if only_print:
        return
    code = subprocess.run([sys.executable, SCRIPTS / script, *options]).returncode
    if code == PREEMPTED:
        raise Preempted(script)
    if code:
        raise UserError(
            f"{script} ended with exit code {code}, see above; when that is mended, the same command goes on"
        )


if __name__ == "__main__":
    exit_with_one_line(main)
