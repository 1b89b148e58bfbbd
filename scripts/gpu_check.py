"""What only a machine with an NVIDIA GPU can show; meant to take less than 5 minutes (make gpu-check).

    python scripts/gpu_check.py
    python scripts/gpu_check.py --markdown docs/gpu.md     # also replaces what that page says was measured

First the tests marked gpu; then tiny and small are pre-trained from scratch for 20 seconds each, by scripts/pretrain.py, on the
built-in corpus or on what --text says. The runs stay in runs/gpu-check-<UTC time>. Exit codes: 0 all passed, 1 something
failed, 2 no GPU to check.
"""

import datetime
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple
from xml.etree import ElementTree

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.engines.engine import Engine
from electra_accel.engines.hardware import told_by_driver
from electra_accel.engines.open import open_engine
from electra_accel.errors import UserError
from electra_accel.pretraining import config_parser
from electra_accel.pretraining.config_parser import default_folder
from electra_accel.runs import run_folder
from electra_accel.runs.environment import environment

ROOT = Path(__file__).resolve().parents[1]
MARKER = "<!-- measured: what follows is written by scripts/gpu_check.py --markdown -->"
SIZES = ("tiny", "small")
PYTHON_DOCS = ("--data.dataset=python_docs", "--tokenizer.train_vocab_size=8000")
TRAINING_SECONDS = 20.0  # with the warm-up run, two starts and an export less than a minute
WARM_UP_STEPS = 40


class TestResult(NamedTuple):
    name: str
    outcome: str  # passed, failed or skipped
    measured: dict[str, str]  # properties that the test recorded


class Speed(NamedTuple):
    """One pre-training run. Speeds are medians over its log lines."""

    size: str
    batch_tokens: int
    steps: int
    seconds: float
    tokens_per_second: float
    mfu: float | None  # None: not known
    peak_memory_gb: float
    first_loss: float  # of the generator, nats per selected token
    last_loss: float


def run_tests(select: Sequence[str]) -> list[TestResult]:
    """Run pytest with these arguments, its output shown. If it fails without naming a test, that is a failed test too."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *select]
        code = _run(command, timeout=400, cwd=ROOT)
        results = [_result(case) for case in ElementTree.parse(report).iter("testcase")] if report.exists() else []
    if code != 0 and not any(result.outcome == "failed" for result in results):
        results.append(TestResult(f"pytest, exit code {code}", "failed", {}))
    return results


def _result(case: ElementTree.Element) -> TestResult:
    outcomes = {"failure": "failed", "error": "failed", "skipped": "skipped"}
    outcome = next((outcomes[part.tag] for part in case if part.tag in outcomes), "passed")
    measured = {found.get("name"): found.get("value") for found in case.iter("property")}
    return TestResult(case.get("name"), outcome, measured)


def measure(size: str, folder: Path, seconds: float, options: Sequence[str] = PYTHON_DOCS) -> Speed | None:
    """Pre-train ``size`` for about ``seconds``: some steps to find its speed, then a run of as many as fit.

    ``options`` of pretrain.py name the text. None if a run failed (pretrain.py has said why) or the generator learnt nothing.
    """
    warm_up = _pretrain(size, folder / f"{size}-warm-up", WARM_UP_STEPS, options)
    if not warm_up:
        return None
    step_seconds = median(line["speed/seconds_per_step"] for line in warm_up[len(warm_up) // 2 :])
    steps = max(WARM_UP_STEPS, round(seconds / step_seconds))
    lines = _pretrain(size, folder / size, steps, options)
    if not lines or not lines[-1]["train/generator_loss"] < lines[0]["train/generator_loss"]:
        return None

    def figure(name: str) -> float | None:
        # without the first line: the loader and the GPU's libraries start in it
        return median(line[name] for line in lines[1:]) if name in lines[-1] else None

    return Speed(
        size=size,
        batch_tokens=config_parser.recorded(folder / size).train.batch_tokens,
        steps=steps,
        seconds=steps * figure("speed/seconds_per_step"),
        tokens_per_second=figure("speed/tokens_per_second"),
        mfu=figure("speed/mfu"),
        peak_memory_gb=lines[-1]["speed/peak_memory_gb"],
        first_loss=lines[0]["train/generator_loss"],
        last_loss=lines[-1]["train/generator_loss"],
    )


def _pretrain(size: str, folder: Path, steps: int, options: Sequence[str]) -> list[dict]:
    """Run scripts/pretrain.py as a user does; its log lines as records, none if it failed."""
    print(f"\npre-training {size}, {steps} steps", flush=True)
    recipe = {
        "model.size": size,
        "train.steps": steps,
        "optim.warmup_steps": steps // 10,
        "tracking.log_every": max(1, steps // 20),
        "tracking.samples_every": steps,
        "eval.every": steps,
        "eval.batches": 2,
        "run.dir": folder,
    }
    words = [f"--{name}={value}" for name, value in recipe.items()]
    command = [sys.executable, str(ROOT / "scripts" / "pretrain.py"), *words, *options]
    if _run(command, timeout=240) != 0:
        return []
    return [line for line in run_folder.read_jsonl(folder / run_folder.METRICS) if "train/loss" in line]


def _run(command: list[str], timeout: float, cwd: Path | None = None) -> int:
    """Exit code of a command, its output shown; 124 if it had to be stopped."""
    variables = os.environ | {"WANDB_MODE": "disabled"}
    try:
        return subprocess.run(command, cwd=cwd, env=variables, timeout=timeout).returncode
    except subprocess.TimeoutExpired:
        return 124


def failures(tests: list[TestResult], speeds: dict[str, Speed | None]) -> list[str]:
    """What did not pass, one line each. That all tests were skipped is no pass."""
    found = [f"test {test.name}" for test in tests if test.outcome == "failed"]
    if not any(test.outcome == "passed" for test in tests):
        found.append("no test passed")
    return found + [f"pre-training {size}" for size, speed in speeds.items() if speed is None]


def machine(engine: Engine) -> list[tuple[str, str]]:
    """What the figures depend on, as (name, value)."""
    facts = environment(engine)
    return [
        ("date", f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"),
        ("commit", facts["commit"] or "unknown"),
        ("card", engine.card or "none"),
        ("driver", " ".join(told_by_driver("driver_version")) or "unknown"),
        ("torch", facts["versions"]["torch"]),
        ("Python", facts["python"]),
        ("precision", "fp32" if engine.precision == "no" else engine.precision),
        ("attention", engine.attention_path()),
    ]


def page(facts: list[tuple[str, str]], tests: list[TestResult], speeds: dict[str, Speed | None]) -> str:
    """The result as Markdown, which reads well in a terminal too."""
    outcomes = Counter(test.outcome for test in tests)
    measured = [(name, value) for test in tests for name, value in test.measured.items()]
    lost = failures(tests, speeds)
    lines = [
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts),
        f"| tests | {outcomes['passed']} passed, {outcomes['failed']} failed, {outcomes['skipped']} skipped |",
        *(f"| {name} | {value} |" for name, value in measured),
        f"| result | {'all passed' if not lost else 'FAILED: ' + '; '.join(lost)} |",
        "",
        "| size | tokens/step | steps | seconds | tokens/s | MFU | peak memory | generator loss |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {speed.size} | {speed.batch_tokens:,} | {speed.steps:,} | {speed.seconds:.0f} | {speed.tokens_per_second:,.0f} "
            f"| {'-' if speed.mfu is None else f'{speed.mfu:.1%}'} | {speed.peak_memory_gb:.2f} GB "
            f"| {speed.first_loss:.2f} -> {speed.last_loss:.2f} |"
            for speed in filter(None, speeds.values())
        ),
    ]
    return "\n".join(lines) + "\n"


def write_page(file: Path, text: str) -> None:
    """Put ``text`` below the marker line of a page; a file without one becomes the text alone."""
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    head, marker, _ = old.partition(MARKER)
    file.write_text(f"{head}{marker}\n\n{text}" if marker else text, encoding="utf-8")


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the tables into this page")
    text = 'of pretrain.py, in quotes, such as "--data.prepared FOLDER" [the built-in corpus]'
    parser.add_argument("--text", metavar="OPTIONS", type=shlex.split, default=PYTHON_DOCS, help=text)
    asked = parser.parse_args()

    began = time.monotonic()
    folder = Path(default_folder("gpu-check"))
    engine = open_engine(precision="auto", cpu=False, trackers=[], folder=folder)
    if engine.device.type != "cuda":
        raise UserError("no NVIDIA GPU on this machine; make test covers what can be tested without one")
    facts = machine(engine)
    tests = run_tests(["-m", "gpu", "tests/gpu"])
    speeds = {size: measure(size, folder, TRAINING_SECONDS, asked.text) for size in SIZES}
    text = page(facts, tests, speeds)
    if asked.markdown:
        write_page(asked.markdown, text)
    print(f"\n{text}\ngpu-check took {time.monotonic() - began:.0f} s; the runs are in {folder}")
    return 1 if failures(tests, speeds) else 0


if __name__ == "__main__":
    exit_with_one_line(main)
