"""Fills the disk of a run at random moments: the run ends with one line, and goes on once there is room.

The disk is a tmpfs, which root alone can mount.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from electra_accel.errors import UserError
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
    undisturbed,
)

DISK, ROOM, BALLAST = "200m", 25_000_000, "ballast"  # of the disk; bytes that are left free, at most


@dataclass
class Filled:
    """What became of runs whose disk was filled."""

    HEAD = "| fault | tries | ended with a line | as if undisturbed in the end |"
    refused: int = 0  # one line, exit code 2
    done: int = 0  # the room that was left was enough
    survived: int = 0  # of all, as if undisturbed in the end
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        tries = self.refused + self.done
        return [f"| the disk is filled at a random moment | {tries} | {self.refused} | {self.survived} |"]


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """UserError where none can be mounted."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        raise UserError("the row disk mounts a small disk, which needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path, room: int) -> None:
    """Leave ``room`` bytes free."""
    free = shutil.disk_usage(folder).free
    with suppress(OSError), open(folder / BALLAST, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - room))


def filled(base: Path, tries: int, seed: int) -> Filled:
    chance, words, row = random.Random(seed), command(), Filled()
    whole = new_place(base, "disk-whole")
    seconds, wanted = undisturbed(words, whole), content(whole)
    for number in range(tries):
        folder, output = base / f"disk-{number}", base / f"disk-{number}.txt"
        with disk(folder):
            it = new_place(folder, "it")
            (it / OUTPUT).symlink_to(output)
            process = start(words, it)
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.1, 0.9) * seconds)
            fill(folder, chance.randrange(ROOM))
            try:
                code = process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            (folder / BALLAST).unlink(missing_ok=True)
            said = output.read_text("utf-8", errors="replace")
            if "Traceback" in said or code not in (0, 2):
                row.wrong.append(f"disk {number}: exit code {code} ({output})")
                continue
            row.refused += code == 2
            row.done += code == 0
            again = finish(words, it)
            unequal = differences(content(it), wanted) if not again and (it / RUN).is_dir() else ["exit code"]
            if again or unequal:
                shutil.copyfile(it / OUTPUT, output)
                row.wrong.append(
                    f"disk {number}: goes on with exit code {again}; {', '.join(unequal[:3])} differ ({output})"
                )
            else:
                row.survived += 1
    return row
