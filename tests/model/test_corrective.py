import copy

import pytest
import torch
from transformers import ElectraForMaskedLM

from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.model.sharing import fold
from tests.model.batches import pack_examples, toy_examples, toy_pair
from tests.model.plain_rtd import plain_rtd

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
HEAD = ["transform.LayerNorm.weight", "transform.LayerNorm.bias", "transform.dense.weight", "transform.dense.bias"]
HEAD = {f"corrector.{name}" for name in [*HEAD, "lm_head.bias"]}
WEIGHT = 7.0  # of the corrective loss


def corrective_module(sharing="tied", **more):
    """With a head whose biases and LayerNorm are not the fresh 0 and 1, under which much could be left out unseen."""
    model = ReplacedTokenDetection(*toy_pair(sharing=sharing, **more), corrective=True, seed=3)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in HEAD or name.endswith(".delta"):
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def stock_networks(model):
    """Networks of transformers alone, in one module; under gdes the discriminator's tables are plain ones."""
    plain = copy.deepcopy(model)
    fold(plain.discriminator)
    corrector = ElectraForMaskedLM(plain.discriminator.config)
    corrector.electra = plain.discriminator.electra
    corrector.generator_predictions = plain.corrector.transform
    corrector.generator_lm_head.weight = plain.discriminator.electra.embeddings.word_embeddings.weight
    corrector.generator_lm_head.bias = plain.corrector.lm_head.bias
    networks = {"generator": plain.generator, "discriminator": plain.discriminator, "corrector": corrector}
    for network in networks.values():
        network.set_attn_implementation("eager")
    return torch.nn.ModuleDict(networks).eval()


def plain_correction(corrector, examples, sampled):
    """Sum of the losses, and the most probable token at each selected position; one example at a time, straight from the
    definition."""
    total, best = torch.tensor(0.0), []
    for example, drawn in zip(examples, sampled, strict=True):
        read = list(example.tokens)
        for position, token in zip(example.selected, drawn, strict=True):
            read[position] = token
        logits = corrector(torch.tensor([read]), token_type_ids=torch.tensor([example.token_types])).logits[0]
        for position in example.selected:
            total = total - torch.log(torch.softmax(logits[position], 0)[example.tokens[position]])
        best.append([int(logits[position].argmax()) for position in example.selected])
    return total, best


def whole_loss(generator, discriminator, corrective, batch):
    selected, tokens = batch.counts()
    return generator / selected + 50 * discriminator / tokens + WEIGHT * corrective / selected


def loss_of(output, batch):
    sums = output.generator_loss_sum, output.discriminator_loss_sum, output.corrective_loss_sum
    return whole_loss(*sums, batch)


def gradients(module):
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


def stock_name(name):
    for mine, stock in (
        ("corrector.transform", "corrector.generator_predictions"),
        ("corrector.lm_head", "corrector.generator_lm_head"),
    ):
        name = name.replace(mine, stock)
    return name.replace(".delta", ".weight")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sharing", ["tied", "none", "gdes"])
def test_agrees_with_the_plain_definition(sharing, dtype):
    examples = toy_examples(30, seed=7)
    batch, _ = pack_examples(examples, rows=12)
    model = corrective_module(sharing).to(dtype).train()
    stock = stock_networks(model)

    expected = plain_rtd(stock["generator"], stock["discriminator"], examples)
    loss, best = plain_correction(stock["corrector"], examples, expected.sampled)
    output = model(batch)
    assert output.corrective_loss_sum.dtype == dtype
    torch.testing.assert_close(output.corrective_loss_sum, loss.to(dtype), rtol=TOLERANCE[dtype], atol=0)
    in_slot_order = [
        token for row in batch.examples.tolist() for number in row if number >= 0 for token in best[number]
    ]
    assert output.corrected[batch.slot_used].tolist() == in_slot_order

    loss_of(output, batch).backward()
    whole_loss(expected.generator_loss_sum, expected.discriminator_loss_sum, loss, batch).backward()
    wanted, actual = gradients(stock), {stock_name(name): gradient for name, gradient in gradients(model).items()}
    assert actual.keys() == wanted.keys()
    for name, gradient in wanted.items():
        scale = gradient.abs().max().item()
        assert scale > 0 or name.endswith("key.bias"), name
        # a softmax ignores the bias of its keys: that gradient is rounding around 0
        tolerance = 1e-6 if name.endswith("key.bias") else TOLERANCE[dtype] * scale
        torch.testing.assert_close(actual[name], gradient, rtol=0, atol=tolerance, msg=name)
