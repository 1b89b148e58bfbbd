"""Pre-train one variant after the other, several seeds each, fine-tune them all on a task, and put it into one table.

    python scripts/study.py recipes/studies/ablations.yaml --set data=FOLDER pair=FOLDER --seeds 1 2
    python scripts/study.py recipes/sweeps/grid.yaml --seeds 1        # a W&B sweep with method grid, without a server

All rows share the options in the file; those in --pretrain and --finetune come after them all. Options, the files that they
name and the labels are checked before the first run. Pre-training goes seed by seed through the rows, each in a run folder of
its own, so a study that is stopped leaves whole seeds. The same command goes on, and more seeds or rows may be added; the
table has all that is finished in the folder, and says which rows were not run. DIR/results.md is the table, DIR/results.json
holds all figures, DIR/results.html also charts. Stopping and exit codes as of pretrain.py.
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from electra_accel.cli import PREEMPTED, argument_parser, exit_with_one_line
from electra_accel.errors import Preempted, UserError
from electra_accel.reports.study import read_study, run_of
from electra_accel.runs import run_folder
from electra_accel.runs.stopping import signals
from electra_accel.terminal import quiet_libraries
from electra_accel.text.writing import normalise_name

SCRIPTS = Path(__file__).parent
OF_SCRIPTS = ("--pretrain", "--finetune")


def main() -> None:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("file", metavar="FILE", help="the study, see recipes/studies")
    add("--set", nargs="*", default=[], metavar="NAME=VALUE", help="what {NAME} in the file stands for")
    add("--dir", type=Path, metavar="FOLDER", help="default: runs/<name of the file>")
    add("--seeds", type=int, nargs="+", default=[1, 2], metavar="N", help="of pre-training [1 2]")
    add("--rows", nargs="+", type=normalise_name, metavar="ROW", help="only these; the table has all")
    add("--pretrain", default="", metavar="OPTIONS", help="of pretrain.py, for all rows, in quotes")
    add("--finetune", default="", metavar="OPTIONS", help="of finetune.py, in quotes")
    launch = 'such as "accelerate launch …", in quotes [of the file, or python]'
    add("--launcher", default="", metavar="WORDS", help=launch)
    add("--dry_run", action="store_true", help="check, print the commands, and stop")
    asked = parser.parse_args(joined(sys.argv[1:], parser))

    if wrong := [pair for pair in asked.set if "=" not in pair]:
        raise UserError(f"--set {wrong[0]}: write NAME=VALUE")
    study = read_study(asked.file, dict(pair.split("=", 1) for pair in asked.set))
    study.finetune_last.extend(words_of("--finetune", asked.finetune))
    for row in study.rows:
        row.words.extend(words_of("--pretrain", asked.pretrain))
    names, folder = [row.name for row in study.rows], asked.dir or Path("runs") / Path(asked.file).stem
    if unknown := [name for name in asked.rows or [] if name not in names]:
        raise UserError(f"--rows {unknown[0]}: {asked.file} has {', '.join(names)}")
    if len(set(asked.seeds)) < len(asked.seeds):
        raise UserError("--seeds names one of them twice")
    if min(asked.seeds) < 0:
        raise UserError(f"--seeds {min(asked.seeds)}: give numbers from 0 on")
    launcher = words_of("--launcher", asked.launcher) or study.launcher
    if launcher and not shutil.which(launcher[0]):
        missing = f"--launcher {launcher[0]}: there is no such program"
        raise UserError(f"{missing}; give its path, or activate its environment")
    study.check()
    # Imported only now, so that --help and mistakes are answered at once.
    from electra_accel.reports.study_inputs import check_inputs

    quiet_libraries()
    check_inputs(study, folder, asked.rows or names, asked.seeds)

    for seed in asked.seeds:
        for row in (row for row in study.rows if not asked.rows or row.name in asked.rows):
            words = [*study.pretrain, *row.words, "--run.seed", str(seed)]
            execute(launcher, "pretrain.py", words, run_of(folder, row, seed), asked.dry_run)
            if not asked.dry_run:
                report(study, folder)
    for finetuning in study.finetunings():
        models = ["…"] if asked.dry_run else finetuning.networks(folder)
        if models:
            words = [*finetuning.words, "--models", *models]
            execute(launcher, "finetune.py", words, folder / finetuning.name, asked.dry_run)
    if not asked.dry_run:
        print(report(study, folder))


def joined(words: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """``--pretrain X`` as ``--pretrain=X``: argparse would take an X such as ``--cpu`` for an option of ours."""
    found: list[str] = []
    for word in words:
        if found and found[-1] in OF_SCRIPTS and word.partition("=")[0] not in parser._option_string_actions:
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def words_of(option: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{option} {text}: {error}; close the quote, or put a backslash before it") from None


def report(study, folder: Path) -> str:
    """Write the table of what is finished by now."""
    from electra_accel.reports.study_results import collect, html, markdown

    found = collect(study, folder)
    run_folder.write_json(folder / "results.json", found)
    run_folder.write_atomically(folder / "results.html", html(study, found, folder.name))
    run_folder.write_atomically(folder / "results.md", table := markdown(study, found))
    return table


def execute(launcher: list[str], script: str, words: list[str], run: Path, only_print: bool) -> None:
    """Run one of our scripts in the folder ``run``. A signal is passed on: it saves, and its end is ours.

    Raises:
        UserError: it did not end well.
        Preempted: it was asked to stop, and has saved its state.
    """
    command = [*(launcher or [sys.executable]), str(SCRIPTS / script), *words, "--run.dir", str(run)]
    print(shlex.join(command), flush=True)
    if only_print:
        return
    earlier = run_folder.read_status(run)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)

    def pass_on(number: int, _) -> None:
        if not launcher:
            process.send_signal(number)
            return
        # A launcher of one process dies and leaves it behind, so the whole group is told; one of several passes on what it
        # hears. SIGINT, as of Ctrl-C, because launchers know it: torchrun would die of SIGUSR1.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)

    before = {number: signal.signal(number, pass_on) for number in signals()}
    code = process.wait()
    while has_living(process.pid):
        time.sleep(0.2)
    for number, handler in before.items():
        signal.signal(number, handler)
    status = run_folder.read_status(run)
    # Launchers flatten exit codes; a status that was there before says nothing of this run, which may have failed at once.
    if code == PREEMPTED or (status["state"] == "preempted" and status != earlier):
        with suppress(OSError):  # a lost terminal
            print("the study stops with it; the same command goes on", flush=True)
        raise Preempted("its run was stopped and has saved its state")
    if code:
        ended = f"{script} ended with exit code {code}, see above"
        raise UserError(f"{ended}; once that is mended the same command goes on")


def has_living(group: int) -> bool:
    """Whether a process of the group has not ended; one that has may stay in it as long as no init asks for it."""
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


if __name__ == "__main__":
    exit_with_one_line(main)
