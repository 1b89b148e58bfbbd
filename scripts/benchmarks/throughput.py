"""Training speed of this project beside Hugging Face's Trainer, in one run: the table of docs/performance.md.

    python scripts/benchmarks/throughput.py                                       # about 10 minutes on two cores (make bench)
    python scripts/benchmarks/throughput.py --options "--data.train_files TEXT --model.size base" --ways trainer:bf16 ours:bf16
    python scripts/benchmarks/throughput.py --markdown docs/performance.md --section cpu-short

Every way is a process of its own (training_ways.py), all on the same text. They take turns: each trains for --seconds while the
others wait, --rounds times. A speed is the median over the rounds, of real tokens, not of padding. After the colon stands the
precision, no (fp32) or bf16.
"""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from measuring import in_words, leave_on_sigterm, machine, parts_around, product_ceiling, write_section

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError, writing
from electra_accel.pretraining.config import resolve
from electra_accel.pretraining.config_checks import check
from electra_accel.pretraining.config_parser import parse

HERE = Path(__file__).resolve().parent
TEXT, TOKENIZER = "--data.dataset python_docs", "--tokenizer.train_vocab_size 8000"
SHAPE = "--config published --model.size small --train.batch_tokens 4096 --train.bin_tokens 128"
SHAPE += " --data.max_length 128 --train.steps 1000000"
WAYS = {
    "trainer": "Trainer as in tutorials",
    "trainer-flash": "Trainer, no dropout inside attention",
    "trainer-batch": "and padded to the longest of a batch",
    "trainer-slots": "and the LM head at selected tokens only",
    "ours": "this project",
    "ours-layers": "this project, layers compiled",
    "ours-recorded": "this project, CUDA graphs",
    "ours-layers-recorded": "this project, layers compiled, CUDA graphs",
}
DEFAULT = [
    "trainer:no",
    "trainer-flash:no",
    "trainer-batch:no",
    "trainer-slots:no",
    "ours:no",
    "trainer:bf16",
    "ours:bf16",
]
START_SECONDS = 900.0  # imports and a first step; compiling
TURN = 20.0  # a turn may take so many times what it was to take, and a minute


class Way(NamedTuple):
    """A process that trains in one way. It answers each line that it is sent by one line of JSON."""

    name: str
    process: subprocess.Popen

    def train(self, seconds: float) -> dict[str, Any]:
        """For about so long; what it did."""
        with contextlib.suppress(BrokenPipeError):  # it has ended: there will be no answer
            print(seconds, file=self.process.stdin, flush=True)
        return self.answer(TURN * seconds + 60)

    def answer(self, limit: float) -> dict[str, Any]:
        """UserError where the process ends instead, SystemExit where it has said why; it is killed after ``limit`` seconds."""
        alarm = threading.Timer(limit, self.process.kill)
        alarm.start()
        line = self.process.stdout.readline()
        alarm.cancel()
        if not line and self.process.wait() == 2:
            sys.exit(2)
        if not line:
            raise UserError(f"{self.name} ended with exit code {self.process.wait()}, see above")
        return json.loads(line)


@contextlib.contextmanager
def started(names: list[str], options: list[str], device: str) -> Iterator[list[Way]]:
    """All ways, past their first steps. They start one after the other, so that a first step is not slowed down by others."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ways = []
        for name in names:
            place = Path(folder) / name.replace(":", "-")
            # One GPU for all: Trainer would use several. No way finds what another has compiled.
            cards = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
            alone = {"CUDA_VISIBLE_DEVICES": cards, "TORCHINDUCTOR_CACHE_DIR": f"{place}-compiled"}
            process = subprocess.Popen(
                [sys.executable, str(HERE / "training_ways.py"), name, device, str(place), *options],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", env=os.environ | alone,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
            ways.append(Way(name, process))
            told = ways[-1].answer(START_SECONDS)
            print(f"{name}: the first step took {told['first_step']:.1f} s", flush=True)
        yield ways


def row(name: str, turns: list[dict[str, Any]], ceilings: dict[str, float]) -> dict[str, Any]:
    """The figures of a way."""
    speeds = [turn["tokens"] / turn["seconds"] for turn in turns]
    return {
        "way": name,
        "tokens_per_second": median(speeds),
        "slowest": min(speeds),
        "fastest": max(speeds),
        "mfu": median(speeds) * turns[0]["flops_per_token"] / ceilings[name.partition(":")[2]],
        "waiting": sum(turn["waited"] for turn in turns) / sum(turn["seconds"] for turn in turns),
        **{name: turns[-1][name] for name in ("memory_gb", "operators", "first_step")},
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown, which reads well in a terminal too."""
    lines = [
        "| way | precision | tokens/s (rounds) | against the first | MFU | peak memory | waits for data | operators a step "
        "| first step |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for found in rows:
        name, _, precision = found["way"].partition(":")
        operators = f"{found['operators']:,}" if found["operators"] else "-"
        times = found["tokens_per_second"] / rows[0]["tokens_per_second"]
        lines.append(
            f"| {WAYS[name]} | {in_words(precision)} | {found['tokens_per_second']:,.0f} ({found['slowest']:,.0f} to "
            f"{found['fastest']:,.0f}) | {times:.1f} | {found['mfu']:.1%} | {found['memory_gb']:.1f} GB "
            f"| {found['waiting']:.1%} | {operators} | {found['first_step']:.1f} s |"
        )
    return lines


def checked(options: list[str], ways: list[str], device: str) -> list[str]:
    """All options of a run of pretrain.py. UserError where they, or the ways, are impossible."""
    for name in ways:
        way, _, precision = name.partition(":")
        if way not in WAYS or precision not in ("no", "bf16"):
            raise UserError(f"--ways {name}: must be one of {', '.join(WAYS)}, and after a colon no or bf16")
        if "recorded" in way and device == "cpu":
            raise UserError(f"--ways {name}: CUDA graphs need a GPU")
    given = " ".join(word.partition("=")[0] for word in options)
    text = [] if re.search(r"--data\.(train_files|prepared|dataset)\b", given) else shlex.split(TEXT)
    tokenizer = [] if re.search(r"--(tokenizer\.|data\.prepared)", given) else shlex.split(TOKENIZER)
    options = [*shlex.split(SHAPE), *text, *tokenizer, *options]
    config = resolve(parse(options, __doc__).config)
    check(config)
    if any(name.startswith("trainer") for name in ways):
        usual = {
            "objective.kind": "rtd", "objective.corrective_weight": 0.0, "objective.mask_unit": "token",
            "objective.random_token_prob": 0.0, "objective.temperature": 1.0, "optim.kind": "adamw",
        }  # fmt: skip
        for name, value in usual.items():
            group, _, option = name.partition(".")
            if getattr(getattr(config, group), option) != value:
                raise UserError(
                    f"--options --{name}: the ways of Trainer have {value} alone; leave them out with --ways"
                )
    return options


def main() -> None:
    leave_on_sigterm()
    parser = argument_parser(__doc__)
    parser.add_argument("--ways", nargs="+", default=DEFAULT, metavar="WAY:PRECISION", help=f"of {', '.join(WAYS)}")
    text = "of pretrain.py, in quotes, such as another text or size"
    parser.add_argument("--options", type=shlex.split, default=[], help=text)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a turn")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table into this page")
    parser.add_argument("--section", default="cpu", help="of that page")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures into this file, anew after each round"
    )
    asked = parser.parse_args()
    if asked.rounds < 1 or asked.seconds <= 0:
        raise UserError("--rounds and --seconds must be above 0")
    options = checked(asked.options, asked.ways, asked.device)
    if asked.markdown:
        parts_around(asked.markdown, asked.section)
    if asked.json:
        with writing("--json", asked.json):
            asked.json.write_text("{}\n", "utf-8")
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    # The text, once: whoever made it on the way would need more memory and time than the others.
    prepare = [
        sys.executable,
        str(HERE.parent / "pretrain.py"),
        *options,
        "--dry_run",
        *["--cpu"] * (asked.device == "cpu"),
    ]
    if code := subprocess.run(prepare, stdout=subprocess.DEVNULL).returncode:
        sys.exit(code)  # it has said why
    turns: dict[str, list] = {name: [] for name in asked.ways}
    ceilings = dict.fromkeys((name.partition(":")[2] for name in asked.ways), 0.0)
    with started(asked.ways, options, asked.device) as ways:
        for _ in range(asked.rounds):
            for precision in ceilings:
                ceilings[precision] = max(ceilings[precision], product_ceiling(asked.device, precision))
            for way in ways:
                turns[way.name].append(way.train(asked.seconds))
            rows = [row(name, done, ceilings) for name, done in turns.items()]
            told = ", ".join(f"{value / 1e9:,.0f} GFLOP/s in {in_words(name)}" for name, value in ceilings.items())
            facts = f"{machine(asked.device)}. Ceiling of a large matrix product: {told}. "
            facts += (
                f"Turns of {asked.seconds:g} s, {len(turns[asked.ways[0]])} rounds. Options: `{shlex.join(options)}`"
            )
            print("\n".join(["", *table(rows)]), flush=True)
            if asked.json:
                found = {"facts": facts, "rows": rows, "table": table(rows)}
                asked.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(f"\n{facts}")
    if asked.markdown:
        write_section(asked.markdown, asked.section, [facts, "", *table(rows)])


if __name__ == "__main__":
    exit_with_one_line(main)
