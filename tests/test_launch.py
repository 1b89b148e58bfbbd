"""Before the first step: the device a run gets, what --dry_run finds out, and who speaks when several processes fail."""

import pytest
import torch

from electra_accel.engines.hardware import unusable_gpu
from tests.helpers import ROOT, run_script
from tests.pretraining_runs import options, run_here, write_corpus

OLD_DRIVER = "#!/bin/sh\necho 'Tesla P100-PCIE-16GB, 450.80.02'\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launch")
    write_corpus(folder / "reference.txt", most=400)
    return folder


@pytest.fixture
def old_driver(tmp_path, monkeypatch):
    """A machine whose GPU this torch cannot use: nvidia-smi finds it, CUDA does not."""
    (tmp_path / "nvidia-smi").write_text(OLD_DRIVER)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_gpu_that_torch_cannot_use_is_named_with_driver_cuda_and_remedy(old_driver, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")  # as in a CUDA build
    line = unusable_gpu(cpu_requested=False)
    for words in ("Tesla P100", "driver 450.80.02", "CUDA 13.0", "update the driver", "--cpu"):
        assert words in line
    assert unusable_gpu(cpu_requested=True) is None
    for hidden in ("", "-1", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert unusable_gpu(cpu_requested=False) is None, hidden
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert "CUDA_VISIBLE_DEVICES=7" in unusable_gpu(cpu_requested=False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "CPU build" in unusable_gpu(cpu_requested=False)


def test_a_run_stops_where_the_gpu_cannot_be_used_and_a_dry_run_warns(old_driver, place, monkeypatch, capfd):
    code, out, err = run_here(options("reference.txt", "runs/new"), place, monkeypatch, capfd)
    assert code == 2 and err.count("\n") == 1 and "driver 450.80.02" in err
    code, out, err = run_here([*options("reference.txt", "runs/new"), "--dry_run"], place, monkeypatch, capfd)
    assert code == 0, err
    assert "warning: " in out and "Tesla P100" in out
    code, out, err = run_here([*options("reference.txt", "runs/new"), "--dry_run", "--cpu"], place, monkeypatch, capfd)
    assert code == 0, err
    assert "Tesla" not in out and "planned   for the CPU\n" in out
    assert not (place / "runs").exists()


def test_a_dry_run_says_what_would_happen(place, monkeypatch, capfd):
    monkeypatch.setenv("WORLD_SIZE", "2")
    epochs = {"train__steps": None, "train__epochs": 0.1, "optim__warmup_steps": 2, "eval__batches": 1}
    arguments = [*options("reference.txt", "runs/new", **epochs), "--dry_run", "--cpu"]
    code, out, err = run_here(arguments, place, monkeypatch, capfd)
    assert code == 0, err
    for words in ("2 processes x 2 micro-batches x 4 bins", "W&B offline", "tracking.samples", "runs/new, a new run"):
        assert words in out
    assert out.count("optim.warmup_steps 2 is more than half of the 3 steps") == 1, out
    (held_out,) = [line for line in out.splitlines() if line.startswith("held out  ")]
    assert "examples, " in held_out and held_out.endswith(" are used (eval.batches)")
    loss = "loss 1 x generator + 10 x discriminator + 10 x corrective"
    rates = "learning rate 0.002 for matrices, 0.001 for the rest; 2 steps of warmup"
    assert f"learning  Muon, {rates}; {loss}; model.sharing none\n" in out
    assert out.splitlines()[-1] == "dry run: nothing was trained"
    assert not (place / "runs").exists()


MISTAKES = {
    "a folder of something else": ({"run__dir": "other"}, "run.dir other"),
    "a folder under a file": ({"run__dir": "reference.txt/run"}, "reference.txt"),
    "fp16 on a CPU": ({"train__precision": "fp16"}, "fp16"),
    "the launcher disagrees": ({"train__precision": "no"}, "accelerate launch says mixed_precision bf16"),
    "an unknown tracker": ({"tracking__trackers": "json"}, "tracking.trackers: json is none of aim, "),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_dry_run_finds_what_would_stop_the_run(place, name, monkeypatch, capfd):
    changed, words = MISTAKES[name]
    (place / "other").mkdir(exist_ok=True)
    (place / "other" / "notes.txt").write_text("not a run")
    if "launcher" in name:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    arguments = [*options("reference.txt", "runs/new", **changed), "--dry_run", "--cpu"]
    code, out, err = run_here(arguments, place, monkeypatch, capfd)
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and words in err, err


def test_a_dry_run_finds_that_the_disk_is_too_small(place, monkeypatch, capfd):
    arguments = [*options("reference.txt", "runs/new", checkpoint__keep=10**9), "--dry_run", "--cpu"]
    code, out, err = run_here(arguments, place, monkeypatch, capfd)
    assert code == 2 and "are free, the run needs about" in err
    assert not (place / "runs").exists()


TWO = """
import sys
from pathlib import Path
from electra_accel.cli import exit_with_one_line
from electra_accel.errors import OneProcessError, UserError
from electra_accel.engines.open import open_engine
from electra_accel.runs.environment import require_equal_data

def lacks():
    if engine.rank == 1:
        raise UserError("no such file: only here")

def main():
    global engine
    engine = open_engine(precision="no", cpu=True, trackers=[], folder=Path(sys.argv[1]))
    try:
        engine.together(lacks)
    except UserError as error:
        Path(sys.argv[1], f"met-{engine.rank}").write_text(str(error))
    require_equal_data(engine, "the same")
    require_equal_data(engine, f"data of process {engine.rank}")

exit_with_one_line(main)
"""


def test_two_processes_fail_together_and_one_speaks(tmp_path):
    """What only one of them has met reaches both; data that differs stops both; stderr has one line of ours."""
    (tmp_path / "two.py").write_text(TWO)
    config = ROOT / "accelerate_configs" / "ddp.yaml"
    launch = ["-m", "accelerate.commands.launch", "--config_file", config, "--num_processes", "2"]
    result = run_script(*launch, "--main_process_port", "0", tmp_path / "two.py", tmp_path, OMP_NUM_THREADS="1")
    assert result.returncode != 0
    assert [(tmp_path / f"met-{rank}").read_text() for rank in (0, 1)] == ["no such file: only here"] * 2
    ours = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(ours) == 1, result.stderr
    for words in ("differs between hosts", "data of process 0", "data of process 1"):
        assert words in ours[0]


LEAVING = """
import atexit, sys
from pathlib import Path
import torch
from electra_accel.cli import exit_with_one_line
from electra_accel.engines.open import open_engine

def main():
    engine = open_engine(precision="no", cpu=True, trackers=[], folder=Path(sys.argv[1]))
    is_open = torch.distributed.is_initialized
    atexit.register(lambda: Path(sys.argv[1], f"left-{engine.rank}").write_text(f"{is_open()}"))
    if engine.rank == 1 and sys.argv[2] == "fail":
        raise RuntimeError("a bug")

exit_with_one_line(main)
"""


@pytest.mark.parametrize("ending", ["well", "fail"])
def test_processes_leave_together_and_nobody_waits_for_one_that_failed(tmp_path, ending):
    (tmp_path / "leaving.py").write_text(LEAVING)
    config = ROOT / "accelerate_configs" / "ddp.yaml"
    launch = ["-m", "accelerate.commands.launch", "--config_file", config, "--num_processes", "2"]
    words = ["--main_process_port", "0", tmp_path / "leaving.py", tmp_path, ending]
    result = run_script(*launch, *words, timeout=100, OMP_NUM_THREADS="1")
    left = {path.name: path.read_text() for path in tmp_path.glob("left-*")}
    if ending == "well":
        assert result.returncode == 0 and left == {"left-0": "False", "left-1": "False"}, result.stderr
    else:
        assert result.returncode == 1 and "RuntimeError: a bug" in result.stderr and left["left-1"] == "True"
