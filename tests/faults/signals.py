"""Asks runs to stop at moments spread over all that they do: they save and end, and go on later as if nothing had happened."""

import random
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from electra_accel.cli import PREEMPTED
from electra_accel.runs import run_folder
from electra_accel.runs.stopping import SAME_SIGNAL, STOP_FILE
from tests.faults.trial import (
    OUTPUT,
    RUN,
    TIMEOUT,
    command,
    content,
    differences,
    finish,
    new_place,
    start,
    training_in,
    undisturbed,
    working_in,
)

INTERRUPTED = 130
WAYS = ("SIGTERM", "SIGUSR1", "SIGINT", "SIGINT twice", "SIGHUP", "stop file")


@dataclass
class Asked:
    """What became of runs that were asked to stop, by the way of asking."""

    HEAD = "| asked by | tries | saved, exit code 75 | ended at once | done by then | as if undisturbed in the end |"
    told: str  # of the launch
    found: dict[str, list[int]] = field(default_factory=lambda: {way: [0, 0, 0, 0] for way in WAYS})
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        return [
            f"| {way}, {self.told} | {sum(found[:3])} | {' | '.join(map(str, found))} |"
            for way, found in self.found.items()
        ]


def asked_to_stop(base: Path, told: str, launch: Sequence[str] | None, tries: int, seed: int) -> Asked:
    """Every way ``tries`` times, each in its part of a run's time."""
    chance, words, row = random.Random(seed), command(launch), Asked(told)
    whole = new_place(base, "signals-whole")
    seconds, wanted = undisturbed(words, whole), content(whole)
    shutil.rmtree(whole)
    for way in WAYS:
        for number in range(tries):
            folder = new_place(base, f"{way}-{number}".replace(" ", "-"))
            process = start(words, folder)
            with suppress(subprocess.TimeoutExpired):
                process.wait((number + chance.random()) / tries * seconds)
            ask(way, folder, process, chance)
            try:
                code = process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            said, ended = (folder / OUTPUT).read_text("utf-8", errors="replace"), how(code, folder / RUN, launch)
            again = finish(words, folder)
            unequal = [f"exit code {again}"] if again else differences(content(folder), wanted)
            if ended is None or unequal or (launch is None and "Traceback" in said):
                row.wrong.append(f"{way} {number}: exit code {code}, then {', '.join(unequal)} ({folder / OUTPUT})")
                continue
            row.found[way][ended] += 1
            row.found[way][3] += 1
            shutil.rmtree(folder)
    return row


def ask(way: str, folder: Path, process: subprocess.Popen, chance: random.Random) -> None:
    """One of the processes that train, or all that work in ``folder``."""
    if way == "stop file":
        if (folder / RUN).is_dir():  # where there is none yet, nobody could ask so
            (folder / RUN / STOP_FILE).touch()
        return
    training = training_in(folder)
    whom = [chance.choice(training)] if training and chance.random() < 0.5 else working_in(folder)
    for number in range(2 if "twice" in way else 1):
        if number:
            with suppress(subprocess.TimeoutExpired):
                process.wait(SAME_SIGNAL + 0.5)
        for each in whom:
            with suppress(psutil.Error):
                each.send_signal(signal.Signals[way.split()[0]])


def how(code: int, run: Path, launch: Sequence[str] | None) -> int | None:
    """0 where a run has saved, 1 where it ended at once, 2 where it is done; None where it should not have ended so."""
    status = run_folder.read_status(run) if run.is_dir() else {}
    if status.get("state") == "done":
        return 2
    if status.get("state") == "preempted":
        return 0 if code == PREEMPTED or launch else None
    by_signal = code in (
        INTERRUPTED,
        *(-each for each in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)),
    )
    return 1 if by_signal or launch else None
