"""The parts of scripts/gpu_suite.py, run for real at tiny size on the CPU."""

import importlib.util
import json
import sys
import time

import pytest
import torch
from accelerate.state import AcceleratorState

from electra_accel.engines.open import open_engine
from tests.helpers import ROOT, run_script
from tests.pretraining_runs import write_corpus

spec = importlib.util.spec_from_file_location("gpu_suite", ROOT / "scripts" / "gpu_suite.py")
gpu_suite = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu_suite)
Part, PartFailed = gpu_suite.Part, gpu_suite.PartFailed

EXAMPLES = """
import pytest
def test_good(record_property): record_property("greatest difference", "1e-3")
def test_bad(): assert False
@pytest.fixture
def broken(): raise RuntimeError
def test_without_its_fixture(broken): pass
@pytest.mark.skip(reason="another card")
def test_elsewhere(): pass
"""


@pytest.fixture
def setting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # prepared text is put there
    write_corpus(tmp_path / "text.txt")
    return gpu_suite.Setting(tmp_path, "cpu", "--data.train_files=text.txt --tokenizer.train_vocab_size=500")


def test_without_a_gpu_it_says_so_in_one_line():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = run_script("scripts/gpu_suite.py", timeout=100)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no NVIDIA GPU ") and done.stderr.count("\n") == 1


def test_outcomes_and_figures_of_tests_are_read_back(tmp_path, setting, monkeypatch):
    file = tmp_path / "test_examples.py"
    file.write_text(EXAMPLES)
    results = {result.name: result for result in gpu_suite.run_tests([str(file)], tmp_path, 100)}
    assert {name: result.outcome for name, result in results.items()} == {
        "test_good": "passed",
        "test_bad": "failed",
        "test_without_its_fixture": "failed",
        "test_elsewhere": "skipped",
    }
    assert results["test_good"].measured == {"greatest difference": "1e-3"}
    (broken,) = gpu_suite.run_tests([str(tmp_path / "missing.py")], tmp_path, 100)
    assert broken.outcome == "failed"
    for found, why in ((results, "failed: test_bad; test_without_its_fixture"), ({}, "no test passed")):
        monkeypatch.setattr(gpu_suite, "run_tests", lambda *_, found=found: list(found.values()))
        with pytest.raises(PartFailed, match=why):
            gpu_suite.tests(setting, 100)


def test_ceilings_have_rows(setting):
    assert [line.split(" | ")[0] for line in gpu_suite.ceilings(setting, 60)[2:]] == [
        "| copy",
        "| bf16 product",
        "| fp32 product",
    ]


def test_the_speed_of_both_ways_is_told(setting):
    lines = gpu_suite.speed_of_small(setting, 300)
    assert "Ceiling of a large matrix product" in lines[0]
    assert [line.split(" | ")[1] for line in lines[4:]] == ["fp32", "fp32"]
    slow, fast = json.loads((setting.folder / "small.json").read_text())["rows"]
    assert (slow["way"], fast["way"]) == ("trainer:no", "ours:no")
    assert slow["tokens_per_second"] > 0 and 0 < fast["mfu"] < 1 and 0 <= fast["waiting"] < 1
    assert slow["operators"] > 400 and fast["operators"] > 400


def test_the_longest_operators_are_shown(setting):
    lines = gpu_suite.kernels_of_base(setting, 300)
    assert len(lines) == 12 and any("aten::mm" in line or "aten::addmm" in line for line in lines)


def test_a_run_must_learn(setting, monkeypatch):
    (told,) = gpu_suite.run_of_small(setting, 300)
    assert told.startswith("40 steps, ") and "generator loss " in told
    with pytest.raises(PartFailed, match="exit code 2"):
        gpu_suite.run_of_small(setting._replace(text="--data.train_files=missing.txt"), 300)


def test_a_part_that_fails_is_named_and_the_others_go_on(tmp_path, setting):
    """The page has what was found until then, also while the suite goes on."""
    seen, page = [], tmp_path / "gpu.md"
    page.write_text(f"# On a GPU\n\n{gpu_suite.MARKER}\n\nnot yet run\n")

    def fails(setting, limit):
        raise PartFailed("it is broken", ["| half | of it |"])

    def looks(setting, limit):
        seen.append(page.read_text())
        return ["| all | of it |"]

    failed = gpu_suite.run_parts([Part("One", 1, fails), Part("Two", 1, looks)], setting, ["| a | machine |"], [page])
    assert failed == ["One: it is broken"]
    assert "| half | of it |" in seen[0] and "**it is broken**" in seen[0] and "Two" not in seen[0]
    text = page.read_text()
    assert text.startswith(f"# On a GPU\n\n{gpu_suite.MARKER}\n\n| a | machine |\n") and "| all | of it |" in text
    assert "not yet run" not in text
    assert (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8").count(gpu_suite.MARKER) == 1


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    child = f"import time; time.sleep(4); open({str(tmp_path / 'alive')!r}, 'w')"
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"]
    assert gpu_suite._run(command, limit=1.0) == 124
    time.sleep(4)
    assert not (tmp_path / "alive").exists()


def test_the_machine_is_described(tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    lines = gpu_suite.machine(open_engine(precision="no", cpu=True, trackers=[], folder=tmp_path))
    AcceleratorState._reset_state(reset_partial_state=True)
    assert f"| torch | {torch.__version__} |" in lines and "| card | none |" in lines
    assert "| attention | block-masked SDPA |" in lines
