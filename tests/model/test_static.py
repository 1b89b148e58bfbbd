"""Invariants 5 and 8: no host synchronisation inside a micro-step, static shapes, one graph."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from electra_accel.model.rtd import ReplacedTokenDetection, read_generator
from tests.model.batches import pack_examples, total_loss, toy_examples, toy_pair

# On a GPU each of these waits for the device: a value is copied back, or the shape of the result depends on values.
FORBIDDEN = {"_local_scalar_dense", "item", "nonzero", "masked_select", "unique", "_unique2", "unique_dim", "bincount"}
FORBIDDEN |= {"unique_consecutive", "repeat_interleave", "is_nonzero", "equal", "histc", "_assert_async"}


COPIES = {"tolist", "numpy", "cpu", "__array__"}  # on a CPU these dispatch nothing, so they are seen as methods only


class NoCopies(TorchFunctionMode):
    """Raises AssertionError at the first method that copies a tensor to the host; ``to`` by the device it is given."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        to_host = name == "to" and any(str(value) == "cpu" for value in (*args[1:2], kwargs.get("device")))
        if name in COPIES or to_host:
            raise AssertionError(f"{name} waits for the device")
        return function(*args, **kwargs)


class NoOperations(TorchDispatchMode):
    """Raises AssertionError at the first operation that would make the host wait for a GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        boolean = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
        if name in FORBIDDEN or boolean:
            raise AssertionError(f"{function} waits for the device")
        return function(*args, **(kwargs or {}))


@contextmanager
def no_synchronisation():
    with NoCopies(), NoOperations():
        yield


def micro_step(model, batch):
    counts = batch.counts()
    output = model(batch)
    at_slots = output.generator_loss_sum + output.corrective_loss_sum
    (at_slots / counts[0] + 50 * output.discriminator_loss_sum / counts[1]).backward()
    return output


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("sharing", ["tied", "gdes"])
@pytest.mark.parametrize("corrective", [False, True])
def test_a_micro_step_never_waits_for_the_device(autocast, gradient_checkpointing, sharing, corrective):
    more = dict(gradient_checkpointing=gradient_checkpointing, corrective=corrective)
    model = ReplacedTokenDetection(*toy_pair(dropout=0.1, sharing=sharing), **more).train()
    batch, _ = pack_examples(toy_examples(20), rows=9)
    with no_synchronisation(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = micro_step(model, batch)
    assert output.counters[1] == batch.real.sum()


PLANTED = {
    "item": lambda x: x.sum().item(),
    "if on a tensor": lambda x: bool(x.any()),
    "boolean indexing": lambda x: x[x > 0],
    "boolean assignment": lambda x: x.clone().__setitem__(x > 0, 0.0),
    "nonzero": lambda x: torch.nonzero(x),
    "masked_select": lambda x: x.masked_select(x > 0),
    "unique": lambda x: x.unique(),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "numpy.asarray": lambda x: np.asarray(x),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "to a device": lambda x: x.to(device=torch.device("cpu")),
    "bincount": lambda x: torch.bincount(x.long().flatten()),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_synchronisation_is_caught(planted):
    """Inside the discriminator, in the middle of the micro-step."""
    model = ReplacedTokenDetection(*toy_pair()).train()
    batch, _ = pack_examples(toy_examples(4))
    encoder = model.discriminator.electra.encoder
    encoder.register_forward_hook(lambda *_: PLANTED[planted](torch.ones(2, 2)) and None)
    with no_synchronisation(), pytest.raises(AssertionError, match="waits for the device"):
        micro_step(model, batch)


@pytest.mark.parametrize(("sharing", "corrective"), [("tied", False), ("gdes", False), ("tied", True), ("gdes", True)])
def test_compiles_to_one_graph_that_serves_every_batch(sharing, corrective):
    torch._dynamo.reset()
    model = ReplacedTokenDetection(*toy_pair(sharing=sharing), corrective=corrective).train()
    compiled = torch.compile(model, backend="eager", fullgraph=True)  # fullgraph: a graph break is an error
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed, count in enumerate((20, 3, 0, 12)):
            batch, _ = pack_examples(toy_examples(count, seed=seed), rows=8)
            assert len(batch.input_ids) == 8
            output = compiled(batch)
            (total_loss(output, batch) + output.corrective_loss_sum).backward()
            torch.testing.assert_close(output.counters, model(batch).counters)


def test_memory_of_sampling_is_bounded():
    """No tensor of the sampler is larger than one chunk of the vocabulary's probabilities in fp64."""
    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if (
                isinstance(result, torch.Tensor)
                and result.untyped_storage().data_ptr() != log_probs.untyped_storage().data_ptr()
            ):
                largest = max(largest, result.untyped_storage().nbytes())
            return result

    log_probs = torch.zeros(16, 20, 10_000).log_softmax(-1)
    with Largest():
        read_generator(log_probs, torch.zeros(16, 20, dtype=torch.float64), 1.0)
    assert log_probs.nbytes > 10 * 2**20
    assert largest <= 2 * 2**20
