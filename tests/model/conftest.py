"""A toy pair after a little training, shared by the tests of this folder (which copy it before they change it)."""

import pytest
import torch

from electra_accel.model.pair import Pair
from electra_accel.model.rtd import ReplacedTokenDetection
from tests.model.batches import pack_examples, total_loss, toy_examples, toy_pair


@pytest.fixture(scope="session")
def trained_pair() -> Pair:
    """The toy walks are half learnt: the generator is often right and the discriminator tells most of its errors."""
    pair = toy_pair()
    model = ReplacedTokenDetection(*pair).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(60):
        batch, _ = pack_examples(toy_examples(96, seed=100 + step))
        optimizer.zero_grad()
        total_loss(model(batch), batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return pair
