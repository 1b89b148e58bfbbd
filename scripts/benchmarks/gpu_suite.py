"""All that needs an NVIDIA GPU, the most important first (make gpu-suite). Meant to take about 10 minutes.

    python scripts/benchmarks/gpu_suite.py
    python scripts/benchmarks/gpu_suite.py --markdown docs/gpu.md     # also writes the results into that page
    python scripts/benchmarks/gpu_suite.py --device cpu               # the same at size tiny: shows that the suite itself works

What is found is written as it comes, into runs/gpu-suite-<UTC time>/page.md: a machine that is taken away leaves what it has
shown. A part that fails or takes too long is named, and the others go on. Exit codes: 0 all passed, 1 something failed, 2 no
GPU.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple
from xml.etree import ElementTree

import torch
from measuring import copy_ceiling, leave_on_sigterm, machine, parts_around, product_ceiling, write_section

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.engines.engine import Engine
from electra_accel.engines.hardware import told_by_driver
from electra_accel.engines.open import open_engine
from electra_accel.errors import UserError, one_line
from electra_accel.pretraining.config_parser import default_folder
from electra_accel.runs import run_folder

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SECTION = "measured"  # of the page
TEXT = "--data.dataset=python_docs --tokenizer.train_vocab_size=8000"
RECORDED = ["ours:bf16", "ours-recorded:bf16", "ours-layers-recorded:bf16"]


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
    products = [(f"{name} product", product_ceiling(setting.device, name) / 1e12, "TFLOP/s") for name in ("bf16", "no")]
    found = [("copy", copy_ceiling(setting.device) / 1e9, "GB/s"), *products]
    rows = [f"| {name.replace('no ', 'fp32 ')} | {value:,.2f} {unit} |" for name, value, unit in found]
    return ["| ceiling | measured |", "|---|---|", *rows]


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
    """Run pytest with these arguments, its output shown. If it fails without naming a test, that is a failed test too.

    Where it takes too long, the outcomes are those that it had printed.
    """
    report, said = folder / "tests.xml", folder / "tests.txt"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-v", "--color=no", f"--junitxml={report.resolve()}", *select]
    code = _run(command, limit, cwd=ROOT, output=said)
    if report.exists():
        results = [_result(case) for case in ElementTree.parse(report).iter("testcase")]
    else:
        printed = re.findall(r"^\S+::(\S.*?) (PASSED|FAILED|ERROR|SKIPPED)", said.read_text("utf-8"), re.M)
        words = {"PASSED": "passed", "SKIPPED": "skipped"}
        results = [TestResult(name, words.get(word, "failed"), {}) for name, word in printed]
    if code != 0 and not any(result.outcome == "failed" for result in results):
        why = "they took too long" if code == TOO_LONG else f"pytest, exit code {code}"
        results.append(TestResult(why, "failed", {}))
    return results


def _result(case: ElementTree.Element) -> TestResult:
    outcomes = {"failure": "failed", "error": "failed", "skipped": "skipped"}
    outcome = next((outcomes[part.tag] for part in case if part.tag in outcomes), "passed")
    measured = {found.get("name"): found.get("value") for found in case.iter("property")}
    return TestResult(case.get("name"), outcome, measured)


def speed_of_small(setting: Setting, limit: float) -> list[str]:
    """Short text, as reviews are: most of what a padded batch computes is padding."""
    ways = ["trainer:no", "ours:no"] if setting.small else ["trainer:bf16", *RECORDED]
    return _speed(setting, limit, "small", ways, _shape(setting, "small", 128))


def speed_of_base(setting: Setting, limit: float) -> list[str]:
    """The published length, 512."""
    return _speed(setting, limit, "base", ["ours:no"] if setting.small else RECORDED, _shape(setting, "base", 512))


def _speed(setting: Setting, limit: float, name: str, ways: list[str], options: str) -> list[str]:
    file = setting.folder / f"{name}.json"
    turns = ["--rounds", "2", "--seconds", "1" if setting.small else "4", "--device", setting.device]
    command = [HERE / "throughput.py", "--json", file, *turns, f"--options={setting.text} {options}", "--ways", *ways]
    code = _run([sys.executable, *map(str, command)], limit)
    found = json.loads(file.read_text("utf-8")) if file.exists() else {}
    lines = [found["facts"], "", *found["table"]] if found else []
    if code or not found:
        raise PartFailed(
            "it took too long" if code == TOO_LONG else f"throughput.py ended with exit code {code}", lines
        )
    return lines


def kernels_of_base(setting: Setting, limit: float) -> list[str]:
    """Where the time of a step goes."""
    file, way = setting.folder / "kernels.md", "ours:no" if setting.small else "ours:bf16"
    words = [way, file, "--device", setting.device, f"--options={setting.text} {_shape(setting, 'base', 512)}"]
    code = _run([sys.executable, str(HERE / "profile_step.py"), *map(str, words)], limit)
    if code:
        raise PartFailed(f"profile_step.py ended with exit code {code}")
    return file.read_text("utf-8").splitlines()


def _shape(setting: Setting, size: str, length: int) -> str:
    """Options of pretrain.py; a machine without a GPU gets a network that it can train."""
    size, length, tokens = ("tiny", 64, 512) if setting.small else (size, length, 65536)
    shape = f"--data.max_length {length} --train.bin_tokens {length} --train.batch_tokens {tokens}"
    return f"--model.size {size} {shape}"


def run_of_small(setting: Setting, limit: float) -> list[str]:
    """scripts/pretrain.py as a user starts it. The loss must fall."""
    run, steps = setting.folder / "run", 40 if setting.small else 150
    options = (
        f"{setting.text} {_shape(setting, 'small', 128)} --train.steps {steps} --optim.warmup_steps {steps // 10} "
    )
    options += f"--tracking.log_every {steps // 20} --eval.every {steps} --eval.batches 2 --tracking.mode disabled"
    options += " --cpu" * setting.small
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
    text = f"{steps} steps, {speed:,.0f} tokens/s (median over the log lines), peak memory "
    text += f"{lines[-1]['speed/peak_memory_gb']:.2f} GB, generator loss {first:.2f} -> {last:.2f}."
    if not last < first:
        raise PartFailed("the generator learnt nothing", [text])
    return [text]


PARTS = (
    Part("Ceilings", 60, ceilings),
    Part("Tests", 240, tests),
    Part("Speed of small", 200, speed_of_small),
    Part("Speed of base", 200, speed_of_base),
    Part("Kernels of base", 90, kernels_of_base),
    Part("A run of small", 90, run_of_small),
)
SLOWER = 10  # a CPU, whose limits are only there to end what hangs
TOO_LONG = 124


def _run(command: list[str], limit: float, cwd: Path | None = None, output: Path | None = None) -> int:
    """Exit code of a command, its output shown, and written into a file, too; ``TOO_LONG`` where it had to be stopped, with all
    that it had started."""
    environment = os.environ | {"WANDB_MODE": "disabled", "PYTHONUNBUFFERED": "1"}
    with open(output or os.devnull, "w", encoding="utf-8") as file:
        out = file if output else None
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdout=out, start_new_session=True)
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return TOO_LONG
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
            if output:
                print(output.read_text("utf-8"), flush=True)


# --- the page -----------------------------------------------------------------------------------------------------------


def facts(engine: Engine) -> list[str]:
    """What the figures depend on."""
    driver = " ".join(told_by_driver("driver_version")) or "none"
    python = ".".join(map(str, sys.version_info[:3]))
    return [f"{machine(engine.device.type)}, driver {driver}, Python {python}, attention {engine.attention_path()}."]


def run_parts(
    parts: Sequence[Part], setting: Setting, lines: list[str], write: Callable[[list[str]], None]
) -> list[str]:
    """All parts; ``write`` gets the lines so far after each. Returns the titles of those that failed, with the reason."""
    failed = []
    for part in parts:
        print(f"\n--- {part.title}", flush=True)
        began = time.monotonic()
        try:
            found = part.run(setting, part.limit * (SLOWER if setting.small else 1))
        except Exception as error:  # such as a GPU that is out of memory: the other parts may still tell something
            if not isinstance(error, PartFailed):
                traceback.print_exc()
            found = [*getattr(error, "lines", []), "", f"**{one_line(error) or type(error).__name__}**"]
            failed.append(f"{part.title}: {one_line(error) or type(error).__name__}")
        lines += ["", f"### {part.title}", "", *found, "", f"Took {time.monotonic() - began:.0f} s."]
        write(lines)
    return failed


def main() -> int:
    leave_on_sigterm()
    parser = argument_parser(__doc__)
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the results into this page, too")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--text", default=TEXT, help='of pretrain.py, in quotes, such as "--data.train_files FILE"')
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        raise UserError("no NVIDIA GPU that torch can use; --device cpu shows that the suite works, make test the rest")
    if "--data.prepared" in asked.text:
        raise UserError("--text: give --data.train_files, as the parts need the text in examples of several lengths")
    if asked.markdown:
        parts_around(asked.markdown, SECTION)
    folder = Path(default_folder("gpu-suite")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    small = asked.device == "cpu"
    engine = open_engine(precision="no" if small else "auto", cpu=small, trackers=[], folder=folder)

    def write(lines: list[str]) -> None:
        (folder / "page.md").write_text("\n".join(lines) + "\n", "utf-8")
        if asked.markdown:
            write_section(asked.markdown, SECTION, lines)

    failed = run_parts(PARTS, Setting(folder, asked.device, asked.text), facts(engine), write)
    print((folder / "page.md").read_text("utf-8"))
    print(f"{'all passed' if not failed else 'FAILED: ' + '; '.join(failed)}; {folder / 'page.md'}")
    return 1 if failed else 0


if __name__ == "__main__":
    exit_with_one_line(main)
