"""Configurations and weights: what cannot be used is one line that names option, folder and field, for each loader."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import ElectraForPreTraining

from electra_accel.engines import state
from electra_accel.errors import UserError
from electra_accel.finetuning.heads import build, open_encoder
from electra_accel.finetuning.kinds.kind import Row
from electra_accel.model.loading import load_config, load_discriminator, load_encoder, load_network
from tests.engines.saving import save_state
from tests.finetuning.small import make_encoder, task_data

LAYER = "electra.encoder.layer.1.output.dense.weight"
DATA = task_data(("x", "y"), splits={"train": [Row(("a",), "x")]}, max_length=32)
TO_TRAIN = dict(revision=None, tokenizer_vocab_size=18, max_length=32, dropout=0.1, seed=1)
LOADERS = {
    "pretrain": lambda folder: load_discriminator(folder, **TO_TRAIN),
    "pretrain mlm": lambda folder: load_encoder(folder, **TO_TRAIN),
    "detect, evaluate": lambda folder: load_network("--discriminator", ElectraForPreTraining, folder),
    "finetune, linear_probe": lambda folder: build(open_encoder(folder, "x"), DATA, 1),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("good") / "discriminator")


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "discriminator")


def refused(loader, folder) -> str:
    with pytest.raises(UserError) as caught:
        LOADERS[loader](str(folder))
    line = str(caught.value)
    assert "\n" not in line and len(line) < 700 and str(folder) in line
    assert line.startswith(("model.discriminator: ", "--discriminator: ", "models: "))
    return line


NAN = float("nan")
CONFIGURATIONS = {
    "an unknown activation": ({"hidden_act": "gelu_fancy"}, "hidden_act is 'gelu_fancy'"),
    "a number in quotes": ({"vocab_size": "400"}, "vocab_size"),
    "nothing": ({"hidden_size": None}, "hidden_size"),
    "a whole number as 4.0": ({"num_hidden_layers": 4.0}, "num_hidden_layers"),
    "a list": ({"intermediate_size": [64]}, "intermediate_size"),
    "no layers": ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
    "negative": ({"max_position_embeddings": -1}, "max_position_embeddings is -1"),
    "no types": ({"type_vocab_size": 0}, "type_vocab_size is 0"),
    "heads that do not divide": ({"num_attention_heads": 3}, "hidden_size 32 does not divide"),
    "dropout over 1": ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is 1.5"),
    "dropout that is no number": ({"attention_probs_dropout_prob": NAN}, "attention_probs_dropout_prob is nan"),
    "architectures that are no list": ({"architectures": True}, "architectures is True"),
    "an infinite epsilon": ({"layer_norm_eps": float("inf")}, "layer_norm_eps is inf"),
    "a range that is no number": ({"initializer_range": NAN}, "initializer_range is nan"),
    "more layers than a list can hold": ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
    "more labels than memory can hold": ({"num_labels": 10**10}, "num_labels is 10000000000"),
    "a table larger than any memory": ({"vocab_size": 4 * 10**9}, "parameters, which is another model's"),
    "padding beyond the vocabulary": ({"pad_token_id": 99}, "pad_token_id is 99"),
    "a decoder": ({"is_decoder": True}, "is_decoder"),
    "relative positions": ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
    "labels without numbers": ({"id2label": {"x": "a"}}, "'x'"),
    "labels in a list": ({"id2label": ["a", "b"]}, "describes no model"),
    "architectures that are no names": ({"architectures": [1]}, "architectures is [1]"),
    "an unknown architecture": ({"model_type": "electra-2"}, "electra-2"),
    "code of its own": ({"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}, "custom code"),
}
FILES = {"empty": "", "a list": "[1]", "a text": '"electra"', "cut off": '{"model_type":', "deep": '{"a":' * 50_000}
FILES |= {"no object": "null", "a long number": '{"vocab_size": ' + "9" * 5000 + "}"}


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("fault", CONFIGURATIONS)
def test_a_value_that_no_model_can_have_is_named(folder, loader, fault):
    changed, said = CONFIGURATIONS[fault]
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    assert said in refused(loader, folder)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("content", FILES)
def test_a_configuration_that_is_none_is_named(folder, loader, content):
    (folder / "config.json").write_text(FILES[content])
    assert "config.json" in refused(loader, folder)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(("layers", "said"), [(1, "layer.1."), (3, "layer.2.")])
def test_another_number_of_layers_than_the_weights_have_is_named(folder, loader, layers, said):
    """Fewer would be a network cut short, without a word."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_hidden_layers": layers}))
    assert said in refused(loader, folder)


def test_how_a_network_answers_is_no_fault(folder):
    file = folder / "config.json"
    ways = {
        "chunk_size_feed_forward": 7,
        "return_dict": False,
        "output_hidden_states": "yes",
        "output_attentions": True,
    }
    file.write_text(json.dumps(json.loads(file.read_text()) | ways))
    ids = torch.tensor([[2, 5, 8, 3]])
    found = load_network("--x", ElectraForPreTraining, str(folder))(ids)
    file.write_text(json.dumps({name: v for name, v in json.loads(file.read_text()).items() if name not in ways}))
    plain = load_network("--x", ElectraForPreTraining, str(folder))(ids)
    assert torch.equal(found.logits, plain.logits) and found.hidden_states is None


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf"), 1e300])
def test_weights_that_are_no_numbers_are_named(folder, loader, value):
    """1e300 is one in fp64 alone."""
    tensors = load_file(folder / "model.safetensors")
    tensors[LAYER] = tensors[LAYER].double()
    tensors[LAYER][3, 5] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    line = refused(loader, folder)
    assert LAYER in line and "1 of 2,048 numbers" in line and "not finite" in line


def test_untrained_takes_no_weights(folder):
    (folder / "model.safetensors").unlink()
    assert build(open_encoder(f"untrained:{folder}", "x"), DATA, 1).num_labels == 2
    assert load_config("--x", str(folder), None).num_hidden_layers == 2


@pytest.mark.parametrize("file", [state.MODEL_FILE, state.OPTIMIZER_FILE])
def test_a_checkpoint_with_nan_is_named(tmp_path, file):
    """Resume, export, the best epoch of a fine-tuning: they all read it here."""
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    save_state(tmp_path, state.Parts(model, optimizer), "AdamW")
    state.load_weights(model, tmp_path)
    state.load_optimizer(tmp_path, state.Parts(model, optimizer), "AdamW")
    tensors = load_file(tmp_path / file)
    name = "weight" if file == state.MODEL_FILE else "weight/exp_avg_sq"
    tensors[name][0, 1] = NAN
    save_file(tensors, tmp_path / file)
    with pytest.raises(UserError, match=f"{tmp_path / file}: 1 of 2 numbers in {name} are not finite"):
        state.load_weights(model, tmp_path)
        state.load_optimizer(tmp_path, state.Parts(model, optimizer), "AdamW")
