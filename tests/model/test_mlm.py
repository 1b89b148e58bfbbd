import copy

import pytest
import torch

from electra_accel.model.metrics import SCALARS, standard_errors, summarise
from electra_accel.model.mlm import MaskedLanguageModeling
from electra_accel.model.pair import build_encoder
from electra_accel.model.rtd import ReplacedTokenDetection
from tests.model.batches import PAD, VOCAB, pack_examples, toy_examples, toy_pair
from tests.model.test_static import no_synchronisation


def plain_mlm(network, examples):
    """Straight from the definition: one text at a time, stock forward pass, no packing. Loss sum and most probable tokens."""
    loss, best = torch.tensor(0.0), []
    for example in examples:
        ids, types = torch.tensor([example.corrupted]), torch.tensor([example.token_types])
        logits = network(ids, token_type_ids=types).logits[0, example.selected]
        labels = torch.tensor(example.tokens)[example.selected]
        loss = loss + torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        best.append(logits.argmax(-1).tolist())
    return loss, best


def encoder(**changes):
    settings = dict(vocab_size=VOCAB, pad_token_id=PAD, max_length=128, dropout=0.0, seed=1)
    return build_encoder("tiny", **(settings | changes))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_agrees_with_the_plain_definition(trained_pair, dtype, tolerance):
    network = copy.deepcopy(trained_pair.generator).to(dtype).train()
    plain = copy.deepcopy(network)
    plain.set_attn_implementation("eager")
    examples = toy_examples(30, seed=7)
    batch, _ = pack_examples(examples, rows=12)
    expected, best = plain_mlm(plain, examples)
    output = MaskedLanguageModeling(network)(batch)
    torch.testing.assert_close(output.generator_loss_sum, expected.to(dtype), rtol=tolerance, atol=0)
    in_order = [token for row in batch.examples.tolist() for number in row if number >= 0 for token in best[number]]
    assert output.generator_argmax[batch.slot_used].tolist() == in_order
    output.generator_loss_sum.backward()
    expected.backward()
    wanted = dict(plain.named_parameters())
    for name, parameter in network.named_parameters():
        scale = 1e-3 if name.endswith("key.bias") else wanted[name].grad.abs().max()  # softmax ignores that bias
        torch.testing.assert_close(
            parameter.grad, wanted[name].grad, rtol=0, atol=float(2 * tolerance * scale), msg=name
        )


def test_is_the_generators_half_of_replaced_token_detection(trained_pair):
    batch, _ = pack_examples(toy_examples(30, seed=8))
    pair = copy.deepcopy(trained_pair)
    both = ReplacedTokenDetection(*pair).eval()(batch)
    output = MaskedLanguageModeling(pair.generator).eval()(batch)
    for field in ("generator_loss_sum", "sampled", "generator_argmax"):
        assert torch.equal(getattr(output, field), getattr(both, field))
    generators = SCALARS[: SCALARS.index("judged")]
    assert torch.equal(output.counters[: len(generators)], both.counters[: len(generators)])
    assert output.counters.shape == both.counters.shape and not output.counters[len(generators) :].any()


def test_there_is_no_discriminator_in_output_and_figures(trained_pair):
    batch, _ = pack_examples(toy_examples(20))
    model = MaskedLanguageModeling(copy.deepcopy(trained_pair.generator))
    output = model(batch)
    assert output.discriminator_logits is None
    assert output.discriminator_loss_sum.shape == () and output.discriminator_loss_sum.item() == 0
    assert not output.discriminator_loss_sum.requires_grad
    figures = summarise(output.counters) | standard_errors(output.counters)
    known = {name for name, value in figures.items() if value == value}
    assert known == {"generator_loss", "generator_accuracy", "generator_entropy", "generator_loss_se"}
    shown = model(batch, replacements=batch.slot_labels)
    assert torch.equal(shown.sampled, batch.slot_labels) and torch.equal(shown.counters, output.counters)


def test_bins_without_examples_give_exact_zeros():
    batch, _ = pack_examples([], rows=3)
    model = MaskedLanguageModeling(encoder()).train()
    output = model(batch)
    output.generator_loss_sum.backward()
    assert output.generator_loss_sum.item() == 0 and not output.counters.any()
    assert all(not parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_a_micro_step_never_waits_for_the_device(gradient_checkpointing):
    model = MaskedLanguageModeling(encoder(dropout=0.1), gradient_checkpointing=gradient_checkpointing).train()
    batch, _ = pack_examples(toy_examples(20), rows=9)
    with no_synchronisation():
        model(batch).generator_loss_sum.backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_compiles_to_one_graph():
    torch._dynamo.reset()
    model = MaskedLanguageModeling(encoder()).train()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed, count in enumerate((20, 0, 12)):
            batch, _ = pack_examples(toy_examples(count, seed=seed), rows=8)
            torch.testing.assert_close(compiled(batch).counters, model(batch).counters)


def test_a_fresh_encoder_is_the_discriminators_of_the_same_seed():
    theirs = dict(toy_pair(seed=1).discriminator.electra.named_parameters())
    assert all(torch.equal(parameter, theirs[name]) for name, parameter in encoder(seed=1).electra.named_parameters())


def test_frozen_embeddings_get_no_gradient_and_all_else_learns():
    network = encoder()
    network.electra.embeddings.requires_grad_(False)  # as networks.networks does for a warm start
    batch, _ = pack_examples(toy_examples(40))
    MaskedLanguageModeling(network, gradient_checkpointing=True).train()(batch).generator_loss_sum.backward()
    still = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert still == {name for name, _ in network.named_parameters() if name.startswith("electra.embeddings.")}
    assert network.generator_lm_head.weight.grad is None and network.generator_lm_head.bias.grad.any()
