"""What a model is called, and that nothing but its head is new."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import RobertaConfig

from electra_accel.errors import UserError
from electra_accel.finetuning.config import Settings, check
from electra_accel.finetuning.heads import build, names, open_encoder, require_positions
from electra_accel.finetuning.kinds.kind import Row
from electra_accel.model.fingerprint import fingerprint
from tests.finetuning.small import make_encoder, task_data

ROWS = {"train": [Row(("a",), "x"), Row(("b",), "y")]}


def data(kind="classification", **fields):
    return task_data(("x", "y", "z"), splits=ROWS, kind=kind, max_length=32, **fields)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("run") / "discriminator")


def test_names():
    assert names(
        ["runs/general/discriminator", "runs/adapted/discriminator/", "google/electra-small-discriminator"]
    ) == [
        "general",
        "adapted",
        "electra-small-discriminator",
    ]
    assert names(["a/run/encoder", "b/run/encoder", "untrained:b/run/encoder"]) == ["run", "b-run", "untrained-run"]
    assert names(["x/run/encoder", "x/run/discriminator", "y/run/encoder"]) == ["run", "run-discriminator", "y-run"]
    assert names(["x/run/generator", "y/run/discriminator"]) == ["run-generator", "run"]
    assert names(["x/run/corrector", "x/run/discriminator"]) == ["run-corrector", "run-discriminator"]
    assert names([".", "../a b", "/"]) == [Path.cwd().name, "a-b", "model"]


def test_a_folder_has_one_name_however_it_is_written(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    (tmp_path / "latest").symlink_to(folder)
    for written in ("discriminator", "discriminator/", "./discriminator", str(folder), str(tmp_path / "latest")):
        assert names([written]) == [folder.parent.name]
        with pytest.raises(UserError, match="models names one of them twice"):
            check(Settings(models=[str(folder), written]), [])
    assert names([f"untrained:{tmp_path / 'latest'}"]) == [f"untrained-{folder.parent.name}"]


def test_a_model_that_is_added_renames_none():
    """The folder of a fine-tuning has its name."""
    given = [
        "a/run/encoder",
        "b/run/encoder",
        "a/run/discriminator",
        "untrained:a/run/encoder",
        "c/b/run",
        "run",
        "c/run",
    ]
    found = names(given)
    assert len(set(found)) == len(given)
    assert all(names(given[:n]) == found[:n] for n in range(len(given)))


@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_only_the_head_is_new(folder, kind):
    saved = load_file(folder / "model.safetensors")
    one, same, other = (build(open_encoder(str(folder), "x"), data(kind), seed).state_dict() for seed in (1, 1, 2))
    encoder = [name for name in one if name.startswith("electra.")]
    assert len(encoder) > 20
    assert all(torch.equal(one[name], saved[name]) for name in encoder)
    head = [name for name in one if name.endswith("weight") and not name.startswith("electra.")]
    assert all(torch.equal(one[name], same[name]) and not torch.equal(one[name], other[name]) for name in head)
    assert list(one[head[-1]].shape) == [3, 32]


def test_a_fine_tuned_model_leaves_its_head_behind(folder, tmp_path):
    """All of it, also where its size would fit; the encoder it learnt stays."""
    learnt = build(open_encoder(str(folder), "x"), data(), 7)
    with torch.no_grad():
        for parameter in learnt.parameters():
            parameter += 1
    learnt.save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, tmp_path / "model")
    again = open_encoder(str(tmp_path / "model"), "x")
    one, same, other = (build(again, data(), seed).state_dict() for seed in (1, 1, 2))
    for name, value in learnt.state_dict().items():
        in_encoder = name.startswith("electra.")
        assert torch.equal(one[name], value) == in_encoder and torch.equal(one[name], same[name]), name
        assert torch.equal(one[name], other[name]) == (in_encoder or name.endswith("bias")), name


def test_untrained_has_the_shape_alone(folder):
    saved = load_file(folder / "model.safetensors")
    encoder = open_encoder(f"untrained:{folder}", "x")
    found = build(encoder, data(), 1).state_dict()
    tables = [name for name in found if name.startswith("electra.") and found[name].ndim == 2]
    assert not any(torch.equal(found[name], saved[name]) for name in tables)
    assert encoder.fingerprint != open_encoder(str(folder), "x").fingerprint


def test_fingerprint_knows_the_weights(folder, tmp_path):
    same, other = (make_encoder(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    fingerprints = [open_encoder(str(path), "x").fingerprint for path in (folder, same, other)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_fingerprint_knows_how_a_vocabulary_is_used(tmp_path):
    """Also beside a tokenizer.json: the library treats letters as the settings say, and not as that file does."""
    folder = make_encoder(tmp_path / "a")
    settings = json.loads((folder / "tokenizer_config.json").read_text())

    def fingerprints():
        for more in (
            {"do_lower_case": True},
            {"do_lower_case": False},
            {"do_lower_case": False, "strip_accents": True},
        ):
            (folder / "tokenizer_config.json").write_text(json.dumps(settings | more))
            yield fingerprint(folder)

    as_saved, found = fingerprint(folder), list(fingerprints())
    assert len(set(found)) == 3 and found[0] == as_saved
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("a")
    assert len(set(fingerprints())) == 3
    cased, longer = ({"do_lower_case": False, "model_max_length": length} for length in (128, 512))
    same = []
    for more in (cased, longer):
        (folder / "tokenizer_config.json").write_text(json.dumps(more))
        same.append(fingerprint(folder))
    assert same[0] == same[1]


def test_a_mistyped_folder_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # which need not be asked half a minute long
    with pytest.raises(UserError, match="folder no-such-model.* hub "):
        open_encoder("no-such-model", "x")


@pytest.mark.parametrize(
    ("changed", "said"), [({"hidden_size": "wide"}, "hidden_size"), ({"id2label": 3}, ""), ({"num_labels": "x"}, "")]
)
def test_a_configuration_with_a_value_of_another_type_is_named(tmp_path, changed, said):
    folder = make_encoder(tmp_path / "a")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(UserError, match=f"cannot load {folder}: .*{said}"):
        open_encoder(str(folder), "x")


def test_what_is_no_encoder_is_named(folder, tmp_path):
    lacking, short = (make_encoder(tmp_path / name) for name in ("lacking", "short"))
    weights = load_file(lacking / "model.safetensors")
    weights.pop("electra.encoder.layer.1.output.dense.weight")
    save_file(weights, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=" 1 .*electra.encoder.layer.1.output"):
        build(open_encoder(str(lacking), "x"), data(), 1)
    with pytest.raises(UserError, match="128 positions.* task.max_length 200"):
        require_positions(open_encoder(str(folder), "x"), 200)
    counts_from_padding = RobertaConfig(
        vocab_size=18,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=130,
        pad_token_id=1,
    )
    roberta = replace(open_encoder(str(folder), "x"), config=counts_from_padding)
    require_positions(roberta, 128)
    with pytest.raises(UserError, match="128 positions.* task.max_length 129"):
        require_positions(roberta, 129)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"vocab_size": 5}))
    with pytest.raises(UserError, match="18 tokens in its tokenizer, 5 in the model"):
        open_encoder(str(short), "x")
    (lacking / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot load"):
        build(open_encoder(str(lacking), "x"), data(), 1)
