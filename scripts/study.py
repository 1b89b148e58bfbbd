"""Pre-train one variant after the other, several seeds each, fine-tune them all on a task, and put it into one table.

    python scripts/study.py recipes/studies/ablations.yaml --set data=FOLDER pair=FOLDER --seeds 1 2

All rows share the options in the file; those in --pretrain and --finetune come after them all. Everything is checked before
the first run. Pre-training goes seed by seed through the rows, each in a run folder of its own, so a study that is stopped
leaves whole seeds. The same command goes on, and more seeds or rows may be added; the table has all that is finished in the
folder, and says which rows were not run. DIR/results.md is the table, DIR/results.json holds all figures, DIR/results.html
also charts. Stopping and exit codes as of pretrain.py.
"""

import shlex
import signal
import subprocess
import sys
from pathlib import Path

from electra_accel import run_folder
from electra_accel.cli import PREEMPTED, argument_parser, exit_with_one_line
from electra_accel.downstream.study import TASKS, networks_of, read_study, run_of
from electra_accel.errors import Preempted, UserError

SCRIPTS = Path(__file__).parent


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("file", metavar="FILE", help="the study, see recipes/studies")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="what {NAME} in the file stands for")
    parser.add_argument("--dir", type=Path, metavar="FOLDER", help="default: runs/<name of the file>")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], metavar="N", help="of pre-training [1 2]")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="run these only; the table has all")
    parser.add_argument("--pretrain", default="", metavar="OPTIONS", help="of pretrain.py, for all rows, in quotes")
    parser.add_argument("--finetune", default="", metavar="OPTIONS", help="of finetune.py, in quotes")
    parser.add_argument(
        "--launcher", default="", metavar="WORDS", help='such as "accelerate launch …", in quotes [python]'
    )
    parser.add_argument("--dry_run", action="store_true", help="check, print the commands, and stop")
    asked = parser.parse_args(sys.argv[1:])

    if wrong := [pair for pair in asked.set if "=" not in pair]:
        raise UserError(f"--set {wrong[0]}: write NAME=VALUE")
    study = read_study(asked.file, dict(pair.split("=", 1) for pair in asked.set))
    study.finetune.extend(shlex.split(asked.finetune))
    for row in study.rows:
        row.words.extend(shlex.split(asked.pretrain))
    names, folder = [row.name for row in study.rows], asked.dir or Path("runs") / Path(asked.file).stem
    if unknown := [name for name in asked.rows or [] if name not in names]:
        raise UserError(f"--rows {unknown[0]}: {asked.file} has {', '.join(names)}")
    if len(set(asked.seeds)) < len(asked.seeds):
        raise UserError("--seeds names one of them twice")
    study.check()

    launcher = shlex.split(asked.launcher) or [sys.executable]
    for seed in asked.seeds:
        for row in (row for row in study.rows if not asked.rows or row.name in asked.rows):
            of_run = ["--run.seed", str(seed), "--run.dir", str(run_of(folder, row, seed))]
            execute([*launcher, SCRIPTS / "pretrain.py", *study.pretrain, *row.words, *of_run], asked.dry_run)
            report(study, folder, asked.dry_run)
    models = ["…"] if asked.dry_run else networks_of(folder, study.rows)
    of_tasks = ["--models", *models, "--run.dir", str(folder / TASKS)]
    execute([*launcher, SCRIPTS / "finetune.py", *study.finetune, *of_tasks], asked.dry_run)
    print(report(study, folder, asked.dry_run))


def report(study, folder: Path, only_print: bool) -> str:
    """Write the table of what is finished by now."""
    if only_print:
        return ""
    # Imported only now, so that --help and mistakes are answered at once.
    from electra_accel.downstream.study_results import collect, html, markdown

    found = collect(study, folder)
    run_folder.write_json(folder / "results.json", found)
    run_folder.write_atomically(folder / "results.html", html(study, found, folder.name))
    run_folder.write_atomically(folder / "results.md", markdown(study, found))
    return markdown(study, found)


def execute(command: list, only_print: bool) -> None:
    """Run one of our scripts. A signal goes to it alone: it saves, and its end is ours.

    Raises:
        UserError: it did not end well.
        Preempted: it was asked to stop, and has saved its state.
    """
    print(shlex.join(map(str, command)), flush=True)
    if only_print:
        return
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    passed_on = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, lambda number, _: process.send_signal(number)) for number in passed_on}
    code = process.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    if code == PREEMPTED:
        raise Preempted("its run was stopped and has saved its state")
    if code:
        raise UserError(
            f"{command[1]} ended with exit code {code}, see above; once that is mended the same command goes on"
        )


if __name__ == "__main__":
    exit_with_one_line(main)
