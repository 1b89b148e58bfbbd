"""Gradient-disentangled embeddings under ZeRO-3 and FSDP2: one task moves the other's table by exactly nothing, the run is
that of one process, and its checkpoint goes on elsewhere."""

import sys

import pytest
import safetensors.torch

from electra_accel.engines.deepspeed import deepspeed_version
from electra_accel.engines.state import MODEL_FILE, OPTIMIZER_FILE
from tests.helpers import ROOT, run_command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ZERO3 = ["accelerate.commands.launch", "--config_file", ROOT / "accelerate_configs" / "zero3.yaml"]
ZERO3 += ["--num_processes", "2", "--main_process_port", "0"]
SHARDED = [
    pytest.param("zero3", marks=pytest.mark.skipif(deepspeed_version() is None, reason="DeepSpeed is not installed")),
    "fsdp2",
]
BASE = "generator.electra.embeddings.word_embeddings.weight"
DELTA = "discriminator.electra.embeddings.word_embeddings.delta"


def launch(folder, kind, cases, launcher=()):
    program = [*launcher, *(["-m"] if launcher else []), "tests.gdes_worker", kind, folder, *cases]
    environment = dict(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    done = run_command([sys.executable, "-m", *program], ROOT, 600, **environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """All launches, done; one process goes on from where ZeRO-3 stopped."""
    folder = tmp_path_factory.mktemp("gdes")
    launch(folder / "fsdp2", "fsdp2", ["rtd", "mlm", "joint"], TORCHRUN)
    if deepspeed_version():
        launch(folder / "zero3", "engine", ["rtd", "mlm", "joint", "warm-start"], ZERO3)
        launch(folder / "zero3", "engine", ["resumed"])
    launch(folder / "alone", "engine", ["joint", "whole"])
    return folder


def weights(folder):
    return safetensors.torch.load_file(folder / MODEL_FILE)


def difference(one, other):
    """Greatest absolute difference of a weight."""
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys() and len(mine) > 100
    return max((mine[name] - theirs[name]).abs().max().item() for name in mine)


@pytest.mark.parametrize("engine", SHARDED)
@pytest.mark.parametrize(("case", "still", "moves"), [("rtd", BASE, DELTA), ("mlm", DELTA, BASE)])
def test_neither_task_moves_the_others_table(place, engine, case, still, moves):
    start, last = (weights(place / engine / case / when) for when in ("start", "last"))
    assert last[still].equal(start[still]) and not last[moves].equal(start[moves])
    moments = safetensors.torch.load_file(place / engine / case / "last" / OPTIMIZER_FILE)
    assert not moments[f"{still}/exp_avg"].any() and moments[f"{moves}/exp_avg"].any()


@pytest.mark.parametrize("engine", SHARDED)
def test_the_run_is_that_of_one_process(place, engine):
    assert difference(place / engine / "joint" / "start", place / "alone" / "joint" / "start") == 0
    assert difference(place / engine / "joint" / "last", place / "alone" / "joint" / "last") < 2e-6


@pytest.mark.skipif(deepspeed_version() is None, reason="DeepSpeed is not installed")
def test_a_run_goes_on_under_another_engine(place):
    assert difference(place / "zero3" / "resumed" / "last", place / "alone" / "whole" / "last") < 5e-6


@pytest.mark.skipif(deepspeed_version() is None, reason="DeepSpeed is not installed")
def test_frozen_embeddings_stay_while_the_layers_learn(place):
    start, last = (weights(place / "zero3" / "warm-start" / when) for when in ("start", "last"))
    still = {name for name in start if last[name].equal(start[name])}
    assert still == {name for name in start if ".embeddings." in name}
