import copy
import json
import shutil

import pytest
import torch
from transformers import BertTokenizer, ElectraForMaskedLM

from electra_accel.errors import UserError
from electra_accel.model.loading import load_discriminator, load_encoder, load_networks, share_loaded
from electra_accel.model.pair import Pair, build_encoder
from electra_accel.text.tokenizer import load_tokenizer
from tests.model.batches import VOCAB, toy_pair
from tests.published import write_published
from tests.shared_embeddings import assert_shared


def load(folder, sharing="tied"):
    pair, report = load_networks(
        str(folder / "generator"),
        str(folder / "discriminator"),
        sharing=sharing,
        revision=None,
        tokenizer_vocab_size=VOCAB,
        max_length=128,
        dropout=0.1,
        seed=1,
    )
    return pair, report + share_loaded(pair, sharing)


def small_tokenizer():
    """VOCAB tokens, ids in order."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(VOCAB - 5))]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)})


def separate_pair():
    """Stock networks that never shared anything."""
    return Pair(toy_pair(seed=5).generator, toy_pair(seed=6).discriminator)


@pytest.mark.parametrize("like", ["koelectra", "google"])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_published_layouts_load_whole(tmp_path, like, kind):
    saved = separate_pair()
    write_published(saved, small_tokenizer(), tmp_path, like, kind)
    pair, report = load(tmp_path, "none")
    for one, other in zip(saved, pair, strict=True):
        theirs = dict(other.named_parameters())
        assert all(torch.equal(parameter, theirs[name]) for name, parameter in one.named_parameters())
    assert sum(line.endswith(": all weights found and used") for line in report) == len(report) - 1 == 2
    assert load_tokenizer(tmp_path / "discriminator").convert_tokens_to_ids(["[MASK]", "word7"]) == [4, 12]


PARTS = {  # what is left out of both: what is new in the generator, and in the discriminator; all but the bias are heads
    "discriminator_predictions": ([], ["discriminator_predictions.dense.weight"]),
    "generator_lm_head.bias": (["generator_lm_head.bias"], []),
    "generator_predictions": (["generator_predictions.LayerNorm.weight", "generator_predictions.dense.weight"], []),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_what_a_release_lacks_is_told_and_the_rest_is_loaded(tmp_path, part, kind):
    saved = separate_pair()
    write_published(saved, small_tokenizer(), tmp_path, kind=kind, lacking=(part,))
    torch.manual_seed(1)
    pair, report = load(tmp_path, "none")
    torch.manual_seed(2)
    again, _ = load(tmp_path, "none")
    for role, expected in zip(("generator", "discriminator"), PARTS[part], strict=True):
        mine, theirs = (dict(getattr(both, role).named_parameters()) for both in (pair, again))
        was = dict(getattr(saved, role).named_parameters())
        assert all(torch.equal(mine[name], theirs[name]) for name in mine), "never at random"
        assert all(torch.equal(mine[name], was[name]) for name in mine if not name.startswith(part))
        (line,) = [line for line in report if f"{role} {tmp_path}" in line]
        assert all(name in line for name in expected) and ("new, not in the checkpoint" in line) == bool(expected)
        assert line.startswith("warning: ") == (bool(expected) and part != "generator_lm_head.bias")


@pytest.mark.parametrize(("kind", "odd"), [("safetensors", True), ("bin", True), ("bin", False)])
def test_an_lm_head_of_its_own_is_told_and_tied_and_stays_so(tmp_path, kind, odd):
    saved = separate_pair()
    head = saved.generator.generator_lm_head
    difference = 0.5 * torch.eye(*head.weight.shape)
    if not odd:
        difference *= 0.009 * head.weight.detach().norm() / difference.norm()
    head.weight = torch.nn.Parameter(head.weight.detach() + difference)
    write_published(saved, small_tokenizer(), tmp_path / "in", kind=kind)
    pair, report = load(tmp_path / "in", "none")
    (line,) = [line for line in report if "LM head" in line]
    assert f"differed by up to {difference.max():.2g}" in line and "not used" in line
    assert line.startswith("warning: generator " if odd else "generator ")
    assert_shared(*pair, "none")
    pair.generator.save_pretrained(tmp_path / "out")
    stock = ElectraForMaskedLM.from_pretrained(tmp_path / "out")
    assert stock.generator_lm_head.weight is stock.electra.embeddings.word_embeddings.weight
    assert torch.equal(stock.generator_lm_head.weight, saved.generator.electra.embeddings.word_embeddings.weight)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_configuration_that_unties_is_overruled_and_exports_tied(tmp_path, kind):
    write_published(
        separate_pair(), small_tokenizer(), tmp_path / "in", kind=kind, lacking=["generator_lm_head.weight"]
    )
    file = tmp_path / "in" / "generator" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tie_word_embeddings": False}))
    pair, report = load(tmp_path / "in")
    assert_shared(*pair, "tied")
    assert not any("LM head" in line for line in report)
    pair.generator.save_pretrained(tmp_path / "out")
    stock = ElectraForMaskedLM.from_pretrained(tmp_path / "out")
    assert torch.equal(stock.generator_lm_head.weight, pair.discriminator.electra.embeddings.word_embeddings.weight)


def test_swapped_networks_are_refused(tmp_path):
    """Else both heads would be random: each is in the other folder."""
    pair = toy_pair(seed=5)
    write_published(pair, small_tokenizer(), tmp_path)
    shape = dict(sharing="none", revision=None, tokenizer_vocab_size=VOCAB, max_length=128, dropout=0.1, seed=1)
    generator, discriminator = str(tmp_path / "generator"), str(tmp_path / "discriminator")
    swapped = f"^model.generator: {discriminator} is a discriminator; name the folder of a generator"
    with pytest.raises(UserError, match=swapped):
        load_networks(discriminator, generator, **shape)
    with pytest.raises(UserError, match=swapped):
        load_networks(discriminator, discriminator, **shape)
    with pytest.raises(
        UserError, match=f"^model.discriminator: {generator} is a generator or a corrector; name the folder"
    ):
        load_networks(generator, generator, **shape)


def test_an_encoder_alone_is_enough_for_a_discriminator(tmp_path):
    saved = separate_pair()
    write_published(saved, small_tokenizer(), tmp_path)
    shutil.rmtree(tmp_path / "discriminator")
    saved.discriminator.electra.save_pretrained(tmp_path / "discriminator")
    pair, report = load(tmp_path, "none")
    assert torch.equal(
        pair.discriminator.electra.encoder.layer[1].output.dense.weight,
        saved.discriminator.electra.encoder.layer[1].output.dense.weight,
    )
    (line,) = [line for line in report if "discriminator_predictions.dense.weight" in line]
    assert line.startswith("warning: discriminator ") and "new" in line


@pytest.mark.parametrize(
    ("how", "says"), [("tied", "uses the discriminator's"), ("none", "keeps its own"), ("gdes", "plus")]
)
def test_drift_is_told_by_table_with_what_was_made_of_it(tmp_path, how, says):
    saved = toy_pair(seed=5)
    generator = copy.deepcopy(saved.generator)
    with torch.no_grad():
        generator.electra.embeddings.position_embeddings.weight[3, 4] += 0.25
    write_published(Pair(generator, saved.discriminator), small_tokenizer(), tmp_path)
    pair, report = load(tmp_path, how)
    table = saved.discriminator.electra.embeddings.position_embeddings.weight
    told = report[-2 if how == "tied" else -1]
    assert says in told and f"position_embeddings.weight by up to 0.25 ({0.25 / table.norm().item():.2%}" in told
    assert (how == "tied") == any("tables that it was not trained with" in line for line in report)
    assert "word_embeddings" not in report[-1] and "LayerNorm" not in report[-1]
    assert_shared(*pair, how)
    ids = torch.arange(20)[None]
    theirs = pair.discriminator.electra.embeddings.eval()(ids)
    torch.testing.assert_close(theirs, saved.discriminator.electra.embeddings.eval()(ids), rtol=0, atol=1e-6)


def test_networks_that_share_nothing_may_have_embeddings_of_different_sizes(tmp_path):
    generator = build_encoder("tiny", vocab_size=VOCAB, pad_token_id=0, max_length=600, dropout=0.1, seed=1)
    write_published(Pair(generator, toy_pair().discriminator), small_tokenizer(), tmp_path)
    with pytest.raises(UserError, match="number of positions differs"):
        load(tmp_path)
    _, report = load(tmp_path, "none")
    assert "position_embeddings.weight is [600, 128] and [512, 128]" in report[-1]


# --- one network alone --------------------------------------------------------------------------------------------


def alone(load_one, folder, **changes):
    settings = dict(revision=None, tokenizer_vocab_size=VOCAB, max_length=128, dropout=0.1, seed=1)
    return load_one(str(folder), **(settings | changes))


def test_an_encoder_under_a_new_lm_head(tmp_path):
    folder, saved = tmp_path, toy_pair(seed=5)
    write_published(saved, small_tokenizer(), folder)
    network, report = alone(load_encoder, folder / "discriminator")
    theirs = dict(saved.discriminator.named_parameters())
    mine = dict(network.named_parameters())
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs if name.startswith("electra."))
    assert network.generator_lm_head.weight is network.electra.embeddings.word_embeddings.weight
    assert "generator_predictions.dense.weight" in report[0] and "discriminator_predictions" in report[1]
    assert not any(line.startswith("warning: ") for line in report)  # a new LM head is what was asked for
    assert mine["generator_predictions.dense.weight"].std().item() == pytest.approx(0.02, rel=0.1)


def test_a_discriminator_alone(tmp_path):
    folder, saved = tmp_path, toy_pair(seed=5)
    write_published(saved, small_tokenizer(), folder)
    network, _ = alone(load_discriminator, folder / "discriminator")
    theirs = dict(saved.discriminator.named_parameters())
    assert all(torch.equal(parameter, theirs[name]) for name, parameter in network.named_parameters())
    with pytest.raises(UserError, match="max_length 600 .* 512"):
        alone(load_discriminator, folder / "discriminator", max_length=600)
