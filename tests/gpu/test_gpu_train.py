"""The training loop on an NVIDIA GPU: the real script on real text, run in this process.

What does not need a GPU by its nature runs on the CPU too, in every `make test`, so that these tests work on the day that they
are needed. Needs neither deepspeed nor wandb.
"""

import functools
import gc
import os
import runpy
import sys
from contextlib import ExitStack, contextmanager, nullcontext

import pytest
import safetensors.torch
import torch
from accelerate.state import AcceleratorState
from torch import nn

from electra_accel.cli import exit_with_one_line
from electra_accel.engines.engine import Engine
from electra_accel.engines.state import OPTIMIZER_FILE
from electra_accel.runs import run_folder
from tests.helpers import ROOT
from tests.model.test_static import no_synchronisation as no_synchronisation_on_cpu
from tests.pretraining_runs import STEPS, metrics, options, write_corpus

# Without it cuBLAS chooses its way by the free workspace, and deterministic mode refuses to work. Read when CUDA starts.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
# Of a loss within 10 steps of a resume: rounding flips samples of the generator, then two runs part slowly.
TOLERANCE = 0.02


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
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # far faster for networks this small when something else uses the machine

    def call(name, device, **changed):
        AcceleratorState._reset_state(reset_partial_state=True)  # it would keep the precision of the process' first run
        arguments = options("reference.txt", place / name, **changed) + ["--cpu"] * (device == "cpu")
        monkeypatch.setattr(sys, "argv", ["pretrain.py", *arguments])
        main()
        return place / name

    yield call
    torch.set_num_threads(threads)
    AcceleratorState._reset_state(reset_partial_state=True)


@contextmanager
def deterministic_mode():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def no_synchronisation(device):
    """An error wherever the host waits for the GPU; on the CPU, wherever it would."""
    if device == "cpu":
        with no_synchronisation_on_cpu():
            yield
    else:
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("device", "precision", "deterministic"),
    [
        ("cpu", "no", True),
        pytest.param("cuda", "bf16", True, marks=pytest.mark.gpu),
        pytest.param("cuda", "bf16", False, marks=pytest.mark.gpu),
        pytest.param("cuda", "fp16", False, marks=pytest.mark.gpu),
    ],
)
def test_a_resumed_run_arrives_where_the_undisturbed_one_does(
    pretrain, device, precision, deterministic, record_property
):
    """Dropout is on. Bit for bit in deterministic mode; else each loss after the resume within TOLERANCE."""
    steps = STEPS if device == "cuda" else 4
    name, half = f"{device}-{precision}-{deterministic}", steps // 2
    common = dict(train__precision=precision, train__steps=steps, optim__warmup_steps=2, eval__batches=1)
    with deterministic_mode() if deterministic else nullcontext():
        whole = pretrain(name, device, checkpoint__every=half, **common)
        start = whole / "checkpoints" / f"step-{half:08d}"
        resumed = pretrain(f"{name}-resumed", device, run__resume=start, **common)
    after, again = ([record for record in metrics(run) if record["step"] > half] for run in (whole, resumed))
    assert [record["step"] for record in again] == [record["step"] for record in after]
    differences = [
        abs(mine[key] / other[key] - 1)
        for mine, other in zip(again, after)
        for key in mine
        if key.endswith(("/loss", "/generator_loss", "/discriminator_loss"))
    ]
    assert len(differences) >= 3 * half
    how = f"{precision}{', deterministic mode' if deterministic else ''}"
    record_property(f"greatest relative difference of a loss after a resume ({how})", f"{max(differences):.1e}")
    assert max(differences) < TOLERANCE
    if deterministic:
        assert again == after
        for network in ("discriminator", "generator"):
            weights = f"{network}/model.safetensors"
            assert (resumed / weights).read_bytes() == (whole / weights).read_bytes()


@pytest.mark.gpu
def test_fp16_trains_with_a_loss_scale(pretrain, record_property):
    """Steps are finite and change the weights; the loss scale is part of the checkpoint."""
    run = pretrain("fp16", "cuda", train__precision="fp16")
    train = [record for record in metrics(run) if "train/loss" in record]
    assert train[-1]["train/generator_loss"] < train[0]["train/generator_loss"] - 0.3
    saved = safetensors.torch.load_file(run / "checkpoints" / f"step-{STEPS:08d}" / OPTIMIZER_FILE)
    steps = next(value for name, value in saved.items() if name.endswith("/step")).item()
    assert STEPS // 2 < steps <= STEPS  # the first may be skipped until the scale fits
    scale = saved["loss_scale"].item()
    record_property(f"loss scale after {STEPS} steps in fp16", f"{scale:g}")
    assert 0 < scale < float("inf")


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_the_micro_steps_of_the_loop_never_wait_for_the_device(pretrain, device, monkeypatch):
    """From the first forward pass of a global step to its last backward pass, seeds and figures included."""
    micro_step, step = Engine.micro_step, Engine.step
    watched = []

    def watched_micro_step(engine, *, last):
        if engine.optimizer.optimizer.state and not watched:  # from the second step on: libraries load on first use
            alarm.enter_context(no_synchronisation(device))
            watched.append("begun")
        return micro_step(engine, last=last)

    def step_after_the_watch(engine, learning_rate):
        if watched == ["begun"]:
            with pytest.raises((AssertionError, RuntimeError), match="waits for|synchroniz"):  # the alarm was on
                torch.ones(2, device=engine.device).sum().item()
            alarm.close()
            watched.append("ended")
        return step(engine, learning_rate)

    monkeypatch.setattr(Engine, "micro_step", watched_micro_step)
    monkeypatch.setattr(Engine, "step", step_after_the_watch)
    with ExitStack() as alarm:
        pretrain(f"watched-{device}", device, train__precision="bf16", train__steps=5)
    assert watched == ["begun", "ended"]


@pytest.mark.parametrize("scope", ["layers", "model"])
@pytest.mark.parametrize(("device", "steps"), [("cpu", 4), pytest.param("cuda", 20, marks=pytest.mark.gpu)])
def test_compiled_steps_compile_once(pretrain, device, steps, scope, monkeypatch, record_property):
    """Evaluations and samples in between have graphs of their own; all training steps share theirs, without a break."""
    stats, micro_step = torch._dynamo.utils.counters, Engine.micro_step
    graphs = []

    @contextmanager
    def counted(engine, *, last):
        with micro_step(engine, last=last):
            yield
        graphs.append(stats["stats"]["unique_graphs"])

    monkeypatch.setattr(Engine, "micro_step", counted)
    if device == "cpu":  # tracing and its guards are the same; generating C++ would take minutes
        monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend="eager"))
    torch._dynamo.reset()
    stats.clear()
    every = steps // 2  # an evaluation and samples between training steps
    evaluation = dict(eval__every=every, tracking__samples_every=every, eval__batches=1)
    changed = dict(train__precision="bf16", train__steps=steps, optim__warmup_steps=2, **evaluation)
    run = pretrain(f"compiled-{scope}-{device}", device, train__compile=scope, **changed)
    assert run_folder.read_status(run)["state"] == "done"
    # Both passes of an evaluation, samples and training; two widths, and another dtype in the first layer of a network. That is
    # half as many as there are layers.
    assert len(graphs) == 4 * steps and 0 < graphs[0] <= (8 if scope == "layers" else 4)
    assert set(graphs) == {graphs[0]}, "recompiled"
    assert not stats["graph_break"]
    record_property("graphs of a compiled run, evaluation and samples included", stats["stats"]["unique_graphs"])


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16", "no"])
def test_recorded_kernels_train_as_kernels_sent_one_by_one_do(pretrain, precision, capsys, record_property):
    """Dropout, several micro-batches and an evaluation in between; the losses within TOLERANCE."""
    common = dict(train__precision=precision, train__steps=12, optim__warmup_steps=2, eval__every=3, eval__batches=2)
    losses = {}  # of training, and held out: a graph that reads old weights would show there
    for name, how in (("plain", "off"), ("recorded", "auto")):
        run = pretrain(f"{precision}-{name}", "cuda", train__cuda_graphs=how, **common)
        logged = [record for record in metrics(run) if "train/loss" in record or "eval/generator_loss" in record]
        losses[name] = [record.get("train/loss") or record["eval/generator_loss"] for record in logged]
    assert "one by one" not in capsys.readouterr().out, "it could not be recorded, or gave other numbers"
    differences = [abs(mine / other - 1) for mine, other in zip(losses["recorded"], losses["plain"], strict=True)]
    record_property(
        f"greatest relative difference of a loss of recorded kernels ({precision})", f"{max(differences):.1e}"
    )
    assert max(differences) < TOLERANCE


@pytest.mark.gpu
def test_out_of_memory_says_what_to_try_and_that_helps(pretrain, place, capsys):
    """On 1 GiB: a micro-batch of 131,072 tokens; then the same run with smaller ones."""
    size = dict(train__batch_tokens=2**17, train__steps=2, optim__warmup_steps=1, eval__batches=1)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**30 / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(SystemExit) as leaving:
            exit_with_one_line(lambda: pretrain("memory", "cuda", train__micro_batch_tokens=2**17, **size))
        assert leaving.value.code == 2
        said = "out of GPU memory: try --train.micro_batch_tokens 65536; the global step stays the same"
        assert capsys.readouterr().err.splitlines()[-1] == f"error: {said}"
        assert run_folder.read_status(place / "memory")["reason"] == said
        gc.collect()  # what the failed run held
        run = pretrain("memory", "cuda", train__micro_batch_tokens=2**12, **size)
        assert run_folder.read_status(run)["state"] == "done"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
