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
restarts                                         one process is killed, and the launcher starts all again (random_kills.py)

A run survives if it is done in the end, its exported weights, figures and samples are those of the undisturbed run bit for bit,
and each step is recorded once.
"""

import argparse
import shutil
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError
from tests.faults.damage import Damaged, damaged
from tests.faults.full_disk import Filled, filled
from tests.faults.jobs import JOBS
from tests.faults.operations import operations
from tests.faults.random_kills import LAUNCHES, at_random, restarted
from tests.faults.row import Row
from tests.faults.signals import Asked, asked_at_each_stage, asked_at_random
from tests.helpers import benchmark

SECTION = "table"  # of the page
measuring = benchmark("measuring")


def tried(name: str, base: Path, asked: argparse.Namespace) -> Row | Damaged | Filled | Asked:
    """The row ``name``; ``asked``: options of the command line."""
    few = max(1, asked.kills // 4)  # of what takes long
    if name in JOBS:
        return operations(base, name, asked.each, asked.jobs)
    if name == "damage":
        return damaged(base, asked.each, asked.jobs)
    if name == "disk":
        return filled(base, few, asked.seed)
    if name == "signals":
        return asked_at_each_stage(base)
    if name == "signals-ddp":
        return asked_at_random(base, "DDP", LAUNCHES["ddp"], max(1, few // 2), asked.seed)
    if name == "restarts":
        return restarted(base, few, asked.seed)
    return at_random(name, base, asked.kills, asked.seed)


def main() -> int:
    parser = argument_parser(__doc__)
    rows = (*JOBS, "damage", "disk", "signals", "signals-ddp", *LAUNCHES, "restarts")
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
        try:
            row = tried(name, base, asked)
        except UserError as error:  # the other rows are worth their hours
            wrong.append(f"{name}: {error}")
            continue
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
