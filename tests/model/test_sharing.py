import copy

import pytest
import torch
from transformers import ElectraForPreTraining

from electra_accel.model.pair import Pair
from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.model.sharing import TABLES, fold, share
from tests.model.batches import VOCAB, pack_examples, total_loss, toy_examples, toy_pair
from tests.shared_embeddings import assert_shared


def separate_pair() -> Pair:
    """Two networks that never shared anything; the generator's own discriminator is thrown away."""
    return Pair(toy_pair(seed=5).generator, toy_pair(seed=6).discriminator)


def shared_pair(how: str) -> Pair:
    pair = separate_pair()
    share(*pair, how)
    return pair


def tables(network):
    return [parameter for name, parameter in network.electra.embeddings.named_parameters() if "LayerNorm" not in name]


@pytest.mark.parametrize("how", ["tied", "none", "gdes"])
def test_sharing_lasts_through_a_step_a_copy_and_a_change_of_dtype_and_names_are_unique(how):
    pair = shared_pair(how)
    model = ReplacedTokenDetection(*pair)
    batch, _ = pack_examples(toy_examples(8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    total_loss(model(batch), batch).backward()
    optimizer.step()
    assert [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])] == []
    assert_shared(*pair, how)
    duplicate = copy.deepcopy(model)
    assert_shared(duplicate.generator, duplicate.discriminator, how)
    storages = {parameter.data_ptr() for parameter in model.parameters()}
    assert not storages & {parameter.data_ptr() for parameter in duplicate.parameters()}
    assert_shared(*(pair := Pair(*(network.double() for network in pair))), how)
    # the state of a gdes pair has the base under the generator's name alone
    names = [name for name in model.discriminator.state_dict() if "embeddings." in name and "LayerNorm" not in name]
    assert {name.rpartition(".")[2] for name in names} == {"delta" if how == "gdes" else "weight"}
    model.load_state_dict(duplicate.state_dict())
    assert all(torch.equal(a, b.double()) for a, b in zip(model.parameters(), duplicate.parameters(), strict=True))


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ("tied", "position_embeddings"),
        ("tied", "LayerNorm"),
        ("gdes", "word_embeddings"),
        ("gdes", "token_type_embeddings"),
    ],
)
def test_what_came_apart_is_named(how, part):
    pair = shared_pair(how)
    setattr(pair.generator.electra.embeddings, part, copy.deepcopy(getattr(pair.generator.electra.embeddings, part)))
    with pytest.raises(RuntimeError, match=part):
        assert_shared(*pair, how)


@pytest.mark.parametrize("how", ["tied", "none", "gdes"])
def test_an_lm_head_that_came_apart_is_named(how):
    pair = shared_pair(how)
    pair.generator.generator_lm_head.weight = torch.nn.Parameter(torch.zeros(VOCAB, 128))
    with pytest.raises(RuntimeError, match="generator_lm_head.weight"):
        assert_shared(*pair, how)


def test_sharing_changes_no_logit_of_the_discriminator():
    batch, _ = pack_examples(toy_examples(10))
    alone = ReplacedTokenDetection(*separate_pair()).eval()(batch, batch.slot_labels).discriminator_logits
    for how in ("tied", "none", "gdes"):
        logits = ReplacedTokenDetection(*shared_pair(how)).eval()(batch, batch.slot_labels).discriminator_logits
        torch.testing.assert_close(logits, alone, rtol=0, atol=1e-5)


def test_gdes_keeps_the_tasks_apart_exactly():
    pair = shared_pair("gdes")
    model = ReplacedTokenDetection(*pair).train()
    batch, _ = pack_examples(toy_examples(20))
    model(batch).discriminator_loss_sum.backward()
    assert all(parameter.grad is None for parameter in pair.generator.parameters())
    assert all(table.grad.any() for table in tables(pair.discriminator))
    model.zero_grad(set_to_none=True)
    model(batch).generator_loss_sum.backward()
    assert all(parameter.grad is None for parameter in pair.discriminator.parameters())
    assert all(table.grad.any() for table in tables(pair.generator))


def test_the_gradient_of_delta_is_that_of_a_plain_table():
    """E_D = E_G + delta, so dL/d delta = dL/d E_D, which the folded network gives without any of our code."""
    batch, _ = pack_examples(toy_examples(20))
    pair = shared_pair("gdes")
    plain = copy.deepcopy(pair)
    fold(plain.discriminator)
    for each in (pair, plain):
        ReplacedTokenDetection(*each).train()(batch).discriminator_loss_sum.backward()
    for mine, theirs in zip(tables(pair.discriminator), tables(plain.discriminator), strict=True):
        assert torch.equal(mine.grad, theirs.grad)


def test_delta_is_exactly_0_where_the_tables_are_equal_and_else_their_difference():
    fresh = toy_pair(sharing="gdes")
    assert_shared(*fresh, "gdes")
    assert all(not getattr(fresh.discriminator.electra.embeddings, name).delta.any() for name in TABLES)
    generator, discriminator = separate_pair()
    wanted = [(theirs - mine).detach() for mine, theirs in zip(tables(generator), tables(discriminator), strict=True)]
    share(generator, discriminator, "gdes")
    assert all(torch.equal(delta, want) for delta, want in zip(tables(discriminator), wanted, strict=True))


def test_fresh_networks_that_share_nothing_start_from_different_tables():
    pair = toy_pair(sharing="none")
    assert_shared(*pair, "none")
    assert not any(torch.equal(a, b) for a, b in zip(tables(pair.generator), tables(pair.discriminator), strict=True))


def test_the_folded_export_is_a_stock_network_with_the_modules_logits(tmp_path):
    pair = shared_pair("gdes")
    model = ReplacedTokenDetection(*pair).eval()
    (example,) = toy_examples(1)
    batch, _ = pack_examples([example])
    before = model(batch, batch.slot_labels).discriminator_logits
    fold(pair.discriminator)
    assert torch.equal(model(batch, batch.slot_labels).discriminator_logits, before), "bit for bit"
    pair.discriminator.save_pretrained(tmp_path)
    stock, found = ElectraForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    logits = stock.eval()(torch.tensor([example.tokens]), token_type_ids=torch.tensor([example.token_types])).logits[0]
    torch.testing.assert_close(before[0, : len(logits)], logits, rtol=0, atol=1e-5)
    with torch.no_grad():  # its tables are its own
        pair.generator.electra.embeddings.word_embeddings.weight.zero_()
    assert torch.equal(model(batch, batch.slot_labels).discriminator_logits, before)
