"""Checkpoints hold whatever an optimizer keeps for a parameter, under every engine, and say of which kind it is."""

import sys

import pytest
import safetensors.torch
import torch
from torch import nn

from electra_accel.engines.deepspeed import deepspeed_version
from electra_accel.engines.state import MODEL_FILE, OPTIMIZER_FILE, Parts, load_optimizer, load_weights
from electra_accel.errors import UserError
from tests.engines.saving import save_state
from tests.engines.state_worker import Factored, TwoKinds
from tests.helpers import ROOT, run_command

ACCELERATE = ["accelerate.commands.launch", "--num_processes", "2", "--main_process_port", "0", "--config_file"]
ENGINES = {
    "single": [],
    "ddp": [*ACCELERATE, ROOT / "accelerate_configs" / "ddp.yaml", "-m"],
    "fsdp2": ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"],
    "zero2": [*ACCELERATE, ROOT / "accelerate_configs" / "zero2.yaml", "-m"],
    "zero3": [*ACCELERATE, ROOT / "accelerate_configs" / "zero3.yaml", "-m"],
}
ZERO = pytest.mark.skipif(deepspeed_version() is None, reason="DeepSpeed is not installed")
# Under ZeRO an optimizer sees flat parts, not matrices; only Muon gathers them.
OF_ZERO, ALL = ["AdamW", "SGD", "Muon"], ["AdamW", "SGD", "Muon", "TwoKinds", "Factored"]


def build(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    more = {"momentum": 0.9, "lr": 0.001} if kind is torch.optim.SGD else {}
    return model, kind(model.parameters(), **more)


def train(model, optimizer, steps):
    for step in steps:
        torch.manual_seed(step)
        model(torch.randn(8, 5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, TwoKinds, Factored])
def test_a_run_goes_on_with_the_same_bits_under_any_optimizer(kind, tmp_path):
    model, optimizer = build(kind)
    train(model, optimizer, range(3))
    save_state(tmp_path, Parts(model, optimizer), kind.__name__)
    train(model, optimizer, range(3, 6))
    resumed, fresh = build(kind)
    load_weights(resumed, tmp_path)
    load_optimizer(tmp_path, Parts(resumed, fresh), kind.__name__)
    train(resumed, fresh, range(3, 6))
    for a, b in zip(model.parameters(), resumed.parameters(), strict=True):
        assert a.isfinite().all() and torch.equal(a, b)


def test_the_state_of_another_kind_is_refused(tmp_path):
    model, optimizer = build(torch.optim.SGD)
    train(model, optimizer, range(1))
    save_state(tmp_path, Parts(model, optimizer), "SGD")
    with pytest.raises(UserError, match="SGD, not AdamW"):
        load_optimizer(tmp_path, Parts(*build(torch.optim.AdamW)), "AdamW")


def test_a_checkpoint_of_an_earlier_version_is_one_of_adamw(tmp_path):
    """It kept the number of steps once, and no kind."""
    model, optimizer = build(torch.optim.AdamW)
    train(model, optimizer, range(2))
    save_state(tmp_path, Parts(model, optimizer), "AdamW")
    saved = safetensors.torch.load_file(tmp_path / OPTIMIZER_FILE)
    earlier = {name: value for name, value in saved.items() if not name.endswith("/step")}
    (tmp_path / OPTIMIZER_FILE).write_bytes(safetensors.torch.save(earlier | {"steps": torch.tensor(2.0)}))
    resumed, fresh = build(torch.optim.AdamW)
    load_optimizer(tmp_path, Parts(resumed, fresh), "AdamW")
    for before, after in zip(optimizer.state.values(), fresh.state.values(), strict=True):
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def launch(engine, folder, kinds, *more):
    command = [sys.executable, "-m", *ENGINES[engine], "tests.engines.state_worker", engine, folder, *kinds, *more]
    return run_command(command, ROOT, 200, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    done = launch("single", folder, ALL)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def saved(folder):
    """Weights and optimizer state by name."""
    tensors = {"of the weights/" + name: t for name, t in safetensors.torch.load_file(folder / MODEL_FILE).items()}
    return tensors | safetensors.torch.load_file(folder / OPTIMIZER_FILE)


@pytest.mark.parametrize(
    ("engine", "kinds"),
    [
        ("ddp", ALL),
        ("fsdp2", ALL),
        pytest.param("zero2", OF_ZERO, marks=[ZERO, pytest.mark.slow]),
        pytest.param("zero3", OF_ZERO, marks=[ZERO, pytest.mark.slow]),
    ],
)
def test_state_of_any_shape_under_two_processes(alone, tmp_path, engine, kinds):
    """The resume makes the same bits; state and weights are those of one process, and a run goes on from them."""
    done = launch(engine, tmp_path, kinds, "--from", alone)
    assert done.returncode == 0, done.stderr[-4000:]
    for kind in kinds:
        reference, end, resumed, moved = (
            saved(place / kind / name)
            for place, name in ((alone, "end"), (tmp_path, "end"), (tmp_path, "resumed"), (tmp_path, "moved"))
        )
        assert reference.keys() == end.keys() == resumed.keys() == moved.keys(), kind
        for name, tensor in end.items():
            assert resumed[name].equal(tensor), (kind, name)
            torch.testing.assert_close(tensor, reference[name], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(moved[name], reference[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@ZERO
@pytest.mark.parametrize("kind", ["TwoKinds", "Factored"])
@pytest.mark.parametrize("engine", ["zero2", "zero3"])
def test_state_that_zero_cannot_hold_is_one_clear_line(alone, tmp_path, engine, kind):
    done = launch(engine, tmp_path, [], "--from", alone, kind)
    assert done.returncode != 0 and "UserError: DeepSpeed cannot hold" in done.stderr, done.stderr[-4000:]
    assert "fsdp2.yaml" in done.stderr
