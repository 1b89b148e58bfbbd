"""The parts of scripts/gpu_check.py, run for real at tiny size on the CPU."""

import importlib.util

import pytest
import torch
from accelerate.state import AcceleratorState

from electra_accel.engines.open import open_engine
from tests.helpers import ROOT, run_script
from tests.pretraining_runs import write_corpus

spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "scripts" / "gpu_check.py")
gpu_check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gpu_check)

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
FAST = gpu_check.Speed("tiny", 8192, 100, 45.0, 1_234_567.0, 0.1234, 1.5, 8.9, 6.1)


def test_without_a_gpu_it_says_so_in_one_line():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = run_script("scripts/gpu_check.py", timeout=100)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no NVIDIA GPU ") and done.stderr.count("\n") == 1


def test_outcomes_and_figures_of_tests_are_read_back(tmp_path):
    file = tmp_path / "test_examples.py"
    file.write_text(EXAMPLES)
    results = {result.name: result for result in gpu_check.run_tests([str(file)])}
    assert {name: result.outcome for name, result in results.items()} == {
        "test_good": "passed",
        "test_bad": "failed",
        "test_without_its_fixture": "failed",
        "test_elsewhere": "skipped",
    }
    assert results["test_good"].measured == {"greatest difference": "1e-3"}
    assert gpu_check.failures(list(results.values()), {}) == ["test test_bad", "test test_without_its_fixture"]


def test_nothing_run_is_no_pass(tmp_path):
    skipped = gpu_check.TestResult("test_elsewhere", "skipped", {})
    assert gpu_check.failures([skipped], {"tiny": FAST}) == ["no test passed"]
    (broken,) = gpu_check.run_tests([str(tmp_path / "missing.py")])
    assert broken.outcome == "failed"


def test_a_size_is_measured_in_about_the_given_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # prepared text is put there
    write_corpus(tmp_path / "reference.txt")
    options = [
        "--data.train_files=reference.txt",
        "--data.max_length=64",
        "--tokenizer.train_vocab_size=500",
        "--train.batch_tokens=256",
        "--cpu",
    ]
    speed = gpu_check.measure("tiny", tmp_path, seconds=5.0, options=options)
    assert (speed.size, speed.batch_tokens) == ("tiny", 256)
    assert speed.steps >= gpu_check.WARM_UP_STEPS
    assert speed.steps == gpu_check.WARM_UP_STEPS or 1 < speed.seconds < 50  # others use the machine too
    assert speed.last_loss < speed.first_loss
    assert 0.6 < speed.tokens_per_second * speed.seconds / (speed.steps * 256) <= 1.1  # bins are nearly full
    assert speed.mfu is None and 0.1 < speed.peak_memory_gb < 10
    assert gpu_check.measure("tiny", tmp_path, seconds=5.0, options=["--data.train_files=missing.txt"]) is None


def test_the_machine_is_described(tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    facts = dict(gpu_check.machine(open_engine(precision="no", cpu=True, trackers=[], folder=tmp_path)))
    AcceleratorState._reset_state(reset_partial_state=True)
    assert facts["torch"] == torch.__version__
    assert (facts["card"], facts["precision"], facts["attention"]) == ("none", "fp32", "block-masked SDPA")
    assert all(facts.values())


def test_the_page_keeps_its_words_and_changes_its_figures(tmp_path):
    tests = [gpu_check.TestResult("test_good", "passed", {"greatest difference": "1e-3"})]
    text = gpu_check.page([("card", "NVIDIA A100")], tests, {"tiny": FAST, "small": None})
    assert "| card | NVIDIA A100 |" in text and "| greatest difference | 1e-3 |" in text
    assert "| tests | 1 passed, 0 failed, 0 skipped |" in text
    assert "| result | FAILED: pre-training small |" in text
    assert "| tiny | 8,192 | 100 | 45 | 1,234,567 | 12.3% | 1.50 GB | 8.90 -> 6.10 |" in text
    file = tmp_path / "gpu.md"
    file.write_text(f"# On a GPU\n\nWords.\n\n{gpu_check.MARKER}\n\nnot yet run on a GPU\n")
    gpu_check.write_page(file, text)
    gpu_check.write_page(file, text)
    assert file.read_text() == f"# On a GPU\n\nWords.\n\n{gpu_check.MARKER}\n\n{text}"
    assert (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8").count(gpu_check.MARKER) == 1
