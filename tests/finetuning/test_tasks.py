"""Splits share no text, and targets stand where they belong."""

import unicodedata

import numpy as np
import pytest
import torch

from electra_accel.errors import UserError
from electra_accel.finetuning.kinds.kind import Row
from electra_accel.finetuning.tasks import IGNORED, encode, load_task
from electra_accel.text.tokenizer import load_tokenizer, train_tokenizer
from tests.finetuning.small import make_encoder, rows, task, task_data, write_jsonl


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(make_encoder(tmp_path_factory.mktemp("encoder")))


def test_split_by_text(tmp_path):
    """Each row stands in exactly one split; equal texts stay together."""
    records = rows(600) + rows(600)
    path = write_jsonl(tmp_path / "all.jsonl", records)
    data = load_task(task(train_file=str(path), dev_fraction=0.2, test_fraction=0.1))
    parts = {name: [row.texts for row in part] for name, part in data.splits.items()}
    assert sorted(text for part in parts.values() for text in part) == sorted((r["text"],) for r in records)
    assert not set(parts["train"]) & set(parts["dev"]) | set(parts["test"]) & set(parts["dev"] + parts["train"])
    # four standard deviations of 600 draws, each counted twice
    assert abs(len(parts["dev"]) / 1200 - 0.2) < 4 * (0.2 * 0.8 / 600) ** 0.5
    assert abs(len(parts["test"]) / 1200 - 0.1) < 4 * (0.1 * 0.9 / 600) ** 0.5
    assert len(data.notes) == 1


def test_given_splits_that_share_texts_are_told(tmp_path):
    train, dev = rows(50), rows(50, seed=2)[:20]
    train.append(dev[3])
    files = {f"{n}_file": str(write_jsonl(tmp_path / f"{n}.jsonl", r)) for n, r in (("train", train), ("dev", dev))}
    files["test_file"] = str(write_jsonl(tmp_path / "test.jsonl", [dev[5], {"text": "w1 w2 w3 w4", "label": "no"}]))
    found = load_task(task(**files, test_fraction=0.2)).notes
    shared = sum(r["text"] in {t["text"] for t in train} for r in dev)
    assert found[1].startswith(f"{shared} of the 20 texts of dev ")
    assert "1 of the 2 texts of test stand in dev too" in found
    assert found[-1].startswith("task.test_fraction ")


def test_a_class_that_is_not_judged_is_told(tmp_path):
    """Dev chooses the epoch: without one of two classes it would choose by the other alone."""
    records = rows(50)
    files = {"train_file": str(write_jsonl(tmp_path / "train.jsonl", records))}
    only = [record for record in rows(40, seed=2) if record["label"] == "no"]
    files["dev_file"] = str(write_jsonl(tmp_path / "dev.jsonl", only))
    assert "dev has no row with the label 'yes'" in load_task(task(**files)).notes
    files["dev_file"] = str(write_jsonl(tmp_path / "both.jsonl", rows(40, seed=2)))
    assert not [note for note in load_task(task(**files)).notes if "no row" in note]


def test_fewer_training_rows_are_a_part_of_more(tmp_path):
    path = str(write_jsonl(tmp_path / "all.jsonl", rows(300)))
    few, more = (load_task(task(train_file=path, train_rows=n)) for n in (40, 100))
    assert few.rows("train", 1) == more.rows("train", 1)[:40]
    assert few.rows("train", 1) != few.rows("train", 2)
    assert few.rows("dev", 1) == more.rows("dev", 2)
    assert few.splits == more.splits


def test_tags_stand_at_the_first_piece(tokenizer):
    """Against an implementation that tokenises word by word; a word without a piece, and what is cut off, has no target."""
    sentences = [Row(("w12", "bad", " ", "w3"), ("O", "B-X", "O", "O")), Row(("w1",) * 9, ("B-X", "I-X") + ("O",) * 7)]
    labels = ("B-X", "I-X", "O")
    data = task_data(labels, kind="tagging", max_length=12)
    encoded = encode(sentences, data, tokenizer)
    for i, row in enumerate(sentences):
        ids, targets, words = [tokenizer.cls_token_id], [IGNORED], []
        for word, (text, tag) in enumerate(zip(row.texts, row.label)):
            pieces = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))
            ids += pieces
            targets += [labels.index(tag), *[IGNORED] * (len(pieces) - 1)] if pieces else []
            words += [word] if pieces else []
        ids, targets = ids[:11] + [tokenizer.sep_token_id], targets[:11] + [IGNORED]
        assert encoded.ids[i].tolist() == ids
        assert encoded.targets[i].tolist() == targets
        assert encoded.words[i].tolist() == words[: sum(t != IGNORED for t in targets)]
    assert encoded.cut == 1
    assert encoded.weights().tolist() == [3, 5]
    inputs, targets = encoded.batch(np.array([0, 1]))
    assert inputs["attention_mask"].sum(1).tolist() == [len(ids) for ids in encoded.ids]
    assert torch.equal(targets == IGNORED, (targets < 0))
    assert targets.shape == inputs["input_ids"].shape


def test_pairs_know_their_second_text(tokenizer):
    pairs = [Row(("bad w1", "good"), "1"), Row(("bad", "w1 w1"), "0")]
    data = task_data(("0", "1"), kind="pair")
    encoded = encode(pairs, data, tokenizer)
    assert tokenizer.convert_ids_to_tokens(encoded.ids[0]) == ["[CLS]", "bad", "w", "##1", "[SEP]", "good", "[SEP]"]
    assert encoded.types[0].tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert encoded.targets == [1, 0]


def test_numbers_are_learnt_in_standard_units(tmp_path, tokenizer):
    path = write_jsonl(tmp_path / "all.jsonl", rows(200))
    data = load_task(task(kind="regression", train_file=str(path), label_column="score"))
    targets = np.array(encode(data.splits["train"], data, tokenizer).targets)
    assert abs(targets.mean()) < 1e-6 and abs(targets.std() - 1) < 1e-6 and targets.dtype == np.float32


WRONG = {
    "one label": ({}, [{"text": f"w{i}", "label": "x"} for i in range(50)], ["one label only", "'x'"]),
    "a label a row": ({}, [{"text": f"w{i}", "label": i} for i in range(100)], ["different labels", "regression"]),
    "no numbers": (
        {"kind": "regression"},
        [{"text": f"w{i}", "label": "x"} for i in range(50)],
        ["'x'", "not a number"],
    ),
    "one number": ({"kind": "regression"}, [{"text": f"w{i}", "label": 3} for i in range(50)], ["all training labels"]),
    "an empty test split": ({"test_fraction": 1e-9}, rows(60), ["left for test", "task.test_fraction"]),
    "two ways": ({}, [{"text": f"w{i}", "label": ["1", "1.0", "2"][i % 3]} for i in range(50)], ["'1'", "'1.0'"]),
    "too few rows": ({"train_rows": 500}, rows(100), ["fewer than task.train_rows 500"]),
}


def test_large_whole_numbers_are_labels_of_their_own(tmp_path):
    """Also where fp64 would take them for one."""
    large = [2**64 - 1, 2**64 - 2, 9]
    path = write_jsonl(tmp_path / "all.jsonl", [{"text": f"w{i}", "label": large[i % 3]} for i in range(60)])
    assert load_task(task(train_file=str(path))).kind.labels == ("9", str(2**64 - 2), str(2**64 - 1))


@pytest.mark.parametrize("what", WRONG)
def test_labels_that_no_such_task_can_have(tmp_path, what):
    fields, records, expected = WRONG[what]
    path = str(write_jsonl(tmp_path / "all.jsonl", records))
    with pytest.raises(UserError) as caught:
        load_task(task(train_file=path, **fields))
    assert all(words in str(caught.value) for words in ["all.jsonl", *expected]), caught.value


def test_unknown_labels_are_named(tmp_path):
    files = {"train": rows(50), "dev": [{"text": "w1", "label": "maybe"}]}
    files = {f"{name}_file": str(write_jsonl(tmp_path / f"{name}.jsonl", records)) for name, records in files.items()}
    with pytest.raises(UserError, match=r"dev.jsonl, row 1: dev has the label 'maybe'"):
        load_task(task(**files))


def test_labels_of_any_writing(tmp_path):
    """Numbers stand in their order, and what only looks like one is a word."""
    for labels, wanted in ((["10", "-2", "1"], ("-2", "1", "10")), (["--1", "2"], ("--1", "2"))):
        path = write_jsonl(
            tmp_path / "a.jsonl", [{"text": f"w{i}", "label": labels[i % len(labels)]} for i in range(60)]
        )
        assert load_task(task(train_file=str(path))).kind.labels == wanted


NAVER = [("-", "LOC-B", "-"), ("PER-B", "PER-I", "-")]


def test_tags_that_name_no_entities(tmp_path):
    """They would be counted as if they did; as tags they are learnt, without one that nobody gave."""
    records = [{"tokens": ["w1", f"w{i}", "w3"], "tags": NAVER[i % 2]} for i in range(60)]
    path = str(write_jsonl(tmp_path / "naver.jsonl", records))
    with pytest.raises(UserError, match="naver.jsonl, line 1: .*'-' .*--task.metric accuracy"):
        load_task(task(kind="tagging", train_file=path))
    data = load_task(task(kind="tagging", train_file=path, metric="accuracy"))
    assert data.kind.labels == ("-", "LOC-B", "PER-B", "PER-I")
    nothing = [{"tokens": [f"w{i}"], "tags": ["O"]} for i in range(60)]
    path = str(write_jsonl(tmp_path / "nothing.jsonl", nothing))
    with pytest.raises(UserError, match="nothing.jsonl: .*'O'"):
        load_task(task(kind="tagging", train_file=path))
    (tmp_path / "header.tsv").write_text("word\tner\nSeoul\tB-LOC\n\nis\tO\n")
    with pytest.raises(UserError, match="sentence 1: the tag 'ner' .*header"):
        load_task(task(kind="tagging", train_file=str(tmp_path / "header.tsv")))


def test_rows_without_text_are_told(tmp_path):
    records = rows(60) + [{"text": " ", "label": "no"}, {"text": "", "label": "yes"}]
    path = str(write_jsonl(tmp_path / "all.jsonl", records))
    notes = load_task(task(train_file=path, dev_file=str(write_jsonl(tmp_path / "dev.jsonl", rows(9))))).notes
    assert "2 of the 62 rows of train have no text" in notes and not any("rows of dev have" in note for note in notes)


def test_columns_that_lines_of_words_do_not_have_are_told(tmp_path):
    text = "".join(f"w{i}\tB-LOC\nis\tO\n\n" for i in range(60))
    (tmp_path / "ner.conll").write_text(text)
    fields = dict(kind="tagging", train_file=str(tmp_path / "ner.conll"))
    told = "task.text_columns and task.label_column are not used: words stand first in a line and tags last"
    assert told not in load_task(task(**fields)).notes
    assert told in load_task(task(label_column="ner", **fields)).notes


def test_decomposed_text_gives_the_ids_of_composed_text(tmp_path):
    """As pre-training reads it: macOS writes Hangul as single letters, which no vocabulary holds."""
    texts = ["정말 재밌다", "별로 재미없다"]
    tokenizer = train_tokenizer(lambda: [texts * 20], 120, tmp_path)
    data = task_data(("no", "yes"))
    composed, decomposed = (
        encode([Row((unicodedata.normalize(form, text),), "yes") for text in texts], data, tokenizer).ids
        for form in ("NFC", "NFD")
    )
    assert all(np.array_equal(*both) for both in zip(composed, decomposed, strict=True))
    assert tokenizer.unk_token_id not in np.concatenate(composed)
