"""Rows of new tokens: exactly the means of their pieces' rows, whatever was tied or padded; nothing else changes."""

import copy

import pytest
import torch
from transformers import AutoTokenizer, BertTokenizer, ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from electra_accel.errors import UserError
from electra_accel.model.sharing import share
from electra_accel.model.vocabulary import add_rows, extend_networks, pieces_of_new_tokens
from electra_accel.text.tokenizer import SPECIAL_TOKENS, save_tokenizer
from electra_accel.text.vocabulary import extend

TOKENS = [*SPECIAL_TOKENS, "un", "##der", "##stand", "##s", "a", "b", "##b"]  # ids 0 to 11
NEW = ["understand", "##bs", "ab", "☃"]
PIECES = [[5, 6, 7], [11, 8], [9, 11], [1]]


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return BertTokenizer(vocab={token: number for number, token in enumerate(TOKENS)})


def network(architecture, rows: int = 12):
    """Small and with random biases too; ``rows`` of the word table."""
    shape = dict(hidden_size=8, num_attention_heads=2, intermediate_size=16, num_hidden_layers=1, embedding_size=8)
    model = architecture(ElectraConfig(vocab_size=rows, pad_token_id=0, **shape)).eval()
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def test_pieces_by_the_old_vocabulary(tokenizer):
    assert pieces_of_new_tokens(tokenizer, extend(tokenizer, NEW)) == PIECES
    assert pieces_of_new_tokens(tokenizer, tokenizer) == []
    assert pieces_of_new_tokens(tokenizer, extend(tokenizer, ["ab"])) == [[9, 11]]


def test_a_tokenizer_that_is_no_extension_is_refused(tokenizer):
    swapped = [*TOKENS[:9], "b", "a", *TOKENS[11:]]
    other = BertTokenizer(vocab={token: number for number, token in enumerate(swapped)})
    for new in (other, BertTokenizer(vocab={token: number for number, token in enumerate(TOKENS[:8])})):
        with pytest.raises(UserError, match="data.prepared"):
            extend_networks([network(ElectraForPreTraining)], tokenizer, new)


@pytest.mark.parametrize("rows", [12, 14, 16, 20])
def test_rows_are_means_and_everything_else_stays(tokenizer, rows):
    """With 14 rows two are unused and two are added; with 20 none is added, and four stay unused."""
    generator = network(ElectraForMaskedLM, rows)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    extend_networks([generator], tokenizer, extend(tokenizer, NEW))
    after = generator.state_dict()
    assert before.keys() == after.keys()
    changed = {"electra.embeddings.word_embeddings.weight", "generator_lm_head.weight", "generator_lm_head.bias"}
    for name in after.keys() - changed:
        assert torch.equal(before[name], after[name]), name
    for name in changed:
        old, new = before[name], after[name]
        assert len(new) == max(rows, 16) and torch.equal(new[:12], old[:12]) and torch.equal(new[16:], old[16:])
        for number, pieces in enumerate(PIECES, start=12):
            mean = old[pieces].double().mean(0).float()
            torch.testing.assert_close(new[number], mean, rtol=3e-7, atol=1e-7)
    table, head = generator.electra.embeddings.word_embeddings, generator.generator_lm_head
    assert head.weight is table.weight
    assert table.padding_idx == 0 and table.num_embeddings == head.out_features == generator.config.vocab_size == max(
        rows, 16
    )


@pytest.mark.parametrize("architecture", [ElectraForMaskedLM, ElectraForPreTraining])
def test_known_tokens_give_the_same_logits_and_a_saved_network_is_whole(tokenizer, tmp_path, architecture):
    model = network(architecture)
    ids = torch.tensor([[2, 5, 6, 7, 9, 3]])
    before = model(ids).logits.detach()
    longer = extend(tokenizer, NEW)
    extend_networks([model], tokenizer, longer)
    after = model(ids).logits
    assert torch.equal(after[..., :12] if architecture is ElectraForMaskedLM else after, before)
    model.save_pretrained(tmp_path)
    save_tokenizer(longer, tmp_path)
    loaded, ids = architecture.from_pretrained(tmp_path).eval(), torch.tensor([[2, 12, 13, 14, 15, 3]])
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path)("understand").input_ids == [2, 12, 3]


def test_new_rows_learn_and_frozen_tables_stay_frozen(tokenizer):
    model, frozen = network(ElectraForPreTraining), network(ElectraForPreTraining)
    frozen.electra.embeddings.word_embeddings.weight.requires_grad_(False)
    extend_networks([model, frozen], tokenizer, extend(tokenizer, NEW))
    model(torch.tensor([[2, 12, 3]])).logits.sum().backward()
    assert model.electra.embeddings.word_embeddings.weight.grad[12].abs().sum() > 0
    assert not frozen.electra.embeddings.word_embeddings.weight.requires_grad


def test_a_pair_is_shared_after_it_has_grown(tokenizer):
    pair = network(ElectraForMaskedLM), network(ElectraForPreTraining)
    one_by_one = copy.deepcopy(pair[1])
    extend_networks(pair, tokenizer, extend(tokenizer, NEW))
    for number, pieces in enumerate(PIECES, start=12):
        add_rows(one_by_one, number, [pieces])
    share(*pair, "tied")
    assert pair[0].generator_lm_head.weight is pair[1].electra.embeddings.word_embeddings.weight
    assert torch.equal(pair[0].generator_lm_head.weight, one_by_one.electra.embeddings.word_embeddings.weight)
    assert pair[0](torch.tensor([[2, 15, 3]])).logits.shape == (1, 3, 16)
