"""Half-precision copies of all weights at once, beside autocast, which makes them one by one."""

import pytest
import torch
from torch import nn

from electra_accel.engines.half_weights import HalfWeights
from electra_accel.model.pair import build_pair
from electra_accel.model.rtd import ReplacedTokenDetection
from tests.model.batches import VOCAB, pack_examples, toy_examples

SHAPE = dict(vocab_size=VOCAB, pad_token_id=0, max_length=64, generator_width=0.5)


def train(sharing: str, *, at_once: bool, checkpointing: bool = False) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses, and the weights after three steps of two micro-steps under autocast to bf16."""
    pair = build_pair("tiny", dropout=0.1, seed=1, sharing=sharing, **SHAPE)
    model = ReplacedTokenDetection(*pair, corrective=True, gradient_checkpointing=checkpointing).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    called = HalfWeights(model, torch.bfloat16) if at_once else model
    batch, losses = pack_examples(toy_examples(30))[0], []
    for step in range(3):
        for micro_step in range(2):
            torch.manual_seed(2 * step + micro_step)
            with torch.autocast("cpu", torch.bfloat16):
                output = called(batch)
            loss = (
                output.generator_loss_sum / 50 + output.discriminator_loss_sum / 100 + output.corrective_loss_sum / 50
            )
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
        if at_once:
            called.renew()
    return losses, {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("sharing", ["none", "gdes"])
def test_losses_and_weights_are_those_of_autocast(sharing):
    losses, weights = train(sharing, at_once=False)
    for checkpointing in (False, True):
        mine, found = train(sharing, at_once=True, checkpointing=checkpointing)
        assert mine == losses
        assert [name for name in weights if not found[name].equal(weights[name])] == []
    assert all(weight.dtype == torch.float32 for weight in found.values())


def test_a_table_of_two_networks_gets_the_gradient_of_autocast_but_for_the_order_of_its_sum():
    gradients = []
    for at_once in (False, True):
        model = ReplacedTokenDetection(*build_pair("tiny", dropout=0.0, seed=1, **SHAPE), corrective=True)
        called = HalfWeights(model, torch.bfloat16) if at_once else model
        with torch.autocast("cpu", torch.bfloat16):
            output = called(pack_examples(toy_examples(30))[0])
        (output.generator_loss_sum + output.discriminator_loss_sum + output.corrective_loss_sum).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    one, other = gradients
    table = "generator.electra.embeddings.word_embeddings.weight"
    assert [name for name in one if not one[name].equal(other[name])] in ([], [table])
    torch.testing.assert_close(other[table], one[table], rtol=1e-6, atol=1e-6 * one[table].abs().max().item())


def test_a_copy_that_nothing_reads_has_no_gradient_and_one_that_is_old_is_told():
    network = nn.ModuleDict({"read": nn.Linear(3, 3), "spare": nn.Linear(3, 3)})
    network.forward = lambda inputs: network["read"](inputs)
    called = HalfWeights(network, torch.bfloat16)
    before = called(torch.ones(2, 3).bfloat16())
    before.sum().backward()
    assert network["spare"].weight.grad is None and network["read"].weight.grad.dtype == torch.float32
    with torch.no_grad():
        network["read"].weight.zero_()
        network["read"].bias.fill_(1)
    called.renew()
    assert called(torch.ones(2, 3).bfloat16()).tolist() == [[1.0] * 3] * 2
    assert network["read"].weight.requires_grad and network["read"].weight.is_leaf, (
        "the parameters are back in their place"
    )


def test_a_frozen_layer_costs_no_gradient():
    """As a warm start's table, which is also its LM head."""
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].requires_grad_(False)
    read = []
    network[1].register_forward_pre_hook(lambda layer, inputs: read.append(layer.weight))
    HalfWeights(network, torch.bfloat16)(torch.ones(2, 3).bfloat16()).sum().backward()
    assert read[0].dtype == torch.bfloat16 and not read[0].requires_grad
    assert network[1].weight.grad is None and network[0].weight.grad.any()


def test_copies_that_were_fixed_stay_where_they_are_and_follow_the_weights():
    """A graph that was recorded reads them there."""
    network = nn.Linear(3, 2)
    called = HalfWeights(network, torch.bfloat16)
    called.fix()
    called(torch.ones(1, 3).bfloat16())
    places = [copy.data_ptr() for copy in called._copies]
    with torch.no_grad():
        network.weight.mul_(3)
    called.renew()
    assert [copy.data_ptr() for copy in called._copies] == places
    assert called._copies[0].equal(network.weight.bfloat16())


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_network_is_compiled_once(backend):
    """Each call hands it other tensors."""
    model = ReplacedTokenDetection(*build_pair("tiny", dropout=0.0, seed=1, **SHAPE))
    batch, called = pack_examples(toy_examples(30))[0], HalfWeights(model, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        plain = called(batch).counters
        torch._dynamo.reset()
        model.compile(backend=backend, dynamic=False, fullgraph=True)
        with torch._dynamo.config.patch(error_on_recompile=True):
            for _ in range(3):
                output = called(batch)
                assert output.counters.equal(plain)
                (output.generator_loss_sum + output.discriminator_loss_sum).backward()
                called.renew()
