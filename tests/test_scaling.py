"""The formulas of docs/scaling.md: against tensors that are really allocated, and against the page itself."""

import re
import subprocess

import pytest

from electra_accel.engines.deepspeed import deepspeed_version
from tests.helpers import ROOT, run_in_process, run_script

SCRIPT = "benchmarks/scaling.py"


@pytest.fixture(scope="module")
def printed() -> list[str]:
    result = run_in_process(SCRIPT)
    assert result.returncode == 0, result.stderr
    return [line for line in result.stdout.splitlines() if line.startswith("|")]


def test_the_page_holds_what_the_script_prints(printed):
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8").splitlines()
    assert len(printed) > 20
    assert [line for line in printed if line not in page] == []


def test_gpus_beyond_the_bins_of_a_step_get_no_work_and_save_no_time(printed):
    rows = {row[0]: row for row in ([cell.strip() for cell in line.split("|")[1:-1]] for line in printed)}
    assert rows["256"][1:4] == ["1 x 1", "0", rows["1,024"][3]]
    assert rows["1,024"][2] == "768"
    assert float(rows["2"][4]) == pytest.approx(478, abs=1)  # half of the ring's limit, 8 bytes a parameter
    assert float(rows["1"][4]) == 0


def test_one_process_holds_what_the_formula_says():
    result = run_script(f"scripts/{SCRIPT}", "--measure", "tiny", OMP_NUM_THREADS="1", timeout=120)
    assert result.returncode == 0, result.stderr
    assert_as_computed(result.stdout, "single", "bf16")


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "precision"), [("ddp", "no"), ("zero2", "bf16")])
def test_two_processes_hold_what_the_formula_says(engine, precision):
    """ZeRO's bucket is the one that the engine sets."""
    if engine == "zero2" and deepspeed_version() is None:
        pytest.skip("DeepSpeed is not installed")
    launch = ["-m", "accelerate.commands.launch", "--config_file", f"accelerate_configs/{engine}.yaml"]
    launch += [
        "--num_processes",
        "2",
        "--main_process_port",
        "0",
        f"scripts/{SCRIPT}",
        "--measure",
        "tiny",
        "--precision",
        precision,
    ]
    how = dict(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="", begin=subprocess.Popen)  # with an interpreter's real end
    how |= dict(PYTHONFAULTHANDLER="1")  # it hung once, at its end
    result = run_script(*launch, **how, timeout=240)
    assert result.returncode == 0, result.stderr
    assert_as_computed(result.stdout, engine, "fp32" if precision == "no" else precision)


def assert_as_computed(printed: str, engine: str, precision: str) -> None:
    """``printed``: a row of "Measured" on the page, and whatever libraries say besides."""
    (row,) = (line for line in printed.splitlines() if line.startswith(f"| {engine}"))
    name, found_precision, size, measured, formula, _, activations = re.findall(r"[^|\s]+", row)
    assert (name, found_precision, size) == (engine, precision, "tiny")
    assert float(measured) == pytest.approx(float(formula), rel=0.02)
    if precision == "bf16":  # which the estimate is for
        # On a GPU, that is. On a CPU attention keeps its four tensors in fp32, and its output in bf16 besides: 10 bytes times
        # hidden size more, where the estimate has 28 and 4 times the inner size, which is 4 times the hidden one.
        assert 0.8 < float(activations) / (1 + 10 / (28 + 4 * 4)) < 1.25


def test_a_batch_that_is_not_a_multiple_of_the_bin_is_one_line():
    result = run_in_process(SCRIPT, "--batch_tokens", "1000")
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].startswith("error: --batch_tokens 1000 ")
