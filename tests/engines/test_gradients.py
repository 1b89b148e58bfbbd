"""Gradients added up over micro-steps. Over processes: tests/engines/test_engine.py and the parity table."""

import pytest
import torch
from torch import nn

from electra_accel.engines import flat
from electra_accel.engines.gradients import Gradients


@pytest.mark.parametrize("fixed", [False, True])
def test_micro_steps_add_up_as_autograd_adds_them(fixed):
    torch.manual_seed(0)
    one, other = (nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 2)) for _ in range(2))
    other.load_state_dict(one.state_dict())
    one[2].bias.requires_grad_(False), other[2].bias.requires_grad_(False)
    gradients, places = Gradients(other.parameters()), []
    for step in range(3):
        if fixed and step == 1:  # before the step's first micro-step
            gradients.fix()
        for micro_step in range(3):
            inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(3 * step + micro_step))
            one(inputs).square().sum().backward()
            other(inputs).square().sum().backward()
            gradients.add()
        assert all(parameter.grad is None for parameter in other.parameters()), "before the step ends"
        gradients.exchange()
        for mine, theirs in zip(other.parameters(), one.parameters(), strict=True):
            assert (mine.grad is None and theirs.grad is None) or mine.grad.equal(theirs.grad)
        places.append([parameter.grad.data_ptr() for parameter in other.parameters() if parameter.requires_grad])
        gradients.clear()
        one.zero_grad()
        assert all(parameter.grad is None for parameter in other.parameters())
    assert not fixed or places[1] == places[2]


def test_a_parameter_that_only_a_later_micro_step_reaches_counts_and_one_that_none_reaches_has_no_gradient():
    first, second, never = (nn.Parameter(torch.ones(2)) for _ in range(3))
    gradients = Gradients([first, second, never])
    for reached in (first * 1, first * 2 + second * 3):
        reached.sum().backward()
        gradients.add()
    gradients.exchange()
    assert first.grad.tolist() == [3, 3] and second.grad.tolist() == [3, 3] and never.grad is None


@pytest.mark.parametrize("most", [1, 6, 9, 100])
def test_buckets_hold_everything_once_in_order_and_are_bounded(most, monkeypatch):
    monkeypatch.setattr(flat, "BUCKET", most)
    tensors = [torch.full(shape, float(number)) for number, shape in enumerate([(2, 3), (3,), (1,), (4, 2), (2,)])]
    copied = []
    for buffer, pieces, own in flat.buckets(tensors):
        assert len(own) == 1 or buffer.numel() <= most
        assert all(piece.equal(tensor) for piece, tensor in zip(pieces, own, strict=True))
        buffer += 10
        copied += pieces
    assert all(piece.equal(tensor + 10) for piece, tensor in zip(copied, tensors, strict=True))
