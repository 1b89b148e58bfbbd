"""The ten operators or kernels that take most of a step's time, as a table.

    python scripts/benchmarks/profile_step.py ours:bf16 kernels.md --options "--data.train_files TEXT --model.size base"

The way is one of this project's in throughput.py; the options are those of pretrain.py, and the text is as there.
"""

import shlex
import sys
import tempfile
from pathlib import Path

import torch
from measuring import leave_on_sigterm
from throughput import WAYS, checked
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile
from training_ways import ours, set_up

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError, writing

BEFORE, MEASURED, SHOWN = 8, 3, 10  # steps before, steps that are measured, rows


class Done(Exception):
    """All steps are measured."""


class Profiled:
    """In place of ``training_ways.Turns``: some steps, then the profiler."""

    def __init__(self, device: str):
        self.steps, self.cuda = 0, device == "cuda"
        both = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
        self.profiler = profile(activities=both if self.cuda else both[:1])

    def begin(self) -> None:
        if self.steps == BEFORE:
            if self.cuda:
                torch.cuda.synchronize()
            self.profiler.start()

    def end(self, tokens: int) -> None:
        self.steps += 1
        if self.steps == BEFORE + MEASURED:
            if self.cuda:
                torch.cuda.synchronize()
            self.profiler.stop()
            raise Done


def longest(found: list[FunctionEventAvg], cuda: bool) -> list[str]:
    """A table of those that take longest: on a GPU of kernels alone, for an operator has its kernels' time as its own, too."""
    if cuda:
        found = [each for each in found if each.device_type == DeviceType.CUDA and not each.is_user_annotation]
    times = {each: each.self_device_time_total if cuda else each.self_cpu_time_total for each in found}
    total = sum(times.values()) or 1
    lines = [
        "| kernel | calls a step | share of the time |" if cuda else "| operator | calls a step | share of the time |"
    ]
    lines += ["|---|---|---|"]
    for each in sorted(times, key=times.get, reverse=True)[:SHOWN]:
        name = each.key.replace("|", "/")[:80]
        lines.append(f"| `{name}` | {each.count / MEASURED:.0f} | {times[each] / total:.1%} |")
    return lines


def main() -> None:
    leave_on_sigterm()
    parser = argument_parser(__doc__)
    parser.add_argument("way", metavar="WAY:PRECISION")
    parser.add_argument("file", type=Path, help="gets the table")
    parser.add_argument("--options", type=shlex.split, default=[])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    if not asked.way.startswith("ours"):
        raise UserError(
            f"{asked.way}: must be one of {', '.join(way for way in WAYS if way.startswith('ours'))}, and no or bf16"
        )
    if asked.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no NVIDIA GPU that torch can use")
    options = checked(asked.options, [asked.way], asked.device)
    with writing("file", asked.file):
        asked.file.write_text("", "utf-8")
    with tempfile.TemporaryDirectory() as folder:
        planned, engine = set_up(asked.way, asked.device, Path(folder) / "run", options)
        watched = Profiled(asked.device)
        try:
            ours(planned, engine, watched)
        except Done:
            lines = longest(list(watched.profiler.key_averages()), watched.cuda)
    asked.file.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines), file=sys.stdout)


if __name__ == "__main__":
    exit_with_one_line(main)
