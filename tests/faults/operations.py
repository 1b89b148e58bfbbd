"""Kills a program right before each of its operations on files."""

import shutil
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.hooked import counts
from tests.faults.jobs import JOBS
from tests.faults.row import Row, judge, lost_steps
from tests.faults.trial import OUTPUT, RUN, content, finish, undisturbed


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
    undisturbed(job.words, whole, FAULT_LOG=str(log))
    wanted, known = job.content(whole), log.read_text("utf-8").splitlines()
    kinds = Counter(line.split()[0] for line in known)
    told = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
    print(f"{job.told}: {len(known)} operations on files ({told})", flush=True)
    row = Row(job.told)

    def lost(folder: Path) -> list[int]:
        return [lost_steps(folder / RUN)] if job.content is content else []  # other programs have no steps there

    def end(told: str, folder: Path, code: int) -> None:
        if code in job.ends:
            judge(row, told, folder, job.content(folder), wanted)
        else:
            row.runs += 1
            row.wrong.append(f"{told}: ended with exit code {code} ({folder / OUTPUT})")

    folder, met, code = place("again-and-again"), base / name / "met.txt", -signal.SIGKILL
    met.touch()
    hit: list[str] = []
    while code == -signal.SIGKILL:
        code = finish(job.words, folder, FAULT_NEXT=str(met), FAULT_EACH=str(each))
        lines = met.read_text("utf-8").splitlines()
        if code == -signal.SIGKILL:
            if len(lines) == len(hit) or row.kills > 3 * len(known):
                break  # not by us; or names are new in each run, see PASSING
            row.kills += 1
            row.lost += lost(folder)
        hit = lines
    end(f"killed {row.kills} times", folder, code)
    wished = [line for line in known if counts(line, each)]
    rest = [line for line in wished if line not in hit]
    print(f"{job.told}: one run was killed {row.kills} times; {len(rest)} operations are left", flush=True)

    def attempt(line: str) -> tuple[Path, int, list[int], int]:
        folder = place(f"operation-{known.index(line) + 1}")
        killed = finish(job.words, folder, FAULT_AT=line)
        steps = lost(folder)
        return folder, killed, steps, finish(job.words, folder)

    with ThreadPoolExecutor(jobs) as pool:
        for line, (folder, killed, steps, code) in zip(rest, pool.map(attempt, rest), strict=True):
            if killed == -signal.SIGKILL:
                row.kills += 1
                row.lost += steps
                hit.append(line)
            elif killed not in job.ends:  # else the operation did not come, which may be
                row.wrong.append(f"{line}: was to be killed, ended with exit code {killed} ({folder / OUTPUT})")
            end(line, folder, code)
    others = len(set(hit) - set(known))
    row.fault += f", right before {len(set(hit) & set(known))} of its {len(known)} operations on files"
    row.fault += f" and {others} more that only a resumed run does" if others else ""
    return row
