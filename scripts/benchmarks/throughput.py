"""Training speed of this project beside Hugging Face's Trainer, in one run: the table of docs/performance.md.

    python scripts/benchmarks/throughput.py                                       # 10 minutes on two cores (make bench)
    python scripts/benchmarks/throughput.py --options "--data.prepared FOLDER --model.size base" --ways trainer:bf16 ours:bf16
    python scripts/benchmarks/throughput.py --markdown docs/performance.md --section cpu-short

Every way is a process of its own (training_ways.py), all on the same text. They take turns: each trains for --seconds while the
others wait, --rounds times. A speed is the median over the rounds, of real tokens, not of padding. What a way does is named as
in the first column of the table; after the colon stands the precision, no (fp32) or bf16.
"""

import contextlib
import datetime
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError
from electra_accel.pretraining.config_parser import parse
from electra_accel.runs.environment import commit

CHILD = Path(__file__).with_name("training_ways.py")
TEXT = "--data.dataset python_docs --data.max_length 128 --tokenizer.train_vocab_size 8000"
SHAPE = "--config published --model.size small --train.batch_tokens 4096 --train.bin_tokens 128"
IN_WORDS = {
    "trainer": "Trainer, padded to max_length, LM head at every token",
    "trainer-batch": "the same, padded to the longest of the batch",
    "trainer-slots": "the same, LM head at selected tokens only",
    "ours": "this project: packed",
    "ours-layers": "the same, layers compiled",
    "ours-recorded": "the same as packed, CUDA graphs",
    "ours-layers-recorded": "layers compiled, CUDA graphs",
}
WAYS = ["trainer:no", "trainer-batch:no", "trainer-slots:no", "ours:no", "trainer:bf16", "ours:bf16"]
START_SECONDS = 900  # preparing text, imports, a first step; compiling


class Way(NamedTuple):
    """A process that trains in one way. It answers each line that it is sent by one line of JSON."""

    name: str
    process: subprocess.Popen

    def ask(self, seconds: float) -> dict[str, Any]:
        """Let it train for about so long; 0: only say what it is."""
        print(seconds, file=self.process.stdin, flush=True)
        return self.answer()

    def answer(self) -> dict[str, Any]:
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise UserError(f"{self.name} ended with exit code {self.process.wait()}, see above")


@contextlib.contextmanager
def started(names: list[str], options: list[str], device: str) -> Iterator[list[Way]]:
    """All ways, past their first steps. The first one prepares the text, so it starts before the others."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ways = []
        for name in names:
            words = [name, device, str(Path(folder) / name.replace(":", "-")), *options]
            process = subprocess.Popen(
                [sys.executable, str(CHILD), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            ways.append(Way(name, process))
            told = ways[-1].answer()  # one after the other: a first step beside others would not say how long it takes
            print(f"{name}: first step after {told['first_step']:.0f} s", flush=True)
        yield ways


def product_ceiling(device: str, dtype: torch.dtype, seconds: float = 2.0) -> float:
    """FLOP/s of one large matrix product, the best of several."""
    n = 8192 if device == "cuda" else 1536
    a, b = (torch.ones(n, n, device=device, dtype=dtype) for _ in range(2))
    best, ends = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < ends or not best:
        began = time.perf_counter()
        for _ in range(3):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 3 * 2 * n**3 / (time.perf_counter() - began))
    return best


def measure(ways: list[Way], rounds: int, seconds: float, device: str) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """A row for each way, and the ceilings by precision, measured between the rounds."""
    found: dict[str, list[dict[str, Any]]] = {way.name: [] for way in ways}
    dtypes = {"no": torch.float32, "bf16": torch.bfloat16}
    precisions = {name.partition(":")[2] for name in found}
    ceilings = dict.fromkeys(precisions, 0.0)
    for _ in range(rounds):
        for precision in precisions:
            ceilings[precision] = max(ceilings[precision], product_ceiling(device, dtypes[precision]))
        for way in ways:
            found[way.name].append(way.ask(seconds))
            last = found[way.name][-1]
            print(f"{way.name}: {last['tokens'] / last['seconds']:,.0f} tokens/s", flush=True)
    rows = []
    for name, turns in found.items():
        speeds = [turn["tokens"] / turn["seconds"] for turn in turns]
        speed, precision = median(speeds), name.partition(":")[2]
        rows.append(
            {
                "way": name,
                "tokens_per_second": speed,
                "spread": max(speeds) / min(speeds),
                "mfu": speed * turns[0]["flops_per_token"] / ceilings[precision],
                "waiting": sum(turn["waited"] for turn in turns) / sum(turn["seconds"] for turn in turns),
                **{name: turns[-1][name] for name in ("memory_gb", "operators", "first_step")},
            }
        )
    return rows, ceilings


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown, which reads well in a terminal too."""
    lines = [
        "| way | precision | tokens/s | times | MFU | peak memory | waits for data | operators a step | first step |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name, _, precision = row["way"].partition(":")
        operators = f"{row['operators']:,}" if row["operators"] else "-"
        times = row["tokens_per_second"] / rows[0]["tokens_per_second"]
        lines.append(
            f"| {IN_WORDS[name]} | {precision.replace('no', 'fp32')} | {row['tokens_per_second']:,.0f} | {times:.1f} | "
            f"{row['mfu']:.1%} | {row['memory_gb']:.1f} GB | {row['waiting']:.1%} | {operators} | {row['first_step']:.0f} s |"
        )
    return lines


def parts_around(page: Path, section: str) -> tuple[str, str]:
    """What stands before and behind a section of a page.

    Raises:
        UserError: the page cannot be read, or has no lines that begin and end the section.
    """
    try:
        before, begin, rest = page.read_text("utf-8").partition(f"<!-- {section} -->\n")
    except OSError as error:
        raise UserError(f"--markdown {page}: {error.strerror}") from None
    _, end, after = rest.partition(f"<!-- /{section} -->")
    if not (begin and end):
        raise UserError(f"--markdown {page}: it has no lines <!-- {section} --> and <!-- /{section} -->; add them")
    return before + begin, end + after


def machine(device: str) -> str:
    """What figures of speed depend on, with the date and the commit."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        facts = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        names = [line.partition(":")[2].strip() for line in facts if line.startswith("model name")]
        threads = torch.get_num_threads()
        name = f"{threads} thread{'s' * (threads > 1)} of {names[0] if names else 'a CPU'}"
    today = datetime.datetime.now(datetime.UTC)
    return f"{today:%Y-%m-%d}, commit {(commit() or 'unknown')[:7]}, {name}, torch {torch.__version__}"


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--ways", nargs="+", default=WAYS, metavar="WAY:PRECISION", help=f"of {', '.join(IN_WORDS)}")
    parser.add_argument("--options", default="", help="of pretrain.py, in quotes, such as another text or size")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a turn")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table into this page")
    parser.add_argument("--section", default="cpu", help="of that page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures into this file, too")
    asked = parser.parse_args()
    for name in asked.ways:
        way, _, precision = name.partition(":")
        if way not in IN_WORDS or precision not in ("no", "bf16"):
            raise UserError(f"--ways {name}: must be one of {', '.join(IN_WORDS)}, and after a colon no or bf16")
        if "recorded" in way and asked.device == "cpu":
            raise UserError(f"--ways {name}: CUDA graphs need a GPU")
    if asked.rounds < 1 or asked.seconds <= 0:
        raise UserError("--rounds and --seconds must be above 0")
    given = shlex.split(asked.options)
    has_text = any(word.startswith(("--data.train_files", "--data.prepared", "--data.dataset")) for word in given)
    options = [*shlex.split(SHAPE), *([] if has_text else shlex.split(TEXT)), *given]
    parse(options, __doc__)
    if asked.markdown:
        parts_around(asked.markdown, asked.section)
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    with started(asked.ways, options, asked.device) as ways:
        rows, ceilings = measure(ways, asked.rounds, asked.seconds, asked.device)
    ceiling = ", ".join(
        f"{value / 1e9:,.0f} GFLOP/s in {name.replace('no', 'fp32')}" for name, value in ceilings.items()
    )
    facts = f"{machine(asked.device)}. Ceiling of a large matrix product: {ceiling}. {asked.rounds} rounds of "
    facts += f"{asked.seconds:g} s. Options: `{shlex.join(options)}`"
    lines = ["", facts, "", *table(rows), ""]
    print("\n".join(lines))
    if asked.json:
        asked.json.write_text(
            json.dumps({"facts": facts, "ceilings": ceilings, "rows": rows, "table": table(rows)}, indent=1) + "\n",
            "utf-8",
        )
    if asked.markdown:
        before, after = parts_around(asked.markdown, asked.section)
        asked.markdown.write_text(before + "\n".join(lines) + "\n" + after, "utf-8")


if __name__ == "__main__":
    exit_with_one_line(main)
