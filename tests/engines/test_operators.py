"""How many operators the host sends."""

from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from electra_accel.engines.open import open_engine
from electra_accel.engines.operators import Operators
from electra_accel.model.pair import build_pair
from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.pretraining.config import Optim
from electra_accel.pretraining.optim import build_optimizer
from tests.model.batches import VOCAB, pack_examples, toy_examples


@pytest.fixture
def fresh_accelerate():
    """Accelerate keeps the precision of a process' first run."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_micro_step_and_a_step_of_small_send_no_more_operators_than_they_did(fresh_accelerate, tmp_path: Path):
    """bf16 on a CPU, which sends some that a GPU does not: casts to fp32 around attention, four for a dropout, a norm for each
    gradient. Commit 31dcf57 sent 2,177 in a step's first micro-step, 2,579 in each later one, and 816 in the optimizer step.
    Five of the step's operators see to it that a gradient that is not finite changes nothing."""
    pair = build_pair(
        "small", dropout=0.1, seed=1, vocab_size=VOCAB, pad_token_id=0, max_length=64, generator_width=None
    )
    model = ReplacedTokenDetection(*pair)
    engine = open_engine(precision="bf16", cpu=True, trackers=[], folder=tmp_path)
    engine.prepare(model, build_optimizer(model, Optim(learning_rate=1e-3, kind="adamw")), None, max_norm=1.0)
    engine.model.train()
    batch, found = pack_examples(toy_examples(8))[0], []

    def micro_step() -> None:
        output = engine.model(batch)
        engine.backward(output.generator_loss_sum / 100 + output.discriminator_loss_sum / 1000)

    micro_step()
    engine.step(lambda peak: 1e-3)  # makes the optimizer's state
    for do in (micro_step, micro_step, lambda: engine.step(lambda peak: 1e-3)):
        with Operators() as operators:
            do()
        found.append(operators.sent.total())
    assert all(now <= most for now, most in zip(found, (1509, 1509, 420), strict=True)), found
