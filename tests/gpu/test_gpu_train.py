"""The training loop on an NVIDIA GPU: the real script on real text, in this process.

What does not need a GPU by its nature runs on the CPU too, as part of every `make test`, so that these tests work on the day
that they are needed. Needs neither deepspeed nor wandb.
"""

import functools
import gc
import os
import runpy
import sys
from contextlib import contextmanager, nullcontext

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from electra_accel import run_folder
from electra_accel.cli import exit_with_one_line
from electra_accel.training.engine import OPTIMIZER_FILE, Engine
from tests.helpers import ROOT
from tests.model.test_static import NoSynchronisation
from tests.pretraining import STEPS, metrics, options, write_corpus

# Without it cuBLAS may choose its way by the free workspace, and deterministic mode refuses to work. Read when CUDA starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
TOLERANCE = 0.02  # relative, of a loss 10 steps after a resume; rounding in bf16 flips samples of the generator, and runs part


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with a corpus; the text is prepared by the first run and found again by the others."""
    folder = tmp_path_factory.mktemp("gpu_train")
    write_corpus(folder / "reference.txt")
    return folder


@pytest.fixture
def pretrain(place, monkeypatch):
    """Runs scripts/pretrain.py in this process: ``pretrain(name of the run, device, option=value, …)`` -> run folder."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    main = runpy.run_path(str(ROOT / "scripts" / "pretrain.py"))["main"]

    def call(name, device, **changed):
        AcceleratorState._reset_state(reset_partial_state=True)  # a process has one precision for life otherwise
        arguments = options("reference.txt", place / name, **changed) + ["--cpu"] * (device == "cpu")
        monkeypatch.setattr(sys, "argv", ["pretrain.py", *arguments])
        main()
        return place / name

    yield call
    AcceleratorState._reset_state(reset_partial_state=True)


@contextmanager
def deterministic_mode():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("deterministic", [True, False])
def test_a_resumed_run_arrives_where_the_undisturbed_one_does(pretrain, device, deterministic, record_property):
    """bf16, dropout on. Bit for bit in deterministic mode; else each loss after the resume within TOLERANCE."""
    name, half = f"{device}-{deterministic}", STEPS // 2
    with deterministic_mode() if deterministic else nullcontext():
        whole = pretrain(name, device, train__precision="bf16", checkpoint__every=half)
        start = whole / "checkpoints" / f"step-{half:08d}"
        resumed = pretrain(f"{name}-resumed", device, train__precision="bf16", run__resume=start)
    after = [record for record in metrics(whole) if record["step"] > half]
    again = metrics(resumed)
    assert [record["step"] for record in again] == [record["step"] for record in after]
    differences = [
        abs(mine[key] / other[key] - 1)
        for mine, other in zip(again, after)
        for key in mine
        if key.endswith(("/loss", "/generator_loss", "/discriminator_loss"))
    ]
    assert len(differences) > 3 * half
    record_property("greatest relative difference of a loss after a resume", f"{max(differences):.1e}")
    if deterministic:
        assert again == after
        for network in ("discriminator", "generator"):
            weights = f"{network}/model.safetensors"
            assert (resumed / weights).read_bytes() == (whole / weights).read_bytes()
    assert max(differences) < TOLERANCE


@pytest.mark.gpu
def test_fp16_trains_with_a_loss_scale(pretrain, record_property):
    """Steps are finite and change the weights; the loss scale is part of the checkpoint."""
    run = pretrain("fp16", "cuda", train__precision="fp16")
    train = [record for record in metrics(run) if "train/loss" in record]
    assert train[-1]["train/generator_loss"] < train[0]["train/generator_loss"] - 0.3
    saved = torch.load(run / "checkpoints" / f"step-{STEPS:08d}" / OPTIMIZER_FILE, weights_only=True)
    taken = {int(state["step"]) for state in saved["optimizer"]["state"].values()}
    assert len(taken) == 1 and STEPS // 2 < min(taken) <= STEPS  # the first ones may be skipped to find a scale
    record_property("loss scale after 20 steps in fp16", saved["scaler"]["scale"])
    assert 0 < saved["scaler"]["scale"] < float("inf")


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_the_micro_steps_of_the_loop_never_wait_for_the_device(pretrain, device, monkeypatch):
    """An alarm is on from the first forward pass of a global step to the last backward pass, figures included."""
    micro_step, clip = Engine.micro_step, Engine.clip
    watch = NoSynchronisation()
    watched = []

    def begin(engine, *, last):
        if engine.optimizer.optimizer.state and not watched:  # not in the first step: libraries load on first use
            watched.append(False)
            watch.__enter__() if device == "cpu" else torch.cuda.set_sync_debug_mode("error")
        return micro_step(engine, last=last)

    def end(engine, max_norm):
        if watched == [False]:
            watched[0] = True
            with pytest.raises((AssertionError, RuntimeError), match="wait|synchroniz"):  # the alarm is on
                torch.ones(2, device=engine.device).sum().item()
            watch.__exit__(None, None, None) if device == "cpu" else torch.cuda.set_sync_debug_mode("default")
        return clip(engine, max_norm)

    monkeypatch.setattr(Engine, "micro_step", begin)
    monkeypatch.setattr(Engine, "clip", end)
    try:
        pretrain(f"watched-{device}", device, train__precision="bf16", train__steps=5)
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert watched == [True]


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_twenty_compiled_steps_compile_once(pretrain, device, monkeypatch, record_property):
    """Evaluations and samples in between have graphs of their own; training steps share one."""
    graphs, micro_step = [], Engine.micro_step

    @contextmanager
    def counted(engine, *, last):
        with micro_step(engine, last=last):
            yield
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])

    if device == "cpu":  # tracing and its guards are the same; generating C++ would take minutes
        monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="aot_eager"))
    monkeypatch.setattr(Engine, "micro_step", counted)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    run = pretrain(f"compiled-{device}", device, train__precision="bf16", train__compile="true")
    assert len(graphs) == 2 * STEPS and graphs[0] > 0
    breaks = dict(torch._dynamo.utils.counters["graph_break"])
    record_property("graphs of a compiled run, evaluation included", graphs[-1])
    assert graphs[0] == graphs[-1], f"recompiled: {graphs}"
    assert not breaks
    assert run_folder.read_status(run)["state"] == "done"


@pytest.mark.gpu
def test_out_of_memory_says_what_to_try_and_that_helps(pretrain, place, capsys):
    """A GPU of 1 GiB and a micro-batch of 131,072 tokens; then the same run with smaller ones."""
    size = dict(train__batch_tokens=2**17, train__steps=2, eval__batches=1)
    total = torch.cuda.get_device_properties(0).total_memory
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**30 / total)
    try:
        with pytest.raises(SystemExit) as leaving:
            exit_with_one_line(lambda: pretrain("memory", "cuda", train__micro_batch_tokens=2**17, **size))
        assert leaving.value.code == 2
        said = "out of GPU memory: try --train.micro_batch_tokens 65536; the global step stays the same"
        assert capsys.readouterr().err.splitlines()[-1] == f"error: {said}"
        assert run_folder.read_status(place / "memory")["reason"] == said
        del leaving  # its traceback holds the tensors of the failed run
        gc.collect()
        run = pretrain("memory", "cuda", train__micro_batch_tokens=2**12, **size)
        assert run_folder.read_status(run)["state"] == "done"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
