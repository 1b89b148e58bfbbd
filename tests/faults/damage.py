"""Damages files of a run that is half done and of its prepared text, one at a time, and lets the run go on.

It must end as if nothing had happened, or refuse with one line that names the file, or go on from what is whole and name what
it could not use. A traceback, or other weights or figures without a word, is a failure.
"""

import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.trial import OUTPUT, PIDS, RUN, command, content, differences, finish, new_place, undisturbed

DONE, ALL = 2, 4  # steps of the run that is damaged, and of the one that went on
GIVEN = ("text.txt", "general.txt", OUTPUT)  # not files of the run
EXPORTS = ("generator", "corrector")  # as discriminator/
NOBODY = "65534"


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def one_bit_flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def deleted(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def unreadable(path: Path) -> None:
    path.chmod(0)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: tuple[Callable[[Path], None], ...] = (truncated, one_bit_flipped, deleted, emptied, unreadable, a_folder)


@dataclass
class Outcome:
    """What became of the runs with one kind of damage, by how they ended."""

    undisturbed: int = 0  # equal to the run that nothing happened to
    refused: int = 0  # one line that names the file, exit code 2
    told: int = 0  # went on and named the file
    wrong: list[str] = field(default_factory=list)


def files_of(folder: Path) -> Iterator[Path]:
    """Relative paths of what a run has written, one of each kind."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        known = name.parts[0] in (*GIVEN, PIDS) or name.parts[:2] in [(RUN, export) for export in EXPORTS]
        if path.is_file() and not known and path.stat().st_size:
            yield name


def prepare(base: Path) -> tuple[Path, dict]:
    """A run that is half done, and what an undisturbed one has at its end."""
    half = new_place(base, "half")
    whole = base / "whole"
    for folder, steps in ((half, DONE), (whole, ALL)):
        if folder is whole:
            shutil.copytree(half, whole)
        undisturbed(command(train__steps=steps, optim__schedule="constant"), folder)
    return half, content(whole)


@dataclass
class Damaged:
    """By kind of damage."""

    HEAD = "| damage | files | as if undisturbed | refused, file named | went on, file named |"
    found: dict[str, Outcome]

    @property
    def wrong(self) -> list[str]:
        return [line for outcome in self.found.values() for line in outcome.wrong]

    def lines(self) -> list[str]:
        return [
            f"| {name} | {o.undisturbed + o.refused + o.told + len(o.wrong)} | {o.undisturbed} | {o.refused} | {o.told} |"
            for name, o in self.found.items()
        ]


def damaged(base: Path, each: int, jobs: int) -> Damaged:
    """Every kind of damage to every file, of these cases every ``each``-th, so many at once."""
    half, wanted = prepare(base)
    found = {damage.__name__.replace("_", " "): Outcome() for damage in DAMAGES}
    cases = [*itertools.product(list(files_of(half)), zip(DAMAGES, found.values(), strict=True))]
    random.Random(1).shuffle(cases)  # else every sixth case would have the same damage
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda case: try_one(half, wanted, case[0], *case[1]), cases[::each]))
    return Damaged(found)


def try_one(half: Path, wanted: dict, name: Path, damage: Callable[[Path], None], outcome: Outcome) -> None:
    """Damage one file in a copy of the run, go on, judge."""
    folder = half.with_name(f"{'-'.join(name.parts)}-{damage.__name__}")
    shutil.copytree(half, folder)
    (folder / OUTPUT).unlink()
    damage(folder / name)
    words, home = command(train__steps=ALL, optim__schedule="constant"), {}
    if damage is unreadable and os.geteuid() == 0:  # root may read all
        for path in (folder, *folder.rglob("*")):
            os.chown(path, int(NOBODY), int(NOBODY))
        words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *words]
        home = {"HOME": str(folder)}
    code = finish(words, folder, **home)
    said = (folder / OUTPUT).read_text("utf-8", errors="replace")
    named = any(name.name in line for line in said.splitlines() if "error:" in line or "warning:" in line)
    unequal = [] if code else differences(content(folder), wanted)
    if "Traceback" in said or code not in (0, 2):
        outcome.wrong.append(f"{damage.__name__} {name}: exit code {code} ({folder / OUTPUT})")
        return
    if code == 2 and named:
        outcome.refused += 1
    elif code == 0 and not unequal:
        outcome.undisturbed += 1
    elif code == 0 and named:
        outcome.told += 1
    else:
        how = f"{', '.join(unequal[:3])} differ, and nothing is said" if not code else "refused without the file's name"
        outcome.wrong.append(f"{damage.__name__} {name}: {how} ({folder / OUTPUT})")
        return
    shutil.rmtree(folder)
