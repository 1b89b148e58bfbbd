import copy

import pytest
import torch

from electra_accel.model.metrics import SCALARS, summarise
from electra_accel.model.mlm import MaskedLanguageModeling
from electra_accel.model.pair import set_dropout
from electra_accel.model.rtd import ReplacedTokenDetection
from tests.model.batches import MASK, pack_examples, total_loss, toy_examples, toy_pair
from tests.model.plain_rtd import plain_rtd

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}


@pytest.fixture(params=["random", "trained"])
def pair(request, trained_pair):
    return toy_pair() if request.param == "random" else copy.deepcopy(trained_pair)


def eager_copy(pair):
    generator, discriminator = copy.deepcopy(pair)
    generator.set_attn_implementation("eager")
    discriminator.set_attn_implementation("eager")
    return torch.nn.ModuleDict({"generator": generator, "discriminator": discriminator})


def gradients(module):
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


def counters_of(output):
    return dict(zip(SCALARS, output.counters.tolist(), strict=False))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_agrees_with_the_plain_definition(pair, trained_pair, dtype, temperature):
    examples = toy_examples(30, seed=7)
    batch, places = pack_examples(examples, rows=12)
    plain = eager_copy(pair).to(dtype).eval()
    model = ReplacedTokenDetection(*pair, temperature=temperature).to(dtype).train()

    expected = plain_rtd(plain["generator"], plain["discriminator"], examples, temperature)
    output = model(batch)
    tolerance = dict(rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert output.generator_loss_sum.dtype == output.discriminator_loss_sum.dtype == dtype

    def close(actual, wanted):
        torch.testing.assert_close(actual, wanted.to(dtype), **tolerance)

    close(output.generator_loss_sum.detach(), expected.generator_loss_sum.detach())
    close(output.discriminator_loss_sum.detach(), expected.discriminator_loss_sum.detach())
    assert batch.counts().tolist() == [expected.selected, expected.tokens]
    assert output.sampled[batch.slot_used].tolist() == in_slot_order(expected.sampled, batch)
    for (row, column), labels, logits in zip(places, expected.labels, expected.logits, strict=True):
        close(output.discriminator_logits[row, column : column + len(labels)], logits)
    counters = counters_of(output)
    assert (counters["selected"], counters["tokens"]) == (expected.selected, expected.tokens)
    assert counters["replaced"] == sum(map(sum, expected.labels))

    total_loss(output, batch).backward()
    total_loss(expected, batch).backward()
    actual, wanted = gradients(model), gradients(plain)
    assert actual.keys() == wanted.keys()
    for name, gradient in wanted.items():
        if name.endswith("key.bias"):  # softmax ignores it: its gradient is rounding around 0
            assert actual[name].abs().max() < 1e-6 and gradient.abs().max() < 1e-6
        else:
            scale = gradient.abs().max().item()
            assert scale > 0, name
            torch.testing.assert_close(actual[name], gradient, rtol=0, atol=TOLERANCE[dtype] * scale, msg=name)


def in_slot_order(sampled, batch):
    """The plain samples, example by example, in the order in which the batch's rows hold the examples."""
    return [token for row in batch.examples.tolist() for number in row if number >= 0 for token in sampled[number]]


def test_the_trained_pair_has_learnt(trained_pair):
    """Otherwise 'on trained weights' would prove nothing."""
    batch, _ = pack_examples(toy_examples(200, seed=9))
    output = ReplacedTokenDetection(*copy.deepcopy(trained_pair)).eval()(batch)
    figures = summarise(output.counters)
    assert figures["generator_accuracy"] > 0.3
    assert figures["auc"] > 0.6
    assert torch.sigmoid(output.discriminator_logits[batch.real]).std() > 0.03


def test_an_example_gets_the_logits_that_it_gets_alone(pair):
    examples = toy_examples(40, seed=3)
    plain = eager_copy(pair).eval()
    model = ReplacedTokenDetection(*pair).eval()
    batch, places = pack_examples(examples)
    assert batch.segment_ids.amax() > 3
    read = batch.input_ids.scatter(1, batch.slot_positions, batch.slot_labels)  # nothing replaced
    output = model(batch, replacements=batch.slot_labels)
    assert counters_of(output)["replaced"] == 0 and torch.equal(read, batch.input_ids)
    for (row, column), example in zip(places, examples, strict=True):
        ids, types = torch.tensor([example.tokens]), torch.tensor([example.token_types])
        alone = plain["discriminator"](ids, token_type_ids=types).logits[0]
        torch.testing.assert_close(
            output.discriminator_logits[row, column : column + len(alone)], alone, rtol=0, atol=1e-5
        )


def test_arrangement_padding_and_empty_bins_change_nothing(pair):
    examples = toy_examples(24, seed=4)
    model = ReplacedTokenDetection(*pair).double().train()
    results = []
    for arrangement in (
        dict(order=examples),
        dict(order=examples[::-1], row_tokens=96, slots=20, segments=9),
        dict(order=examples[1:] + examples[:1], row_tokens=32, slots=9, segments=3, rows=40),
    ):
        batch, _ = pack_examples(arrangement.pop("order"), **arrangement)
        model.zero_grad()
        output = model(batch)
        total_loss(output, batch).backward()
        results.append((output, gradients(model)))
    first, first_gradients = results[0]
    for output, others in results[1:]:
        torch.testing.assert_close(output.generator_loss_sum, first.generator_loss_sum, rtol=1e-12, atol=0)
        torch.testing.assert_close(output.discriminator_loss_sum, first.discriminator_loss_sum, rtol=1e-12, atol=0)
        torch.testing.assert_close(output.counters, first.counters, rtol=1e-12, atol=0)
        for name, gradient in others.items():
            torch.testing.assert_close(gradient, first_gradients[name], rtol=1e-9, atol=1e-12, msg=name)


def test_nothing_that_another_example_or_padding_holds_reaches_an_example(trained_pair):
    model = ReplacedTokenDetection(*copy.deepcopy(trained_pair)).double().eval()
    batch, places = pack_examples(toy_examples(12, seed=5), row_tokens=80)
    row, column = places[1]
    mine = batch.segment_ids[row] == batch.segment_ids[row, column]
    fresh = torch.full_like(batch.input_ids, 77)
    changed = copy.copy(batch)
    for field in ("input_ids", "corrupted_ids"):
        ids = torch.where(mine, getattr(batch, field), fresh)  # other examples of the row and its padding
        setattr(changed, field, ids)
    output, other = model(batch, batch.slot_labels), model(changed, changed.slot_labels)
    difference = (output.discriminator_logits[row] - other.discriminator_logits[row]).abs()
    assert difference[mine].max() < 1e-12
    assert difference[~mine].max() > 1e-3


def test_bins_without_examples_give_exact_zeros_and_finite_gradients():
    batch, _ = pack_examples([], rows=3)
    model = ReplacedTokenDetection(*toy_pair()).train()
    output = model(batch)
    (output.generator_loss_sum + output.discriminator_loss_sum).backward()
    assert output.generator_loss_sum.item() == output.discriminator_loss_sum.item() == 0
    assert output.counters.abs().sum() == 0
    assert all((parameter.grad == 0).all() for parameter in model.parameters())


def test_an_example_with_nothing_selected_trains_the_discriminator_only():
    examples = toy_examples(3)
    for example in examples:
        example.selected, example.uniform, example.corrupted = [], [], list(example.tokens)
    batch, _ = pack_examples(examples)
    model = ReplacedTokenDetection(*toy_pair()).train()
    output = model(batch)
    total_loss(output, batch).backward()
    assert output.generator_loss_sum.item() == 0 and output.discriminator_loss_sum.item() > 0
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_sums_and_counters_add_up_over_micro_batches(pair):
    """Two denominators, global: nothing is divided inside, so any split of a global step gives the same totals."""
    model = ReplacedTokenDetection(*pair).double().eval()
    examples = toy_examples(30, seed=6)
    whole = model(pack_examples(examples)[0])
    parts = [model(pack_examples(part)[0]) for part in (examples[:3], examples[3:20], examples[20:])]
    for field in ("generator_loss_sum", "discriminator_loss_sum", "counters"):
        total = sum(getattr(part, field) for part in parts)
        torch.testing.assert_close(total, getattr(whole, field), rtol=1e-12, atol=0)


def test_given_replacements_are_what_the_discriminator_reads(trained_pair):
    model = ReplacedTokenDetection(*copy.deepcopy(trained_pair)).eval()
    batch, _ = pack_examples(toy_examples(10))
    replacements = torch.where(torch.arange(batch.slot_positions.shape[1]) % 2 == 0, batch.slot_labels, 99)
    seen = []
    model.discriminator.electra.embeddings.word_embeddings.register_forward_hook(lambda _, ids, __: seen.append(ids[0]))
    output = model(batch, replacements)
    assert torch.equal(output.sampled, replacements)
    (read,) = seen
    expected = batch.input_ids.clone()
    for row, slot in batch.slot_used.nonzero().tolist():
        expected[row, batch.slot_positions[row, slot]] = replacements[row, slot]
    assert torch.equal(read, expected) and not (read == MASK).any()
    odd = batch.slot_used & (replacements != batch.slot_labels)
    assert counters_of(output)["replaced"] == odd.sum()
    torch.testing.assert_close(output.generator_loss_sum, model(batch).generator_loss_sum, rtol=0, atol=0)


def test_a_pure_function_of_the_batch_without_dropout_and_of_the_seed_with_it():
    batch, _ = pack_examples(toy_examples(20))
    model = ReplacedTokenDetection(*toy_pair(dropout=0.0)).train()
    trained, evaluated = model(batch), model.eval()(batch)
    assert all(one is other is None or torch.equal(one, other) for one, other in zip(trained, evaluated, strict=True))
    model = ReplacedTokenDetection(*toy_pair(dropout=0.1)).train()
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(model(batch).discriminator_loss_sum.item())
    assert losses[0] == losses[1] != losses[2]


def test_no_gradient_flows_through_sampling():
    batch, _ = pack_examples(toy_examples(10))
    model = ReplacedTokenDetection(*toy_pair()).train()
    model(batch).discriminator_loss_sum.backward()
    own = [p.grad for name, p in model.generator.named_parameters() if "embeddings." not in name]
    assert own and all(gradient is None for gradient in own)
    assert all(p.grad is not None for p in model.discriminator.parameters())


def test_gradient_checkpointing_changes_no_number():
    batch, _ = pack_examples(toy_examples(20))
    results = []
    for gradient_checkpointing in (False, True):
        pair = toy_pair(dropout=0.1)
        model = ReplacedTokenDetection(*pair, gradient_checkpointing=gradient_checkpointing).train()
        torch.manual_seed(5)
        output = model(batch)
        total_loss(output, batch).backward()
        results.append((output, gradients(model)))
    (one, one_gradients), (other, other_gradients) = results
    assert torch.equal(one.counters, other.counters)
    for name, gradient in one_gradients.items():
        torch.testing.assert_close(gradient, other_gradients[name], msg=name)


def test_bf16_autocast_keeps_the_losses_in_fp32(trained_pair):
    batch, _ = pack_examples(toy_examples(60))
    model = ReplacedTokenDetection(*copy.deepcopy(trained_pair)).train()
    exact = model(batch, batch.slot_labels)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch, batch.slot_labels)
    total_loss(output, batch).backward()
    assert output.generator_loss_sum.dtype == output.discriminator_loss_sum.dtype == torch.float32
    torch.testing.assert_close(output.generator_loss_sum, exact.generator_loss_sum, rtol=0.02, atol=0)
    torch.testing.assert_close(output.discriminator_loss_sum, exact.discriminator_loss_sum, rtol=0.02, atol=0)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_broken_weights_give_a_loss_that_shows_it_and_no_crash():
    """The loop stops with a clear line; an index out of range inside the model would come first, and unclear."""
    pair = toy_pair()
    with torch.no_grad():
        pair.generator.generator_lm_head.bias.fill_(torch.nan)
        pair.discriminator.discriminator_predictions.dense.bias.fill_(torch.inf)
    batch, _ = pack_examples(toy_examples(5))
    output = ReplacedTokenDetection(*pair)(batch)
    assert not output.generator_loss_sum.isfinite() and not output.discriminator_loss_sum.isfinite()
    assert ((output.sampled >= 0) & (output.sampled < pair.generator.config.vocab_size)).all()


def test_every_parameter_is_named_once_and_learns():
    model = ReplacedTokenDetection(*toy_pair()).train()
    batch, _ = pack_examples(toy_examples(40))
    total_loss(model(batch), batch).backward()
    still = [name for name, p in model.named_parameters() if not p.grad.any()]
    assert still == [], "no gradient"
    set_dropout(model, 0.3)
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}


def test_without_attention_boundaries_a_row_is_one_text_in_training_only(trained_pair):
    batch, _ = pack_examples(toy_examples(30, seed=9), rows=12)
    plain = eager_copy(trained_pair).eval()
    pair = copy.deepcopy(trained_pair)
    model = ReplacedTokenDetection(*pair, attention_boundaries=False).train()
    output = model(batch)

    inputs = dict(
        token_type_ids=batch.token_type_ids, position_ids=batch.position_ids, attention_mask=batch.real.long()
    )
    rows, slots = torch.nonzero(batch.slot_used, as_tuple=True)
    logits = plain["generator"](batch.corrupted_ids, **inputs).logits[rows, batch.slot_positions[rows, slots]]
    loss = torch.nn.functional.cross_entropy(logits, batch.slot_labels[rows, slots], reduction="sum")
    torch.testing.assert_close(output.generator_loss_sum, loss, rtol=1e-5, atol=0)
    ids = batch.input_ids.clone()
    ids[rows, batch.slot_positions[rows, slots]] = output.sampled[rows, slots]
    logits = plain["discriminator"](ids, **inputs).logits
    torch.testing.assert_close(output.discriminator_logits[batch.real], logits[batch.real], rtol=1e-4, atol=1e-5)

    bounded = ReplacedTokenDetection(*pair)
    assert not torch.equal(output.generator_loss_sum, bounded.train()(batch).generator_loss_sum)
    assert torch.equal(model.eval()(batch).counters, bounded.eval()(batch).counters)
    language_model = MaskedLanguageModeling(pair.generator, attention_boundaries=False)
    assert torch.equal(language_model.train()(batch).generator_loss_sum, output.generator_loss_sum)
    assert torch.equal(language_model.eval()(batch).generator_loss_sum, bounded.eval()(batch).generator_loss_sum)
