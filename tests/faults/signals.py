"""Asks runs to stop in all that they do: they save and end, and go on later as if nothing had happened."""

import random
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from electra_accel.cli import PREEMPTED
from electra_accel.errors import UserError
from electra_accel.runs import run_folder
from tests.faults.trial import (
    HUNG,
    OUTPUT,
    RUN,
    command,
    content,
    differences,
    end_of,
    finish,
    new_place,
    start,
    training_in,
    undisturbed,
    working_in,
)  # fmt: skip

INTERRUPTED = 130
WAYS = ("SIGTERM", "SIGUSR1", "SIGINT", "SIGINT twice", "SIGHUP", "stop file")
# An operation on files of each stage, right before which the run is asked.
STAGES = {
    "preparation": r"open prepared/.*/train/tokens\.bin 1",
    "start": r"mkdir run/held_out 1",
    "evaluation": r"open run/samples\.jsonl 2",
    "training": r"open run/metrics\.jsonl 3",
    "saving": r"open run/checkpoints/\.step-00000002\.partial/optimizer\.safetensors 1",
    "export": r"open run/\.discriminator\.partial/config\.json 1",
    "report": r"open run/report\.html\.PASSING\.partial 6",
}


@dataclass
class Asked:
    """What became of runs that were asked to stop, by the way of asking."""

    HEAD = "| asked by | tries | saved, exit code 75 | ended at once | done by then | as if undisturbed in the end |"
    told: str
    found: dict[str, list[int]] = field(default_factory=lambda: {way: [0, 0, 0, 0] for way in WAYS})
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        rows = self.found.items()
        return [
            f"| {way}, {self.told} | {sum(found[:3])} | {' | '.join(map(str, found))} |"
            for way, found in rows
            if any(found)
        ]


def asked_at_each_stage(base: Path, ways: Sequence[str] = WAYS) -> Asked:
    """One process, by itself."""
    whole, words = new_place(base, "signals-whole"), command()
    row, log = Asked(f"one process, once in each of: {', '.join(STAGES)}"), whole / "operations.txt"
    undisturbed(words, whole, FAULT_LOG=str(log))
    known, wanted = log.read_text("utf-8").splitlines(), content(whole)
    for way in ways:
        for stage, pattern in STAGES.items():
            at = next((line for line in known if re.fullmatch(pattern, line)), None)
            if at is None:
                raise UserError(f"no operation on files is {pattern}: see {log}")
            if (way, stage) == ("stop file", "preparation"):  # there is no run folder yet
                continue
            folder = new_place(base, f"signals-{way}-{stage}".replace(" ", "-"))
            code = finish(words, folder, FAULT_AT=at, FAULT_WAY=way)
            judge(row, way, stage, folder, code, words, wanted, many=False)
    return row


def asked_at_random(base: Path, told: str, launch: Sequence[str], tries: int, seed: int) -> Asked:
    """One of two processes or all, also the launcher, each way so often."""
    chance, words, row = random.Random(seed), command(launch), Asked(f"{told}, at random moments")
    whole = new_place(base, "signals-whole-2")
    seconds, wanted = undisturbed(words, whole), content(whole)
    for way in WAYS[:-1]:  # of the stop file the first process hears alone
        for number in range(tries):
            folder = new_place(base, f"signals-{way}-{number}".replace(" ", "-"))
            process = start(words, folder)
            with suppress(subprocess.TimeoutExpired):
                process.wait((number + chance.random()) / tries * seconds)
            training = training_in(folder)
            whom = [chance.choice(training)] if training and chance.random() < 0.5 else working_in(folder)
            for again in range(2 if "twice" in way else 1):
                if again:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(2.5)
                for each in whom:
                    with suppress(psutil.Error):
                        each.send_signal(signal.Signals[way.split()[0]])
            code = end_of(process, folder)
            judge(row, way, str(number), folder, code, words, wanted, many=True)
    return row


def judge(
    row: Asked, way: str, which: str, folder: Path, code: int, words: list[str], wanted: dict, *, many: bool
) -> None:
    """How a run has ended, and whether it goes on to what an undisturbed one has. A launcher (``many``) prints a traceback."""
    status = run_folder.read_status(folder / RUN) if (folder / RUN).is_dir() else {}
    said, ended = (folder / OUTPUT).read_text("utf-8", errors="replace"), how(code, status, many)
    again = finish(words, folder)
    unequal = [f"exit code {again}"] if again else differences(content(folder), wanted)
    if ended is None or unequal or (not many and "Traceback" in said):
        row.wrong.append(f"{way}, {which}: exit code {code}, then {', '.join(unequal)} ({folder / OUTPUT})")
        return
    row.found[way][ended] += 1
    row.found[way][3] += 1
    shutil.rmtree(folder)


def how(code: int, status: dict, many: bool) -> int | None:
    """0 where a run has saved, 1 where it ended at once, 2 where it is done; None where it should not have ended so.

    Args:
        code: exit code; a launcher (``many``) has its own.
        status: what status.json says; {} where there is none.
    """
    if code == HUNG or status.get("exit_code") == 1:
        return None
    if status.get("state") == "done":
        return 2 if code == 0 or many else None
    if status.get("state") == "preempted":
        return 0 if code == PREEMPTED or many else None
    by_signal = code in (
        INTERRUPTED,
        *(-each for each in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)),
    )
    return 1 if by_signal or many else None
