"""Checkpoints hold whatever an optimizer keeps for a parameter, and say of which kind it is."""

import pytest
import safetensors.torch
import torch
from torch import nn

from electra_accel.engines.state import OPTIMIZER_FILE, Parts, load_optimizer, load_weights, save
from electra_accel.errors import UserError


class TwoKinds(torch.optim.Optimizer):
    """Matrices have momentum, vectors a running mean of squares and a count: parameters with different state."""

    def __init__(self, parameters):
        super().__init__(parameters, dict(lr=0.1))

    @torch.no_grad()
    def step(self):
        for parameter in (p for group in self.param_groups for p in group["params"]):
            state = self.state[parameter]
            if parameter.ndim == 2:
                momentum = state.setdefault("momentum_buffer", torch.zeros_like(parameter))
                parameter -= 0.1 * momentum.mul_(0.9).add_(parameter.grad)
            else:
                state["count"] = state.get("count", torch.zeros(())) + 1
                squares = state.setdefault("squares", torch.zeros_like(parameter))
                parameter -= 0.1 * parameter.grad / (squares.add_(parameter.grad**2) / state["count"] + 1e-3).sqrt()


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


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, TwoKinds])
def test_a_run_goes_on_with_the_same_bits_under_any_optimizer(kind, tmp_path):
    model, optimizer = build(kind)
    train(model, optimizer, range(3))
    save(tmp_path, Parts(model, optimizer), kind.__name__, writes=True)
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
    save(tmp_path, Parts(model, optimizer), "SGD", writes=True)
    with pytest.raises(UserError, match="SGD, not AdamW"):
        load_optimizer(tmp_path, Parts(*build(torch.optim.AdamW)), "AdamW")


def test_a_checkpoint_of_an_earlier_version_is_one_of_adamw(tmp_path):
    """It kept the number of steps once, and no kind."""
    model, optimizer = build(torch.optim.AdamW)
    train(model, optimizer, range(2))
    save(tmp_path, Parts(model, optimizer), "AdamW", writes=True)
    saved = safetensors.torch.load_file(tmp_path / OPTIMIZER_FILE)
    earlier = {name: value for name, value in saved.items() if not name.endswith("/step")}
    (tmp_path / OPTIMIZER_FILE).write_bytes(safetensors.torch.save(earlier | {"steps": torch.tensor(2.0)}))
    resumed, fresh = build(torch.optim.AdamW)
    load_optimizer(tmp_path, Parts(resumed, fresh), "AdamW")
    for before, after in zip(optimizer.state.values(), fresh.state.values(), strict=True):
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
