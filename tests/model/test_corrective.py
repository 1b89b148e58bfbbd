import copy
import math

import pytest
import torch
from transformers import ElectraForMaskedLM

from electra_accel.model.metrics import standard_errors, summarise
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


def test_under_gdes_no_gradient_reaches_the_generator():
    model, (batch, _) = corrective_module("gdes").train(), pack_examples(toy_examples(20))
    model(batch).corrective_loss_sum.backward()
    assert all(parameter.grad is None for parameter in model.generator.parameters())
    assert model.discriminator.electra.embeddings.word_embeddings.delta.grad.any()


def test_tied_tables_learn_and_nothing_else_of_the_generator_does():
    model, (batch, _) = corrective_module().train(), pack_examples(toy_examples(20))
    model(batch).corrective_loss_sum.backward()
    own = [p for name, p in model.generator.named_parameters() if ".embeddings." not in name]
    assert all(parameter.grad is None for parameter in own)
    rows = model.discriminator.electra.embeddings.word_embeddings.weight.grad.any(dim=1)
    assert rows.all(), "the softmax moves every token of the vocabulary"


@pytest.mark.parametrize("sharing", ["tied", "gdes"])
def test_arrangement_padding_and_empty_bins_change_nothing(sharing):
    examples, results = toy_examples(24, seed=4), []
    model = corrective_module(sharing).double().train()
    for order, more in ((examples, {}), (examples[::-1], dict(row_tokens=96, slots=20, segments=9, rows=12))):
        batch, _ = pack_examples(order, **more)
        model.zero_grad()
        output = model(batch)
        loss_of(output, batch).backward()
        results.append((output, gradients(model)))
    (one, wanted), (other, actual) = results
    torch.testing.assert_close(other.corrective_loss_sum, one.corrective_loss_sum, rtol=1e-12, atol=0)
    torch.testing.assert_close(other.counters, one.counters, rtol=1e-12, atol=0)
    for name, gradient in wanted.items():
        torch.testing.assert_close(actual[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_bins_without_examples_give_exact_zeros_and_finite_gradients():
    batch, _ = pack_examples([], rows=3)
    model = corrective_module().train()
    output = model(batch)
    output.corrective_loss_sum.backward()
    assert output.corrective_loss_sum.item() == 0 and not output.counters.any()
    assert all(not parameter.grad.any() for parameter in model.discriminator.electra.parameters())


def test_the_head_changes_nothing_else():
    batch, _ = pack_examples(toy_examples(20))
    without, model = ReplacedTokenDetection(*toy_pair()).train(), ReplacedTokenDetection(*toy_pair(), corrective=True)
    names = [name for name, _ in without.named_parameters()]
    assert [name for name, _ in model.named_parameters()] == names + [
        n for n in dict(model.named_parameters()) if n in HEAD
    ]
    assert HEAD == dict(model.named_parameters()).keys() - set(names)
    known = dict(model.named_parameters())
    assert all(torch.equal(parameter, known[name]) for name, parameter in without.named_parameters())
    off, on = without(batch), model.train()(batch)
    assert off.corrective_loss_sum.item() == 0 and not off.corrective_loss_sum.requires_grad and off.corrected is None
    for field in ("generator_loss_sum", "discriminator_loss_sum", "sampled", "discriminator_logits"):
        assert torch.equal(getattr(on, field), getattr(off, field)), field
    assert torch.equal(on.counters[: len(off.counters)], off.counters)
    figures = summarise(off.counters)
    assert summarise(on.counters).items() > figures.items() and not any("corrective" in name for name in figures)


def test_fresh_weights_depend_on_the_seed_alone():
    heads = []
    for torch_seed, seed in ((1, 3), (2, 3), (1, 4)):
        torch.manual_seed(torch_seed)
        head = ReplacedTokenDetection(*toy_pair(), corrective=True, seed=seed).corrector
        heads.append(head.transform.dense.weight)
        assert not head.lm_head.bias.any() and not head.transform.dense.bias.any()
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert heads[0].std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("sharing", ["tied", "none", "gdes"])
def test_the_word_table_stays_the_discriminators_through_a_copy_and_a_step(sharing):
    model = copy.deepcopy(corrective_module(sharing)).double().train()
    batch, _ = pack_examples(toy_examples(8))
    loss_of(model(batch), batch).backward()
    torch.optim.AdamW(model.parameters(), lr=1e-3).step()
    head, table = model.corrector.lm_head, model.discriminator.electra.embeddings.word_embeddings
    if sharing == "gdes":
        assert head.delta is table.delta and head.base is table.base.weight
    else:
        assert head.weight is table.weight
        assert (table.weight is model.generator.electra.embeddings.word_embeddings.weight) == (sharing == "tied")


def test_bf16_autocast_keeps_the_loss_in_fp32():
    model, (batch, _) = corrective_module("gdes").train(), pack_examples(toy_examples(40))
    exact = model(batch, batch.slot_labels)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch, batch.slot_labels)
    output.corrective_loss_sum.backward()
    assert output.corrective_loss_sum.dtype == torch.float32
    torch.testing.assert_close(output.corrective_loss_sum, exact.corrective_loss_sum, rtol=0.02, atol=0)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def answers(model, batch, wanted):
    """Figures where the head says ``wanted`` [R, S] with logit 5 and everything else with 0, on given replacements: every other
    slot keeps its token."""
    replacements = torch.where(torch.arange(wanted.shape[1]) % 2 == 0, batch.slot_labels + 1, batch.slot_labels)
    logits = 5.0 * torch.nn.functional.one_hot(wanted, model.config.vocab_size)
    hook = model.corrector.register_forward_hook(lambda *_: logits)
    output = model(batch, replacements)
    hook.remove()
    return summarise(output.counters) | standard_errors(output.counters), replacements


def test_figures_tell_replaced_tokens_from_kept_ones():
    model, (batch, _) = corrective_module().eval(), pack_examples(toy_examples(40))
    used, right = batch.slot_used, batch.slot_labels
    replaced = (torch.arange(right.shape[1]) % 2 == 0) & used
    assert replaced.any() and (used & ~replaced).any()
    copied, replacements = answers(model, batch, torch.where(replaced, right + 1, right))
    assert torch.equal((replacements != right) & used, replaced)
    assert (copied["corrective_accuracy_replaced"], copied["corrective_accuracy_kept"]) == (0, 1)
    assert copied["corrective_accuracy"] == pytest.approx(1 - replaced.sum().item() / used.sum().item())
    rest = math.log(math.exp(5) + model.config.vocab_size - 1)
    losses = torch.where(replaced, rest, rest - 5)[used].double()
    assert copied["corrective_loss"] == pytest.approx(losses.mean().item(), rel=1e-6)
    error = losses.std(correction=0).item() / len(losses) ** 0.5
    assert copied["corrective_loss_se"] == pytest.approx(error, rel=1e-4)
    corrected, _ = answers(model, batch, torch.where(replaced, right, right + 2))
    assert (corrected["corrective_accuracy_replaced"], corrected["corrective_accuracy_kept"]) == (1, 0)


def test_figures_of_a_head_that_answers_nan_are_nan():
    model, (batch, _) = corrective_module().eval(), pack_examples(toy_examples(10))
    model.corrector.register_forward_hook(
        lambda module, inputs, logits: logits.index_fill(0, torch.tensor([0]), math.nan)
    )
    figures = summarise(model(batch, batch.slot_labels + 1).counters)
    without = {name for name, value in figures.items() if math.isnan(value)}
    # the kept tokens, of which there are none here, have no accuracy in any case
    assert without == {name for name in figures if name.startswith("corrective_")}


def test_what_the_head_keeps_for_the_backward_pass_is_bounded_by_the_slots():
    """Per slot one fp32 number for each token of the vocabulary, and a few hidden states."""
    pair = toy_pair()
    batch, _ = pack_examples(toy_examples(300, seed=11), rows=130)

    def kept(corrective):
        model = ReplacedTokenDetection(*copy.deepcopy(pair), corrective=corrective)
        storages = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: storages.update({tensor.data_ptr(): tensor.untyped_storage().nbytes()}) or tensor,
            lambda tensor: tensor,
        ):
            output = model(batch)
        assert output.generator_loss_sum.requires_grad
        return sum(storages.values())

    slots, config = batch.slot_positions.numel(), pair.discriminator.config
    logits, states = 4 * slots * config.vocab_size, 4 * slots * config.hidden_size
    assert logits <= kept(True) - kept(False) <= logits + 5 * states
