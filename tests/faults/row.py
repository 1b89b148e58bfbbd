"""A row of the table of kills: what became of the runs."""

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from electra_accel.runs import checkpoint, run_folder
from tests.faults.trial import differences


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
