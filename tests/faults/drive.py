"""Kills real runs, lets them go on, and compares them with an undisturbed one: the table of docs/reliability.md (make faults).

    python -m tests.faults.drive                                  # all rows, some hours on two cores
    python -m tests.faults.drive --rows pretraining --each 10     # every tenth operation on files
    python -m tests.faults.drive --markdown docs/reliability.md

Rows:

pretraining, warm-start, finetuning, tokenizer   a program is killed right before each of its operations on files (jobs.py)
damage                                           each file of a run and of its prepared text is damaged (damage.py)
disk                                             the disk is filled (full_disk.py)
signals, signals-ddp                             a run is asked to stop (signals.py)
single, ddp, zero2                               one process or all are killed at random moments until the run is done

A run survives if it is done in the end, its exported weights, figures and samples are those of the undisturbed run bit for bit,
and each step is recorded once.
"""

import argparse
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError
from electra_accel.runs import checkpoint, run_folder
from tests.faults.damage import Damaged, damaged
from tests.faults.full_disk import Filled, filled
from tests.faults.hooked import counts
from tests.faults.jobs import JOBS, write_text
from tests.faults.signals import Asked, asked_to_stop
from tests.faults.trial import RUN, TIMEOUT, command, content, differences, finish, start, training_in, working_in
from tests.helpers import ROOT, benchmark

SECTION = "table"  # of the page
measuring = benchmark("measuring")


def launch(name: str) -> list[str]:
    """Options of ``accelerate launch`` for two processes."""
    return [
        "--config_file",
        str(ROOT / "accelerate_configs" / f"{name}.yaml"),
        "--num_processes=2",
        "--main_process_port=0",
    ]


LAUNCHES = {"single": None, "ddp": launch("ddp"), "zero2": launch("zero2")}


@dataclass
class Row:
    """What became of the runs of a row."""

    HEAD = "| fault | kills | runs | as if undisturbed | steps trained again by a kill |"
    fault: str
    kills: int = 0
    of_one: int = 0  # of them: of one process that trains, while the others lived
    survived: int = 0
    runs: int = 0
    lost: list[int] = field(default_factory=list)  # steps that each kill made to be trained again
    wrong: list[str] = field(default_factory=list)  # what did not survive, one line each

    def lines(self) -> list[str]:
        lost = f"{sum(self.lost) / len(self.lost):.1f}, at most {max(self.lost)}" if self.lost else "-"
        kills = f"{self.kills:,}{f', {self.of_one:,} of one' if self.of_one else ''}"
        return [f"| {self.fault} | {kills} | {self.runs:,} | {self.survived:,} | {lost} |"]


def new_place(base: Path, name: str) -> Path:
    """A folder with the text that a run reads."""
    folder = base / name
    folder.mkdir(parents=True)
    write_text(folder)
    return folder


def lost_steps(run: Path) -> int:
    """Steps that are recorded and not in a checkpoint. (A line may be half written.)"""
    saved = [step for step, path in checkpoint.existing(run / run_folder.CHECKPOINTS)]
    with suppress(OSError, ValueError):
        logged = [
            record["step"] for record in run_folder.read_jsonl(run / run_folder.METRICS) if "train/loss" in record
        ]
        return max(0, max(logged, default=0) - max(saved, default=0))
    return 0


def judge(row: Row, name: str, folder: Path, found: dict, wanted: dict) -> None:
    """Whether the run in ``folder``, which has come to its end, is equal to the undisturbed one."""
    row.runs += 1
    unequal = differences(found, wanted)
    if unequal:
        row.wrong.append(f"{name}: {', '.join(unequal[:4])} differ ({folder})")
    else:
        row.survived += 1
        shutil.rmtree(folder)


def operations(base: Path, name: str, each: int, jobs: int) -> Row:
    """A program that is killed before its operations on files.

    One run is killed before the first operation, goes on to the second, is killed there, and so on to its end: that is quick,
    and meets what only a run does that goes on. What is left is met by runs that are killed once.

    Args:
        each: take about one operation of so many.
    """
    job = JOBS[name]
    given = base / name / "given"
    given.mkdir(parents=True)
    job.make(given)

    def place(folder: str) -> Path:
        return Path(shutil.copytree(given, base / name / folder))

    whole = place("whole")
    log = whole / "operations.txt"
    if code := finish(job.words, whole, FAULT_LOG=str(log)):
        raise UserError(f"the undisturbed run ended with exit code {code}: see {whole / 'output.txt'}")
    wanted, known = job.content(whole), log.read_text("utf-8").splitlines()
    kinds = Counter(line.split()[0] for line in known)
    told = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
    print(f"{job.told}: {len(known)} operations on files ({told})", flush=True)
    row = Row(job.told)

    def end(told: str, folder: Path, code: int) -> None:
        if code in job.ends:
            judge(row, told, folder, job.content(folder), wanted)
        else:
            row.runs += 1
            row.wrong.append(f"{told}: ended with exit code {code} ({folder / 'output.txt'})")

    folder, met, code = place("again-and-again"), base / name / "met.txt", -signal.SIGKILL
    met.touch()
    hit: list[str] = []
    while code == -signal.SIGKILL:
        code = finish(job.words, folder, FAULT_NEXT=str(met), FAULT_EACH=str(each))
        lines = met.read_text("utf-8").splitlines()
        if code == -signal.SIGKILL:
            if len(lines) == len(hit):
                break  # not by us
            row.kills += 1
            row.lost.append(lost_steps(folder / RUN))
        hit = lines
    end(f"killed {row.kills} times", folder, code)
    wished = [line for line in known if counts(line, each)]
    rest = [line for line in wished if line not in hit]
    print(f"{job.told}: one run was killed {row.kills} times; {len(rest)} operations are left", flush=True)

    def attempt(line: str) -> tuple[Path, int, int, int]:
        folder = place(f"operation-{known.index(line) + 1}")
        killed = finish(job.words, folder, FAULT_AT=line)
        lost = lost_steps(folder / RUN)
        return folder, killed, lost, finish(job.words, folder)

    with ThreadPoolExecutor(jobs) as pool:
        for line, (folder, killed, lost, code) in zip(rest, pool.map(attempt, rest), strict=True):
            if killed == -signal.SIGKILL:
                row.kills += 1
                row.lost.append(lost)
                hit.append(line)
            end(line, folder, code)
    others = len(set(hit) - set(known))
    row.fault += f", right before {len(set(hit) & set(known))} of its {len(known)} operations on files"
    row.fault += f" and {others} more that runs do which go on" if others else ""
    return row


def at_random(name: str, base: Path, kills: int, seed: int) -> Row:
    """Runs that are killed at random moments until they are done, one after the other, until there were so many kills."""
    chance, words = random.Random(seed), command(launch=LAUNCHES[name], train__steps=10, checkpoint__every=2)
    whole = new_place(base, f"{name}-whole")
    began = time.monotonic()
    if code := finish(words, whole):
        raise UserError(f"the undisturbed run ended with exit code {code}: see {whole / 'output.txt'}")
    seconds, wanted = time.monotonic() - began, content(whole)
    who = "" if name == "single" else ", one of two processes or all"
    row = Row(f"{'one process' if name == 'single' else name.upper()}, at random moments{who}")
    number = 0
    while row.kills < kills:
        number += 1
        folder = new_place(base, f"{name}-{number}")
        for _ in range(50):
            process = start(words, folder)
            killed = kill_after(process, folder, chance.uniform(0.05, 1.1) * seconds, chance)
            if killed:
                row.kills += 1
                row.of_one += killed == "one"
                row.lost.append(lost_steps(folder / RUN))
            elif run_folder.read_status(folder / RUN).get("state") == "done":
                judge(row, f"{name}, run {number}", folder, content(folder), wanted)
                break
            else:
                row.wrong.append(f"{name}, run {number}: exit code {process.returncode} ({folder / 'output.txt'})")
                row.runs += 1
                break
        else:
            row.wrong.append(f"{name}, run {number}: was killed 50 times and never done")
    return row


def kill_after(process: subprocess.Popen, folder: Path, seconds: float, chance: random.Random) -> str:
    """Kills one of the processes that train, or all that work in ``folder``, after so long, and waits for the others.

    Returns "one" or "all"; "" if the run had ended by then.
    """
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        return ""
    everyone = working_in(folder)
    training = training_in(folder)
    one = bool(training) and chance.random() < 0.5
    for each in [chance.choice(training)] if one else everyone:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(TIMEOUT)  # the launcher ends the others
    for each in working_in(folder):
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(everyone, timeout=TIMEOUT)
    return ("one" if one else "all") if everyone else ""


def tried(name: str, base: Path, asked: argparse.Namespace) -> Row | Damaged | Filled | Asked:
    """The row ``name``; ``asked``: options of the command line."""
    few = max(1, asked.kills // 4)  # of what takes long
    if name in JOBS:
        return operations(base, name, asked.each, asked.jobs)
    if name == "damage":
        return damaged(base, new_place, asked.each, asked.jobs)
    if name == "disk":
        return filled(base, new_place, few, asked.seed)
    if name == "signals":
        return asked_to_stop(base, new_place, "one process", None, few, asked.seed)
    if name == "signals-ddp":
        return asked_to_stop(base, new_place, "DDP", LAUNCHES["ddp"], max(1, few // 2), asked.seed)
    return at_random(name, base, asked.kills, asked.seed)


def main() -> int:
    parser = argument_parser(__doc__)
    rows = (*JOBS, "damage", "disk", "signals", "signals-ddp", *LAUNCHES)
    parser.add_argument("--rows", nargs="+", choices=rows, default=[*rows])
    parser.add_argument(
        "--each", type=int, default=1, help="of the operations on files and of the damages, every so many"
    )
    parser.add_argument(
        "--kills",
        type=int,
        default=40,
        help="of each row at random moments; a quarter as many full disks and signals of each kind",
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at once, where runs have one process")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table into this page")
    asked = parser.parse_args()
    if min(asked.each, asked.kills, asked.jobs) < 1:
        raise UserError("--each, --kills and --jobs must be above 0")
    if asked.markdown:
        measuring.parts_around(asked.markdown, SECTION)
    base, began = Path(tempfile.mkdtemp(prefix="faults-")).resolve(), time.monotonic()
    base.chmod(0o755)  # some runs are not root's
    tables, wrong = defaultdict(list), []  # by their heads
    for name in asked.rows:
        row = tried(name, base, asked)
        tables[row.HEAD] += row.lines()
        wrong += row.wrong
        print(*row.lines(), f"({name}: {time.monotonic() - began:.0f} s)", *row.wrong, sep="\n", flush=True)
    lines = []
    for head, rows in tables.items():
        lines += ["", head, "|---" * (head.count("|") - 1) + "|", *rows]
    told = f"{measuring.machine('cpu')}, {time.monotonic() - began:.0f} s."
    print("\n".join(["", told, *lines, *wrong]))
    if asked.markdown:
        measuring.write_section(asked.markdown, SECTION, [told, *lines])
    if not wrong:
        shutil.rmtree(base, ignore_errors=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    exit_with_one_line(main)
