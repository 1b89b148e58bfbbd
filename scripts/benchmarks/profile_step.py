"""The ten operators or kernels that take most of a step's time, as a table: WAY:PRECISION DEVICE FILE, then options of pretrain.py.

python scripts/benchmarks/profile_step.py ours:bf16 cuda kernels.md --model.size base --data.dataset python_docs --tokenizer.train_vocab_size 8000
"""  # noqa: E501

import sys
import tempfile
from pathlib import Path

from torch.profiler import ProfilerActivity, profile
from training_ways import ours, set_up

from electra_accel.cli import exit_with_one_line
from electra_accel.errors import UserError

BEFORE, MEASURED, SHOWN = 8, 3, 10  # steps before, steps that are measured, rows


class Watched(Exception):
    """All steps are done."""


class Profiled:
    """In place of turns: a few steps, then the profiler."""

    def __init__(self, device: str):
        self.steps, self.tokens = 0, 0
        both = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
        self.profiler = profile(activities=both if device == "cuda" else both[:1])

    def begin(self) -> None:
        if self.steps == BEFORE:
            self.profiler.start()

    def end(self, tokens: int) -> None:
        self.steps += 1
        self.tokens += tokens if self.steps > BEFORE else 0
        if self.steps == BEFORE + MEASURED:
            self.profiler.stop()
            raise Watched


def table(profiler: profile, device: str) -> list[str]:
    """Time by itself, without what an operator calls; on a GPU that of its kernels."""
    times = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    found = sorted(profiler.key_averages(), key=lambda each: getattr(each, times), reverse=True)
    total = sum(getattr(each, times) for each in found)
    lines = ["| operator or kernel | calls a step | share of the time |", "|---|---|---|"]
    for each in found[:SHOWN]:
        name = each.key.replace("|", "/")[:80]
        lines.append(f"| `{name}` | {each.count / MEASURED:.0f} | {getattr(each, times) / total:.1%} |")
    return lines


def main() -> None:
    if len(sys.argv) < 4:
        raise UserError("give WAY:PRECISION, cpu or cuda, and a file for the table")
    (name, device, file), options = sys.argv[1:4], sys.argv[4:]
    with tempfile.TemporaryDirectory() as folder:
        planned, engine = set_up(name, device, Path(folder), ["--config", "published", *options])
        watched = Profiled(device)
        try:
            ours(planned, engine, watched)
        except Watched:
            lines = table(watched.profiler, device)
    Path(file).write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    exit_with_one_line(main)
