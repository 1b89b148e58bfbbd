"""A toy pair after a little training, shared by the tests of this folder (which copy it before they change it)."""

import pytest
import torch

from electra_accel.model.pair import Pair
from electra_accel.model.rtd import ReplacedTokenDetection
from tests.model.batches import pack_examples, total_loss, toy_examples, toy_pair


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Networks this small run no faster on two threads, and far slower when something else uses the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def trained_pair(one_thread) -> Pair:
    """Half learnt: the generator knows the positions, the discriminator tells most wrong topics."""
    pair = toy_pair()
    model = ReplacedTokenDetection(*pair).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for step in range(70):
        batch, _ = pack_examples(toy_examples(16, seed=100 + step))
        optimizer.zero_grad()
        total_loss(model(batch), batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return pair
