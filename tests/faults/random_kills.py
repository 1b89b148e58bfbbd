"""Kills one of the processes of a run, or all, at random moments."""

import random
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

from electra_accel.runs import run_folder
from tests.faults.row import Row, judge, lost_steps
from tests.faults.trial import (
    OUTPUT,
    RUN,
    TIMEOUT,
    command,
    content,
    end_of,
    new_place,
    start,
    training_in,
    undisturbed,
    working_in,
)
from tests.helpers import ROOT


def launch(name: str) -> list[str]:
    """Options of ``accelerate launch`` for two processes."""
    return [
        "--config_file",
        str(ROOT / "accelerate_configs" / f"{name}.yaml"),
        "--num_processes=2",
        "--main_process_port=0",
    ]


LAUNCHES = {"single": None, "ddp": launch("ddp"), "zero2": launch("zero2")}


def at_random(name: str, base: Path, kills: int, seed: int) -> Row:
    """Runs that are killed at random moments until they are done, one after the other, until there were so many kills."""
    chance, words = random.Random(seed), command(launch=LAUNCHES[name], train__steps=10, checkpoint__every=2)
    whole = new_place(base, f"{name}-whole")
    seconds, wanted = undisturbed(words, whole), content(whole)
    who = "" if name == "single" else ", one of two processes or all"
    row = Row(f"{'one process' if name == 'single' else name.upper()}, at random moments{who}")
    number = 0
    while row.kills < kills and not row.wrong:
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
                row.wrong.append(f"{name}, run {number}: exit code {process.returncode} ({folder / OUTPUT})")
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


def restarted(base: Path, kills: int, seed: int) -> Row:
    """One of two processes is killed at random moments, and ``accelerate launch --max_restarts`` starts both again."""
    chance = random.Random(seed)
    words = command([*LAUNCHES["ddp"], "--max_restarts=2"], train__steps=10, checkpoint__every=2)
    whole = new_place(base, "restarts-whole")
    seconds, wanted = undisturbed(words, whole), content(whole)
    row = Row("DDP with --max_restarts, at random moments, one of two processes")
    while row.kills < kills and not row.wrong:
        folder = new_place(base, f"restarts-{row.runs + 1}")
        process = start(words, folder)
        for _ in range(2):
            end = time.monotonic() + TIMEOUT
            while len(training_in(folder)) < 2 and process.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.05, 0.7) * seconds)
            if (training := training_in(folder)) and process.poll() is None:
                with suppress(psutil.NoSuchProcess):
                    chance.choice(training).kill()
                    row.kills += 1
                    row.of_one += 1
                    row.lost.append(lost_steps(folder / RUN))
        if code := end_of(process, folder):
            row.runs += 1
            row.wrong.append(f"restarts: ended with exit code {code} ({folder / OUTPUT})")
        else:
            judge(row, f"restarts, run {row.runs + 1}", folder, content(folder), wanted)
    return row
