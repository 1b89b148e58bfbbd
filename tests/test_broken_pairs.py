"""Pairs as one finds them in the wild: what is wrong with one is a single clear line and exit code 2; what can be used is
used, and told. The published layouts, by the script's --dry_run."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertTokenizer, RobertaConfig

from electra_accel.model.pair import build_pair
from tests.pretraining_runs import options, run_here, write_corpus
from tests.published import write_published

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,()'"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
WEIGHTS = "model.safetensors"
WORD_TABLE = "electra.embeddings.word_embeddings.weight"


def tokenizer(words):
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Text, and a pair without fault in each layout."""
    folder = tmp_path_factory.mktemp("broken")
    write_corpus(folder / "text.txt", most=300)
    shape = dict(vocab_size=len(WORDS), pad_token_id=0, max_length=512, generator_width=0.25, dropout=0.1, seed=1)
    pair = build_pair("tiny", **shape)
    write_published(pair, tokenizer(WORDS), folder / "good", "koelectra")
    write_published(pair, tokenizer(WORDS), folder / "good-bin", "google", "bin")
    return folder


@pytest.fixture
def dry_run(place, monkeypatch, capfd):
    """``dry_run("folder", …)`` -> exit code, stdout and the lines of stderr."""

    def run(pair: str, **changed):
        fresh = dict.fromkeys(("model__size", "model__generator_width", "tokenizer__train_vocab_size"))
        given = dict(model__generator=f"{pair}/generator", model__discriminator=f"{pair}/discriminator")
        arguments = [*options("text.txt", "run", **fresh | given | changed), "--dry_run"]
        code, out, err = run_here(arguments, place, monkeypatch, capfd)
        return code, out, [line for line in err.splitlines() if line.strip()]

    return run


def edit_config(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def wrong_vocabulary(pair):
    edit_config(pair / "generator", vocab_size=len(WORDS) + 7)


def other_architecture(pair):
    edit_config(pair / "discriminator", embedding_size=64)


def a_layer_missing(pair):
    edit_config(pair / "discriminator", num_hidden_layers=5)


def another_width(pair):
    edit_config(pair / "discriminator", hidden_size=64, intermediate_size=256)


def no_weights(pair):
    (pair / "discriminator" / WEIGHTS).unlink()


def no_config(pair):
    (pair / "generator" / "config.json").unlink()


def no_folder(pair):
    shutil.rmtree(pair / "generator")


def another_tokenizers_folder(pair):
    words = [*WORDS[:5], *reversed(WORDS[5:])]
    (pair / "generator" / "vocab.txt").write_text("".join(f"{word}\n" for word in words))


def a_bert(pair):
    shape = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=1, intermediate_size=32)
    BertForMaskedLM(BertConfig(vocab_size=len(WORDS), **shape)).save_pretrained(pair / "generator")


def a_roberta(pair):
    RobertaConfig(vocab_size=len(WORDS)).save_pretrained(pair / "discriminator")


def truncated(pair):
    file = pair / "generator" / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1000])


def truncated_header(pair):
    file = pair / "discriminator" / WEIGHTS
    file.write_bytes(file.read_bytes()[:100])


def lacks_a_part_of_the_encoder(pair):
    file = pair / "discriminator" / WEIGHTS
    tensors = load_file(file)
    del tensors["electra.encoder.layer.2.output.dense.weight"]
    save_file(tensors, file, metadata={"format": "pt"})


def swapped(pair):
    (pair / "generator").rename(pair / "other")
    (pair / "discriminator").rename(pair / "generator")
    (pair / "other").rename(pair / "discriminator")


def an_lfs_pointer(pair):
    """What git gives without git-lfs."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 451741507\n"
    (pair / "discriminator" / WEIGHTS).write_text(pointer)


class Planted:
    """Unpickled, it creates a file."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


def pickled_code(pair):
    no_weights(pair)
    torch.save({WORD_TABLE: Planted(pair / "was-executed")}, pair / "discriminator" / "pytorch_model.bin")


def a_truncated_bin(pair):
    no_weights(pair)
    whole = (pair.parent / "good-bin" / "discriminator" / "pytorch_model.bin").read_bytes()
    (pair / "discriminator" / "pytorch_model.bin").write_bytes(whole[:-5000])


def an_empty_bin(pair):
    no_weights(pair)
    (pair / "discriminator" / "pytorch_model.bin").write_bytes(b"")


def weights_that_are_no_numbers(pair):
    file = pair / "generator" / WEIGHTS
    tensors = load_file(file)
    tensors["electra.encoder.layer.1.output.dense.bias"][2] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})


def an_unknown_activation(pair):
    edit_config(pair / "discriminator", hidden_act="gelu_fancy")


def a_number_in_quotes(pair):
    edit_config(pair / "discriminator", vocab_size=str(len(WORDS)))


def a_layer_too_many(pair):
    edit_config(pair / "discriminator", num_hidden_layers=3)


FAULTS = {  # and what the line says
    wrong_vocabulary: ["the size of the vocabulary differs", str(len(WORDS) + 7), "take both from one run"],
    other_architecture: ["embedding_size differs", "generator 128, discriminator 64", "model.sharing none"],
    a_layer_missing: ["model.discriminator: ", "lacks", "electra.encoder.layer.4."],
    another_width: ["model.discriminator: cannot load", "config.json is that of another model", "by config.json [64]"],
    no_weights: ["model.discriminator: cannot load", WEIGHTS],
    no_config: ["model.generator: ", "has no config.json"],
    no_folder: ["model.generator: there is no folder"],
    another_tokenizers_folder: ["model.generator: ", "another vocabulary", "id 5 is", "'a' here"],
    a_bert: ["model.generator: ", "is a bert model, not an ELECTRA"],
    a_roberta: ["model.discriminator: ", "is a roberta model, not an ELECTRA"],
    truncated: ["model.generator: cannot load", "damaged or incomplete"],
    truncated_header: ["model.discriminator: cannot load", "damaged or incomplete"],
    lacks_a_part_of_the_encoder: ["model.discriminator: ", "lacks 1", "electra.encoder.layer.2.output.dense.weight"],
    swapped: ["model.generator: ", "is a discriminator; name the folder of a generator"],
    an_lfs_pointer: ["model.discriminator: cannot load", "damaged or incomplete"],
    a_truncated_bin: ["model.discriminator: cannot load", "corrupted"],
    an_empty_bin: ["model.discriminator: cannot load", "damaged"],
    weights_that_are_no_numbers: ["model.generator: ", "electra.encoder.layer.1.output.dense.bias", "not finite"],
    an_unknown_activation: ["model.discriminator: ", "config.json", "hidden_act is 'gelu_fancy'"],
    a_number_in_quotes: ["model.discriminator: ", "config.json", "'vocab_size'", f"'{len(WORDS)}'"],
    a_layer_too_many: ["model.discriminator: ", "config.json", "electra.encoder.layer.3."],
    pickled_code: ["model.discriminator: cannot load", "foreign code"],
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_broken_pair_is_one_clear_line(place, dry_run, fault):
    pair = place / fault.__name__
    shutil.copytree(place / "good", pair)
    fault(pair)
    code, _, errors = dry_run(f"./{pair.name}")
    assert code == 2
    assert len(errors) == 1 and errors[0].startswith("error: ") and len(errors[0]) < 600, errors
    assert all(words in errors[0] for words in FAULTS[fault]), errors[0]
    assert not (pair / "was-executed").exists()


@pytest.mark.parametrize("pair", ["good", "good-bin"])
def test_a_pair_without_fault_passes(dry_run, pair):
    code, out, errors = dry_run(f"./{pair}")
    assert code == 0, errors
    assert "were equal" in out and out.count(": all weights found and used") == 2


@pytest.mark.parametrize("sharing", ["tied", "none", "gdes"])
def test_drifted_embeddings_are_used_as_asked_and_told(place, dry_run, sharing):
    pair = place / f"drifted-{sharing}"
    shutil.copytree(place / "good", pair)
    file = pair / "generator" / WEIGHTS
    tensors = load_file(file)
    tensors[WORD_TABLE][9, 3] += 0.75
    save_file(tensors, file, metadata={"format": "pt"})
    code, out, errors = dry_run(f"./{pair.name}", model__sharing=sharing)
    assert code == 0, errors
    (line,) = [line for line in out.splitlines() if line.startswith("embeddings: ")]
    assert "word_embeddings.weight by up to 0.75" in line
