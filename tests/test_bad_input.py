"""A user's mistake ends in one clear line on stderr and exit code 2, and changes nothing on the disk."""

import os
import shutil

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from electra_accel.model.pair import build_pair
from tests.helpers import run_in_process
from tests.pretraining_runs import finish, options, run_here, start


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Files with one fault each, pairs that do not fit together, and a tokenizer without [MASK]."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "good.txt").write_text(
        "\n".join(f"Sentence number {i} of a small corpus about words." for i in range(300))
    )
    (folder / "good.csv").write_text("id,title,sen\n1,a,first text\n2,b,second text\n")
    (folder / "empty.txt").write_text("")
    (folder / "blank.txt").write_text("\n  \n\t\n")
    (folder / "latin1.txt").write_bytes("eins\nzwei\nf\xfcnf\n".encode("latin-1"))
    (folder / "broken.csv").write_text('id,sen\n1,"fine"\n2,"a","b","c"\n')
    (folder / "broken.jsonl").write_text('{"text": "fine"}\n{"text": "cut off\n')
    (folder / "broken.yaml").write_text("train:\n  steps: [1, 2\n")
    (folder / "wrong_key.yaml").write_text("train:\n  step: 10\n")
    (folder / "wrong_type.yaml").write_text("train:\n  steps: many\n")
    (folder / "other").mkdir()
    (folder / "other" / "notes.txt").write_text("not a run")
    letters = "abcdefghijklmnopqrstuvwxyzS0123456789."
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    vocabularies = {
        "whole": words,
        "permuted": words[:5] + words[:4:-1],
        "no_mask": [w for w in words if w != "[MASK]"],
    }
    for name, vocabulary in vocabularies.items():
        inner = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        special = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep", "mask")}
        special = {kind: token for kind, token in special.items() if token in vocabulary}
        PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder / name)
    for name, size in (("small_vocabulary", len(words)), ("large_vocabulary", len(words) + 10)):
        shape = dict(vocab_size=size, pad_token_id=0, max_length=512, generator_width=0.25, dropout=0.1, seed=1)
        for network, model in build_pair("tiny", **shape)._asdict().items():
            model.save_pretrained(folder / name / network)
            PreTrainedTokenizerFast.from_pretrained(folder / "whole").save_pretrained(folder / name / network)
    shutil.copytree(folder / "small_vocabulary", folder / "other_words")
    shutil.copytree(folder / "permuted", folder / "other_words" / "generator", dirs_exist_ok=True)
    shutil.copytree(folder / "small_vocabulary", folder / "no_tokenizer")
    for file in (folder / "no_tokenizer").glob("*/tokenizer*"):
        file.unlink()
    return folder


def pair(generator: str, discriminator: str) -> dict:
    return {
        "model__size": None,
        "model__generator_width": None,
        "tokenizer__train_vocab_size": None,
        "model__generator": f"{generator}/generator",
        "model__discriminator": f"{discriminator}/discriminator",
    }


MISTAKES = {
    "no such file": ({"data__train_files": "nowhere/*.txt"}, ["nowhere/*.txt"]),
    "empty file": ({"data__train_files": "empty.txt"}, ["empty.txt"]),
    "no usable text": ({"data__train_files": "blank.txt"}, ["blank.txt"]),
    "wrong column": ({"data__train_files": "good.csv", "data__text_column": "text"}, ["good.csv", "id, title, sen"]),
    "broken UTF-8": ({"data__train_files": "latin1.txt"}, ["latin1.txt", "3", "UTF-8"]),
    "broken csv": ({"data__train_files": "broken.csv", "data__text_column": "sen"}, ["broken.csv", "3"]),
    "broken json": ({"data__train_files": "broken.jsonl"}, ["broken.jsonl", "2"]),
    "unknown option": ({"train__stepz": 5}, ["train.stepz", "train.steps"]),
    "wrong type": ({"train__steps": "many"}, ["train.steps", "many"]),
    "broken YAML": ({"config": "broken.yaml"}, ["broken.yaml"]),
    "wrong key in YAML": ({"config": "wrong_key.yaml"}, ["wrong_key.yaml", "train.step"]),
    "wrong type in YAML": ({"config": "wrong_type.yaml"}, ["wrong_type.yaml", "train.steps", "many"]),
    "several impossible settings": (
        {"objective__mask_prob": 1.5, "train__batch_tokens": 1000, "eval__every": 0},
        ["objective.mask_prob", "train.batch_tokens 1000", "eval.every"],
    ),
    "not a multiple of the bin": ({"train__batch_tokens": 1000}, ["train.batch_tokens 1000", "960 or 1024"]),
    "no data": ({"data__train_files": None}, ["data.train_files"]),
    "fp16 on a CPU": ({"train__precision": "fp16"}, ["fp16", "GPU"]),
    "different vocabularies": (pair("small_vocabulary", "large_vocabulary"), ["vocabulary", "81", "91"]),
    "different vocabularies of one size": (
        pair("other_words", "small_vocabulary"),
        ["model.generator", "vocabulary", "id 5 is '##.'", "'a'"],
    ),
    "a tokenizer that is not the pair's": (
        pair("small_vocabulary", "small_vocabulary") | {"tokenizer__path": "permuted"},
        ["model.generator", "tokenizer.path", "id 5"],
    ),
    "a pair without a tokenizer": (pair("no_tokenizer", "no_tokenizer"), ["no_tokenizer/", "tokenizer.path"]),
    "over the positions": (
        pair("small_vocabulary", "small_vocabulary")
        | {"data__max_length": 600, "train__batch_tokens": 1200, "train__micro_batch_tokens": 600},
        ["600", "512"],
    ),
    "no such model": (pair("./missing", "./missing"), ["missing"]),
    "tokenizer without [MASK]": (
        {"tokenizer__path": "no_mask", "tokenizer__train_vocab_size": None},
        ["no_mask", "[MASK]"],
    ),
    "nothing held out": ({"data__eval_fraction": 0}, ["data.eval_fraction", "data.eval_files"]),
    "a folder of something else": ({"run__dir": "other"}, ["other", "run.dir"]),
    "no checkpoint there": ({"run__resume": "other"}, ["run.resume", "other"]),
    "a tracker that is not installed": ({"tracking__trackers": "clearml"}, ["tracking.trackers", "clearml"]),
}


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "prepared" not in path.parts}


@pytest.mark.parametrize("name", MISTAKES)
def test_one_line_exit_code_2_nothing_changed(place, name, monkeypatch, capfd):
    changed, words = MISTAKES[name]
    before = snapshot(place)
    code, _, error = run_here(options("good.txt", "runs/new", **changed), place, monkeypatch, capfd)
    error = [line for line in error.splitlines() if line.strip()]
    assert code == 2
    assert len(error) == 1 and error[0].startswith("error: "), error
    for word in words:
        assert word in error[0]
    assert snapshot(place) == before


def test_the_launcher_and_the_run_must_agree_on_the_precision(place):
    words = options("good.txt", "runs/new", train__precision="no")
    done = run_in_process("pretrain.py", *words, cwd=place, ACCELERATE_MIXED_PRECISION="bf16")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "train.precision is no" in done.stderr and "bf16" in done.stderr


@pytest.mark.skipif(
    os.geteuid() == 0, reason="root may write everywhere; the full disk is tested in test_run_folder.py"
)
def test_a_folder_without_permission(place, monkeypatch, capfd):
    (place / "locked").mkdir(mode=0o500)
    code, out, err = finish(start(options("good.txt", "locked/run"), place))
    assert code == 2 and "cannot be written" in err
