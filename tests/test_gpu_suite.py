"""The parts of scripts/benchmarks/gpu_suite.py, run for real at tiny size on the CPU."""

import json
import sys
import time

import pytest
import torch
from accelerate.state import AcceleratorState

from electra_accel.engines.open import open_engine
from tests.helpers import benchmark, run_in_process
from tests.pretraining_runs import write_corpus

gpu_suite = benchmark("gpu_suite")
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
    done = run_in_process("benchmarks/gpu_suite.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no NVIDIA GPU ") and done.stderr.count("\n") == 1


@pytest.mark.slow
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
    file.write_text("import time\ndef test_good(): pass\ndef test_slow(): time.sleep(60)\n")
    assert [(each.name, each.outcome) for each in gpu_suite.run_tests([str(file)], tmp_path, 30)] == [
        ("test_good", "passed"),
        ("they took too long", "failed"),
    ]
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


@pytest.mark.slow
def test_the_speed_of_both_ways_is_told(setting):
    lines = gpu_suite.speed_of_small(setting, 300)
    assert "Ceiling of a large matrix product" in lines[0]
    assert [line.split(" | ")[1] for line in lines[4:]] == ["fp32", "fp32"]
    slow, fast = json.loads((setting.folder / "small.json").read_text())["rows"]
    assert (slow["way"], fast["way"]) == ("trainer:no", "ours:no")
    assert slow["tokens_per_second"] > 0 and 0 < fast["mfu"] < 1 and 0 <= fast["waiting"] < 1
    assert slow["operators"] > 400 and fast["operators"] > 400


@pytest.mark.slow
def test_the_longest_operators_are_shown(setting):
    lines = gpu_suite.kernels_of_base(setting, 300)
    assert len(lines) == 12 and any("aten::mm" in line or "aten::addmm" in line for line in lines)


@pytest.mark.slow
def test_a_run_must_learn(setting, monkeypatch):
    (told,) = gpu_suite.run_of_small(setting, 300)
    assert told.startswith("40 steps, ") and "generator loss " in told
    with pytest.raises(PartFailed, match="exit code 2"):
        gpu_suite.run_of_small(setting._replace(text="--data.train_files=missing.txt"), 300)


def test_a_part_that_fails_is_named_and_the_others_go_on(setting, capfd):
    """What was found until then is written also while the suite goes on."""
    written = []

    def fails(setting, limit):
        raise PartFailed("it is broken", ["| half | of it |"])

    def breaks(setting, limit):
        raise RuntimeError("CUDA out of memory\nmore")

    def looks(setting, limit):
        return ["| all | of it |"]

    parts = [Part("One", 1, fails), Part("Two", 1, breaks), Part("Three", 1, looks)]
    failed = gpu_suite.run_parts(parts, setting, ["a machine"], lambda lines: written.append("\n".join(lines)))
    assert failed == ["One: it is broken", "Two: CUDA out of memory more"]
    assert (
        written[0].startswith("a machine\n\n### One\n\n| half | of it |\n\n**it is broken**")
        and "Two" not in written[0]
    )
    assert "| half | of it |" in written[2] and "### Three\n\n| all | of it |" in written[2]
    assert "RuntimeError" in capfd.readouterr().err


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    child = (
        f"import time; open({str(tmp_path / 'started')!r}, 'w'); time.sleep(12); open({str(tmp_path / 'alive')!r}, 'w')"
    )
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"]
    assert gpu_suite._run(command, limit=8.0) == gpu_suite.TOO_LONG
    assert (tmp_path / "started").exists()
    time.sleep(6)
    assert not (tmp_path / "alive").exists()


def test_text_that_is_prepared_already_is_refused():
    done = run_in_process("benchmarks/gpu_suite.py", "--device", "cpu", "--text=--data.prepared x")
    assert done.returncode == 2 and done.stderr.startswith("error: --text: give --data.train_files")


def test_the_machine_is_described(tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    (line,) = gpu_suite.facts(open_engine(precision="no", cpu=True, trackers=[], folder=tmp_path))
    AcceleratorState._reset_state(reset_partial_state=True)
    assert f"torch {torch.__version__}" in line and "attention block-masked SDPA" in line and "commit " in line
