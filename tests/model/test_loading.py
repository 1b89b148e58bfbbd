import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

from electra_accel.errors import UserError
from electra_accel.model.loading import load_networks, share_loaded
from tests.model.batches import VOCAB, toy_pair
from tests.shared_embeddings import assert_shared


@pytest.fixture
def folders(tmp_path):
    pair = toy_pair(seed=5)
    for role, network in pair._asdict().items():
        network.save_pretrained(tmp_path / role)
    return tmp_path, pair


def load(folder, sharing="tied", **changes):
    settings = dict(
        sharing=sharing,
        generator=str(folder / "generator"),
        discriminator=str(folder / "discriminator"),
        revision=None,
        tokenizer_vocab_size=VOCAB,
        max_length=128,
        dropout=0.1,
        seed=1,
    )
    pair, report = load_networks(**(settings | changes))
    return pair, report + share_loaded(pair, sharing)


def edit(file, change):
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def test_what_was_saved_is_what_is_loaded(folders):
    folder, saved = folders
    pair, report = load(folder)
    assert_shared(*pair, "tied")
    for one, other in zip(saved, pair, strict=True):
        theirs = dict(other.named_parameters())
        assert all(torch.equal(parameter, theirs[name]) for name, parameter in one.named_parameters())
        assert other.training and other.dtype == torch.float32
        assert {m.p for m in other.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}
    text = "\n".join(report)
    assert "were equal" in text and text.count(": all weights found and used") == 2 and len(report) == 3


def test_half_precision_and_pickled_checkpoints_are_trained_in_fp32(folders):
    folder, saved = folders
    file = folder / "discriminator" / "model.safetensors"
    torch.save({name: tensor.half() for name, tensor in load_file(file).items()}, file.parent / "pytorch_model.bin")
    file.unlink()
    pair, _ = load(folder)
    weight = pair.discriminator.electra.encoder.layer[0].intermediate.dense.weight
    assert weight.dtype == torch.float32
    torch.testing.assert_close(
        weight, saved.discriminator.electra.encoder.layer[0].intermediate.dense.weight, rtol=1e-3, atol=1e-4
    )


def test_a_missing_head_is_new_reported_and_the_same_every_time(folders):
    folder, _ = folders

    def behead(tensors):
        for name in [name for name in tensors if name.startswith("discriminator_predictions")]:
            del tensors[name]
        tensors["discriminator_predictions.old"] = torch.zeros(1)

    edit(folder / "discriminator" / "model.safetensors", behead)
    torch.manual_seed(1)
    first, report = load(folder)
    torch.manual_seed(2)
    second, _ = load(folder)
    head, again = (pair.discriminator.discriminator_predictions.dense.weight for pair in (first, second))
    assert torch.equal(head, again) and head.std().item() == pytest.approx(0.02, rel=0.1)
    title = f"discriminator {folder / 'discriminator'}: "
    new, unused = (line for line in report if title in line)
    assert new.startswith(f"warning: {title}new, not in the checkpoint: ")
    assert "discriminator_predictions.dense.weight" in new
    assert unused == f"{title}in the checkpoint, not used: discriminator_predictions.old"


def test_drifted_embeddings_are_reported_and_the_discriminators_taken(folders):
    folder, saved = folders
    name = "electra.embeddings.word_embeddings.weight"
    edit(folder / "generator" / "model.safetensors", lambda tensors: tensors[name].__setitem__((7, 3), 1.5))
    pair, report = load(folder)
    assert_shared(*pair, "tied")
    word = saved.discriminator.electra.embeddings.word_embeddings.weight
    assert torch.equal(pair.generator.generator_lm_head.weight, word)
    assert any(
        "word_embeddings.weight" in line and "1.5" in line for line in report if line.startswith("embeddings: tied")
    )
    assert report[-1].startswith("warning: ") and "model.sharing none" in report[-1]
    edit(folder / "generator" / "model.safetensors", lambda tensors: tensors.__setitem__(name, word.detach() * 1.001))
    assert "by up to" in load(folder)[1][-1], "a rounded copy is no other table"


def truncate(folder):
    file = folder / "generator" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def remove_weights(folder):
    (folder / "generator" / "model.safetensors").unlink()


def remove_layer(folder):
    edit(folder / "generator" / "model.safetensors", lambda t: t.pop("electra.encoder.layer.2.output.dense.weight"))


def break_json(folder):
    (folder / "generator" / "config.json").write_text('{"model_type":')


def widen(folder):
    file = folder / "generator" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"intermediate_size": 300}))


def make_it_bert(folder):
    config = BertConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=1, num_attention_heads=1, intermediate_size=32
    )
    BertForMaskedLM(config).save_pretrained(folder / "generator")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, "cannot load"),
        (remove_weights, "cannot load"),
        (remove_layer, "electra.encoder.layer.2.output.dense.weight"),
        (break_json, "not a valid JSON"),
        (widen, "cannot load"),
        (make_it_bert, "is a bert model, not an ELECTRA"),
    ],
)
def test_a_broken_generator_is_one_line_that_names_option_and_folder(folders, damage, says):
    folder, _ = folders
    damage(folder)
    with pytest.raises(UserError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    assert message.startswith("model.generator: ") and str(folder / "generator") in message and says in message


def test_a_folder_that_does_not_exist(folders):
    folder, _ = folders
    with pytest.raises(UserError, match="model.discriminator: .*nowhere"):
        load(folder, discriminator=str(folder / "nowhere"))


def test_a_hub_id_out_of_reach(folders, monkeypatch):
    """HF_HUB_OFFLINE is read at import time, hence the constant: the real code path without the real waiting."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder, _ = folders
    with pytest.raises(UserError) as caught:
        load(folder, generator="nobody/no-such-generator")
    assert "\n" not in str(caught.value) and "model.generator: cannot load nobody/no-such-generator" in str(
        caught.value
    )


def test_a_pair_that_does_not_fit_is_refused_before_weights_are_read(folders):
    folder, _ = folders
    for role in ("generator", "discriminator"):
        (folder / role / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=f"tokenizer has {VOCAB + 1} tokens.*max_length 513"):
        load(folder, tokenizer_vocab_size=VOCAB + 1, max_length=513)
