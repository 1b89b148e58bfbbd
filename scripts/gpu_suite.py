"""All that needs an NVIDIA GPU, in about 8 minutes, the most important first (make gpu-suite).

    python scripts/gpu_suite.py
    python scripts/gpu_suite.py --markdown docs/gpu.md     # also replaces what that page says was measured
    python scripts/gpu_suite.py --device cpu               # the same at size tiny: shows that the suite itself works

What is found is written as it comes, into runs/gpu-suite-<UTC time>/page.md: a machine that is taken away leaves what it has
shown. A part that fails or takes too long is named, and the others go on. Exit codes: 0 all passed, 1 something failed, 2 no
GPU.
"""

import datetime
import json
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple
from xml.etree import ElementTree

import torch

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.engines.engine import Engine
from electra_accel.engines.hardware import told_by_driver
from electra_accel.engines.open import open_engine
from electra_accel.errors import UserError
from electra_accel.pretraining.config_parser import default_folder
from electra_accel.runs import run_folder
from electra_accel.runs.environment import environment

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "scripts" / "benchmarks"
MARKER = "<!-- measured: what follows is written by scripts/gpu_suite.py --markdown -->"
TEXT = "--data.dataset=python_docs --tokenizer.train_vocab_size=8000"
OURS = ["ours:bf16", "ours-layers:bf16", "ours-recorded:bf16", "ours-layers-recorded:bf16"]


class PartFailed(Exception):
    """Says why. ``lines``: what it has found all the same."""

    def __init__(self, why: str, lines: Sequence[str] = ()):
        super().__init__(why)
        self.lines = list(lines)


class Setting(NamedTuple):
    """What the parts are told."""

    folder: Path
    device: str
    text: str  # options of pretrain.py

    @property
    def small(self) -> bool:
        """A machine without a GPU only shows that the suite works."""
        return self.device == "cpu"


class Part(NamedTuple):
    title: str
    limit: float  # seconds
    run: Callable[[Setting, float], list[str]]  # gives Markdown; PartFailed


# --- the parts ----------------------------------------------------------------------------------------------------------


def ceilings(setting: Setting, limit: float) -> list[str]:
    """What the device does at most."""
    n, device = (1024 if setting.small else 16384), setting.device
    data = torch.empty(n * n, device=device)
    found = [("copy", 2 * data.nbytes / _seconds(data.clone, device), 1e9, "GB/s")]
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a = torch.ones(n // 2, n // 2, device=device, dtype=dtype)
        found.append((f"{name} product", 2 * (n // 2) ** 3 / _seconds(lambda a=a: a @ a, device), 1e12, "TFLOP/s"))
    return [
        "| ceiling | measured |",
        "|---|---|",
        *(f"| {name} | {v / by:,.2f} {unit} |" for name, v, by, unit in found),
    ]


def _seconds(work: Callable[[], object], device: str, times: int = 5) -> float:
    """Of the fastest call."""
    found = []
    for _ in range(times + 1):
        began = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return min(found[1:])


class TestResult(NamedTuple):
    name: str
    outcome: str  # passed, failed or skipped
    measured: dict[str, str]  # properties that the test recorded


def tests(setting: Setting, limit: float) -> list[str]:
    """Those marked ``gpu``; on a CPU those of the same files that need none."""
    results = run_tests(["tests/gpu"] if setting.small else ["-m", "gpu", "tests/gpu"], setting.folder, limit)
    outcomes = Counter(result.outcome for result in results)
    measured = [(name, value) for result in results for name, value in result.measured.items()]
    lines = [f"{outcomes['passed']} passed, {outcomes['failed']} failed, {outcomes['skipped']} skipped."]
    if measured:
        lines += ["", "| recorded by a test | |", "|---|---|", *(f"| {name} | {value} |" for name, value in measured)]
    if failed := [result.name for result in results if result.outcome == "failed"]:
        raise PartFailed("failed: " + "; ".join(failed), lines)
    if not outcomes["passed"]:
        raise PartFailed("no test passed", lines)
    return lines


def run_tests(select: Sequence[str], folder: Path, limit: float) -> list[TestResult]:
    """Run pytest with these arguments, its output shown. If it fails without naming a test, that is a failed test too."""
    report = folder / "tests.xml"
    report.unlink(missing_ok=True)
    code = _run([sys.executable, "-m", "pytest", "-q", f"--junitxml={report.resolve()}", *select], limit, cwd=ROOT)
    results = [_result(case) for case in ElementTree.parse(report).iter("testcase")] if report.exists() else []
    if code != 0 and not any(result.outcome == "failed" for result in results):
        results.append(TestResult(f"pytest, exit code {code}", "failed", {}))
    return results


def _result(case: ElementTree.Element) -> TestResult:
    outcomes = {"failure": "failed", "error": "failed", "skipped": "skipped"}
    outcome = next((outcomes[part.tag] for part in case if part.tag in outcomes), "passed")
    measured = {found.get("name"): found.get("value") for found in case.iter("property")}
    return TestResult(case.get("name"), outcome, measured)


def speed_of_small(setting: Setting, limit: float) -> list[str]:
    """Short text, as reviews are: most of what a padded batch computes is padding."""
    ways = ["trainer:no", "ours:no"] if setting.small else ["trainer:bf16", "trainer-batch:bf16", *OURS]
    shape = "--train.batch_tokens 512" if setting.small else "--train.batch_tokens 65536"
    return _speed(setting, limit, "small", ways, f"{_size(setting, 'small')} --data.max_length 128 {shape}")


def speed_of_base(setting: Setting, limit: float) -> list[str]:
    """The published length, 512."""
    shape = "--data.max_length 64 --train.bin_tokens 64 --train.batch_tokens 512"
    if not setting.small:
        shape = "--data.max_length 512 --train.bin_tokens 512 --train.batch_tokens 65536"
    return _speed(setting, limit, "base", ["ours:no"] if setting.small else OURS, f"{_size(setting, 'base')} {shape}")


def _speed(setting: Setting, limit: float, name: str, ways: list[str], options: str) -> list[str]:
    file = setting.folder / f"{name}.json"
    turns = ["--rounds", "2", "--seconds", "1" if setting.small else "4", "--device", setting.device]
    command = [
        BENCHMARKS / "throughput.py",
        "--json",
        file,
        *turns,
        f"--options={setting.text} {options}",
        "--ways",
        *ways,
    ]
    code = _run([sys.executable, *map(str, command)], limit)
    if code or not file.exists():
        raise PartFailed(f"throughput.py ended with exit code {code}")
    found = json.loads(file.read_text("utf-8"))
    return [found["facts"], "", *found["table"]]


def kernels_of_base(setting: Setting, limit: float) -> list[str]:
    """Where the time of a step goes."""
    file = setting.folder / "kernels.md"
    length = 64 if setting.small else 512
    options = f"{_size(setting, 'base')} --data.max_length {length} --train.bin_tokens {length} --train.batch_tokens "
    options += "512" if setting.small else "65536"
    words = [BENCHMARKS / "profile_step.py", "ours:no" if setting.small else "ours:bf16", setting.device, file]
    words += shlex.split(f"{setting.text} {options}")
    code = _run([sys.executable, *map(str, words)], limit)
    if code or not file.exists():
        raise PartFailed(f"profile_step.py ended with exit code {code}")
    return file.read_text("utf-8").splitlines()


def run_of_small(setting: Setting, limit: float) -> list[str]:
    """scripts/pretrain.py as a user starts it. The loss must fall."""
    run, steps = setting.folder / "run", 40 if setting.small else 150
    options = f"{setting.text} {_size(setting, 'small')} --train.steps {steps} --optim.warmup_steps {steps // 10} "
    options += f"--tracking.log_every {steps // 20} --eval.every {steps} --eval.batches 2 --tracking.mode disabled"
    options += " --data.max_length 64 --train.batch_tokens 512 --cpu" if setting.small else ""
    code = _run(
        [sys.executable, str(ROOT / "scripts" / "pretrain.py"), *shlex.split(options), "--run.dir", str(run)], limit
    )
    if code:
        raise PartFailed(f"pretrain.py ended with exit code {code}")
    lines = [line for line in run_folder.read_jsonl(run / run_folder.METRICS) if "train/loss" in line]
    first, last = lines[0]["train/generator_loss"], lines[-1]["train/generator_loss"]
    speed = median(
        line["speed/tokens_per_second"] for line in lines[1:]
    )  # the loader and the libraries start in the first
    text = f"{steps} steps, {speed:,.0f} tokens/s, peak memory {lines[-1]['speed/peak_memory_gb']:.2f} GB, "
    text += f"generator loss {first:.2f} -> {last:.2f}."
    if not last < first:
        raise PartFailed("the generator learnt nothing", [text])
    return [text]


def _size(setting: Setting, size: str) -> str:
    return f"--model.size {'tiny' if setting.small else size}"


PARTS = (
    Part("Ceilings", 60, ceilings),
    Part("Tests", 200, tests),
    Part("Speed of small", 150, speed_of_small),
    Part("Speed of base", 150, speed_of_base),
    Part("Kernels of base", 60, kernels_of_base),
    Part("A run of small", 60, run_of_small),
)
SLOWER = 10  # a CPU, whose limits are only there to end what hangs


def _run(command: list[str], limit: float, cwd: Path | None = None) -> int:
    """Exit code of a command, its output shown; 124 if it had to be stopped, with all that it started."""
    process = subprocess.Popen(command, cwd=cwd, env=os.environ | {"WANDB_MODE": "disabled"}, start_new_session=True)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return 124
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()


# --- the page -----------------------------------------------------------------------------------------------------------


def machine(engine: Engine) -> list[str]:
    """What the figures depend on."""
    facts = environment(engine)
    found = {
        "date": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "commit": facts["commit"] or "unknown",
        "card": engine.card or "none",
        "driver": " ".join(told_by_driver("driver_version")) or "unknown",
        "torch": facts["versions"]["torch"],
        "Python": facts["python"],
        "attention": engine.attention_path(),
    }
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in found.items())]


def write_page(file: Path, text: str) -> None:
    """Put ``text`` below the marker line of a page; a file without one becomes the text alone."""
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    head, marker, _ = old.partition(MARKER)
    file.write_text(f"{head}{marker}\n\n{text}" if marker else text, encoding="utf-8")


def run_parts(parts: Sequence[Part], setting: Setting, lines: list[str], pages: Sequence[Path]) -> list[str]:
    """All parts; ``pages`` are written after each. Returns the titles of those that failed, with the reason."""
    failed = []
    for part in parts:
        print(f"\n--- {part.title}", flush=True)
        began, found = time.monotonic(), []
        try:
            found = part.run(setting, part.limit * (SLOWER if setting.small else 1))
        except PartFailed as failure:
            found = [*failure.lines, "", f"**{failure}**"]
            failed.append(f"{part.title}: {failure}")
        lines += ["", f"### {part.title}", "", *found, "", f"Took {time.monotonic() - began:.0f} s."]
        for page in pages:
            write_page(page, "\n".join(lines) + "\n")
    return failed


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the results into this page, too")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--text", default=TEXT, help='of pretrain.py, in quotes, such as "--data.prepared FOLDER"')
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        raise UserError("no NVIDIA GPU that torch can use; --device cpu shows that the suite works, make test the rest")
    folder = Path(default_folder("gpu-suite"))
    folder.mkdir(parents=True)
    engine = open_engine(precision="no", cpu=asked.device == "cpu", trackers=[], folder=folder)
    setting, lines = Setting(folder, asked.device, asked.text), machine(engine)
    pages = [folder / "page.md", *filter(None, [asked.markdown])]
    failed = run_parts(PARTS, setting, lines, pages)
    print((folder / "page.md").read_text("utf-8"))
    print(f"{'all passed' if not failed else 'FAILED: ' + '; '.join(failed)}; {folder / 'page.md'}")
    return 1 if failed else 0


if __name__ == "__main__":
    exit_with_one_line(main)
