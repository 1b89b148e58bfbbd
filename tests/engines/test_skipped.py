"""A gradient that is not finite."""

import copy
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from electra_accel.engines.open import open_engine
from electra_accel.model.pair import build_pair
from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.pretraining.config import Optim
from electra_accel.pretraining.optim import build_optimizer
from tests.model.batches import VOCAB, pack_examples, toy_examples


@pytest.fixture
def engine(tmp_path: Path):
    AcceleratorState._reset_state(reset_partial_state=True)
    yield open_engine(precision="no", cpu=True, trackers=[], folder=tmp_path)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("first", [True, False])
def test_it_changes_no_weight_and_nothing_that_the_optimizer_keeps(kind: str, wrong: float, first: bool, engine):
    """``first``: before the optimizer has any state."""
    pair = build_pair("tiny", dropout=0.0, seed=1, vocab_size=VOCAB, pad_token_id=0, max_length=64, generator_width=0.5)
    model = ReplacedTokenDetection(*pair)
    optim = Optim(learning_rate=1e-3, matrix_learning_rate=2e-3, kind=kind, weight_decay=0.1)
    engine.prepare(model, build_optimizer(model, optim), None, max_norm=1.0)
    batch = pack_examples(toy_examples(8))[0]

    def step(factor: float = 1.0) -> float:
        output = engine.model(batch)
        engine.backward(factor * (output.generator_loss_sum + output.discriminator_loss_sum) / 100)
        return engine.step(lambda peak: peak).item()

    def state() -> tuple:
        kept = engine.optimizer.optimizer.state_dict()["state"]
        return copy.deepcopy(([*model.parameters()], [value for each in kept.values() for value in each.values()]))

    for _ in range(0 if first else 2):
        step()
    before = state()
    assert not torch.tensor(step(wrong)).isfinite()
    weights, kept = state()
    assert all(now.equal(then) for now, then in zip(weights, before[0], strict=True))
    if first:
        assert kept and not any(value.count_nonzero() for value in kept)
    else:
        assert all(now.equal(then) for now, then in zip(kept, before[1], strict=True))
    assert engine.has_finite_weights()
    step()
    assert not all(now.equal(then) for now, then in zip(state()[0], before[0], strict=True))
    with torch.no_grad():
        next(model.parameters())[0, 0] = wrong
    assert not engine.has_finite_weights()
