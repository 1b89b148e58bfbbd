import copy

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from electra_accel.errors import UserError
from electra_accel.model.pair import (
    build_pair,
    check_pair,
    initialise,
    pair_configs,
    warm_start_generator,
)
from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.model.sharing import share
from tests.model.batches import VOCAB, pack_examples, toy_examples, toy_pair
from tests.shared_embeddings import assert_shared


def configs(size="tiny", **changes):
    settings = dict(vocab_size=30522, pad_token_id=0, max_length=128, generator_width=None)
    return pair_configs(size, **(settings | changes))


def shape(c):
    return (c.num_hidden_layers, c.hidden_size, c.num_attention_heads, c.intermediate_size, c.embedding_size)


@pytest.mark.parametrize(
    ("size", "discriminator", "generator", "millions"),
    [
        ("tiny", (4, 128, 4, 512, 128), (4, 32, 1, 128, 128), 4.8),
        ("small", (12, 256, 4, 1024, 128), (12, 64, 1, 256, 128), 13.5),  # published as 14M
        ("base", (12, 768, 12, 3072, 768), (12, 256, 4, 1024, 768), 108.9),  # 110M
        ("large", (24, 1024, 16, 4096, 1024), (24, 256, 4, 1024, 1024), 334.1),  # 335M
    ],
)
def test_the_published_sizes(size, discriminator, generator, millions):
    generator_config, discriminator_config = configs(size)
    assert shape(generator_config) == generator and shape(discriminator_config) == discriminator
    with torch.device("meta"):
        encoder = ElectraForPreTraining(discriminator_config).electra
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_generator_width_is_rounded_to_whole_heads_of_the_discriminators_size():
    assert shape(configs("base", generator_width=0.5)[0]) == (12, 384, 6, 1536, 768)
    assert shape(configs("tiny", generator_width=0.01)[0]) == (4, 32, 1, 128, 128)
    assert shape(configs("tiny", generator_width=1.0)[0]) == shape(configs("tiny")[1])


def test_positions_grow_with_the_longest_example_only_beyond_512():
    assert [c.max_position_embeddings for c in configs(max_length=64) + configs(max_length=700)] == [512, 512, 700, 700]


def test_initial_weights_are_berts_and_depend_on_seed_and_name_only():
    pair = toy_pair(seed=3)
    torch.manual_seed(99)
    again, other = toy_pair(seed=3), toy_pair(seed=4)
    for network in ("generator", "discriminator"):
        others = dict(getattr(other, network).named_parameters())
        repeats = dict(getattr(again, network).named_parameters())
        for name, parameter in getattr(pair, network).named_parameters():
            assert torch.equal(parameter, repeats[name]), name
            if name.endswith("bias"):
                assert (parameter == 0).all()
            elif "LayerNorm" in name:
                assert (parameter == 1).all()
            else:
                n = parameter.numel()
                assert abs(parameter.mean()) < 5 * 0.02 / n**0.5
                assert parameter.std().item() == pytest.approx(0.02, rel=5 / n**0.5)
                assert not torch.equal(parameter, others[name])
    queries = [layer.attention.self.query.weight for layer in pair.discriminator.electra.encoder.layer]
    assert not torch.equal(queries[0], queries[1]) and not torch.equal(queries[0], -queries[1])
    values = torch.cat([p.flatten() for n, p in pair.discriminator.named_parameters() if p.ndim == 2]) / 0.02
    assert (values.abs() > 3).double().mean().item() == pytest.approx(0.0027, rel=0.1)  # tails of a normal distribution


def test_initialise_only_the_named_parameters():
    network = toy_pair().discriminator
    before = copy.deepcopy(network.state_dict())
    initialise(network, "discriminator", 50, only=["discriminator_predictions.dense.weight"])
    assert [n for n, p in network.state_dict().items() if not torch.equal(p, before[n])] == [
        "discriminator_predictions.dense.weight"
    ]


def test_tied_embeddings_and_lm_head_are_one_parameter_with_the_discriminators_values():
    pair = toy_pair()
    assert_shared(*pair, "tied")
    names = [name for name, _ in ReplacedTokenDetection(*pair).named_parameters()]
    assert sum("embeddings.word" in name for name in names) == 1 and not any("lm_head.weight" in n for n in names)


def embeddings_of(network):
    return dict(network.electra.embeddings.named_parameters())


@pytest.mark.parametrize(
    ("size", "width", "expected"),
    [
        ("tiny", None, (4, 32, 1, 128, 128)),
        ("small", None, (12, 64, 1, 256, 128)),
        ("base", None, (12, 256, 4, 1024, 768)),
        ("large", None, (24, 256, 4, 1024, 1024)),
        ("base", 0.5, (12, 384, 6, 1536, 768)),
    ],
)
def test_a_warm_started_generator_has_the_published_shape(size, width, expected):
    _, config = configs(size, vocab_size=50)
    config.num_hidden_layers, layers = 1, config.num_hidden_layers  # one is enough to see the shape
    generator, _ = warm_start_generator(ElectraForPreTraining(config), width=width, dropout=0.1, seed=1)
    assert shape(generator.config) == (1, *expected[1:]) and layers == expected[0]


def test_another_hidden_size_gets_a_quarter():
    _, config = configs("tiny", vocab_size=50)
    config.hidden_size, config.num_attention_heads, config.intermediate_size = 256 + 64, 8, 1000
    generator, _ = warm_start_generator(ElectraForPreTraining(config), width=None, dropout=0.1, seed=1)
    assert shape(generator.config) == (4, 80, 2, 250, 128)


def test_a_warm_started_generator_has_the_discriminators_embeddings_and_fresh_layers(tmp_path):
    discriminator = toy_pair(seed=7).discriminator
    with torch.no_grad():
        discriminator.electra.embeddings.LayerNorm.bias += 0.3
    before = copy.deepcopy(discriminator.state_dict())
    generator, report = warm_start_generator(discriminator, width=None, dropout=0.25, seed=1)
    theirs = embeddings_of(discriminator)
    for name, parameter in embeddings_of(generator).items():
        assert torch.equal(parameter, theirs[name]) and parameter is not theirs[name]
    assert generator.generator_lm_head.weight is generator.electra.embeddings.word_embeddings.weight
    again, _ = warm_start_generator(discriminator, width=None, dropout=0.25, seed=1)
    other, _ = warm_start_generator(discriminator, width=None, dropout=0.25, seed=2)
    dense = "electra.encoder.layer.1.output.dense.weight"
    assert torch.equal(generator.get_parameter(dense), again.get_parameter(dense))
    assert not torch.equal(generator.get_parameter(dense), other.get_parameter(dense))
    assert generator.get_parameter(dense).std().item() == pytest.approx(0.02, rel=0.1)
    assert {m.p for m in generator.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}
    assert len(report) == 1 and "hidden size 32, 1 head" in report[0]
    assert all(torch.equal(value, before[name]) for name, value in discriminator.state_dict().items())
    share(generator, discriminator, "tied")
    check_pair(generator.config, discriminator.config, VOCAB, 128)
    generator.save_pretrained(tmp_path)
    _, found = ElectraForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"]


def test_saved_folders_are_stock_models_with_the_published_dropout(tmp_path, trained_pair):
    """Trained without attention dropout and here with dropout 0, yet what people fine-tune has .1 and gives our logits."""
    pair = copy.deepcopy(trained_pair)
    model = ReplacedTokenDetection(*pair).eval()
    for role, network in pair._asdict().items():
        network.save_pretrained(tmp_path / role)
        config = ElectraConfig.from_pretrained(tmp_path / role)
        assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.1, 0.1)
        assert config._attn_implementation in (None, "sdpa", "eager")
    discriminator = ElectraForPreTraining.from_pretrained(tmp_path / "discriminator").eval()
    generator = AutoModelForMaskedLM.from_pretrained(tmp_path / "generator").eval()
    assert isinstance(generator, ElectraForMaskedLM)
    assert generator.generator_lm_head.weight is generator.electra.embeddings.word_embeddings.weight
    AutoModel.from_pretrained(tmp_path / "discriminator")
    (example,) = toy_examples(1)
    batch, _ = pack_examples([example])
    ids, types = torch.tensor([example.tokens]), torch.tensor([example.token_types])
    ours = model(batch, batch.slot_labels)
    stock = discriminator(ids, token_type_ids=types).logits[0]
    torch.testing.assert_close(ours.discriminator_logits[0, : len(stock)], stock, rtol=0, atol=1e-5)
    scores = generator(torch.tensor([example.corrupted]), token_type_ids=types).logits[0, example.selected]
    assert ours.generator_argmax[0, : len(example.selected)].tolist() == scores.argmax(-1).tolist()


def test_a_fitting_pair_passes():
    check_pair(*configs(), tokenizer_vocab_size=30522, max_length=512)


def test_networks_that_share_nothing_need_only_one_vocabulary():
    generator, discriminator = configs("small")[0], configs("base", max_length=600)[1]
    check_pair(generator, discriminator, tokenizer_vocab_size=30522, max_length=512, sharing="none")
    with pytest.raises(UserError, match="data.max_length 600 .* 512"):
        check_pair(generator, discriminator, tokenizer_vocab_size=30522, max_length=600, sharing="none")
    discriminator.vocab_size = 30523
    with pytest.raises(UserError, match="the size of the vocabulary differs"):
        check_pair(generator, discriminator, tokenizer_vocab_size=30522, max_length=512, sharing="none")


def test_one_network_must_read_what_the_tokenizer_writes():
    config = configs("tiny")[1]
    check_pair(config, None, tokenizer_vocab_size=30522, max_length=512)
    with pytest.raises(UserError, match="30523 .* 30522.*max_length 513"):
        check_pair(config, None, tokenizer_vocab_size=30523, max_length=513)


def test_every_misfit_is_named_in_one_line():
    generator, _ = configs("small", vocab_size=100)
    _, discriminator = configs("base", vocab_size=90, max_length=600)
    discriminator.type_vocab_size = 1
    with pytest.raises(UserError) as caught:
        check_pair(generator, discriminator, tokenizer_vocab_size=101, max_length=1000)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("generator 100, discriminator 90", "embedding_size", "token types", "positions differs"):
        assert part in message
    assert "tokenizer has 101 tokens, the model only 90" in message
    assert "data.max_length 1000 " in message and " 512 " in message


def test_dropout_is_set_in_the_modules_alone():
    pair = build_pair(
        "tiny", vocab_size=VOCAB, pad_token_id=0, max_length=32, generator_width=None, dropout=0.25, seed=1
    )
    for network in pair:
        assert {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)} == {0.25}
        assert network.config.hidden_dropout_prob == 0.1
