"""Every format gives the same rows; what is broken is named with its place."""

import csv
import gzip
import json

import pandas
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from electra_accel.data.split import text_hashes
from electra_accel.errors import UserError
from electra_accel.finetuning.rows import Row, read_dataset, read_file
from tests.finetuning.small import task

RECORDS = [
    {"one": "첫 문장, 쉼표", "two": "b", "y": 1},
    {"one": 'says "hi"', "two": "", "y": 0},
]
WANTED = [Row(("첫 문장, 쉼표", "b"), "1"), Row(('says "hi"', ""), "0")]


def write(path, suffix):
    if suffix == ".parquet":
        pandas.DataFrame(RECORDS).to_parquet(path)
    elif suffix in (".csv", ".tsv"):
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["one", "two", "y"], delimiter="\t" if suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(RECORDS)
    else:
        text = json.dumps(RECORDS, indent=1) if suffix == ".json" else "\n".join(map(json.dumps, RECORDS)) + "\n\n"
        path.write_bytes(gzip.compress(text.encode()) if suffix == ".jsonl.gz" else text.encode())


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".jsonl.gz", ".parquet"])
def test_formats_agree(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    write(path, suffix)
    assert read_file(path, task(kind="pair", text_columns=["one", "two"], label_column="y")) == WANTED


CONLL = """# id = 1
-DOCSTART- -X- O

# a comment of many words
The DT O
Seoul NNP B-LOC

# O
##\tx\tO
last\tx\tB-ORG"""


def test_columns_of_words(tmp_path):
    """A sentence of # signs is no comment; a file need not end with a blank line."""
    path = tmp_path / "train.conll"
    path.write_text(CONLL)
    assert read_file(path, task(kind="tagging")) == [
        Row(("The", "Seoul"), ("O", "B-LOC")),
        Row(("#", "##", "last"), ("O", "O", "B-ORG")),
    ]


def test_lists_of_words(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"tokens": ["a", "b"], "tags": ["O", "B-X"]}')
    assert read_file(path, task(kind="tagging")) == [Row(("a", "b"), ("O", "B-X"))]


def test_a_dataset_as_on_the_hub(tmp_path):
    """Numbers of classes become their names; a test split whose labels are withheld, all -1, is left out."""
    label, tags = ClassLabel(names=["bad", "good"]), List(ClassLabel(names=["O", "B-X"]))

    def write_split(split: str, labels: list) -> None:
        rows = {"text": ["a", "b"], "label": labels, "tokens": [["a"], ["b", "c"]], "tags": [[1], [0, 1]]}
        features = Features({"text": Value("string"), "label": label, "tokens": List(Value("string")), "tags": tags})
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{split}.parquet")

    for split, labels in (("train", [1, 0]), ("validation", [0, 0]), ("test", [-1, -1])):
        write_split(split, labels)
    found = read_dataset(task(train_file=None, dataset=str(tmp_path)))
    assert found == {
        "train": [Row(("a",), "good"), Row(("b",), "bad")],
        "dev": [Row(("a",), "bad"), Row(("b",), "bad")],
    }
    found = read_dataset(task(train_file=None, dataset=str(tmp_path), kind="tagging"))
    assert found["test"] == [Row(("a",), ("B-X",)), Row(("b", "c"), ("O", "B-X"))]
    write_split("validation", [-1, 1])
    with pytest.raises(UserError, match="dev, row 1: .* -1 "):
        read_dataset(task(train_file=None, dataset=str(tmp_path)))


def test_labels_in_a_record_of_the_hub(tmp_path):
    """As KLUE's: a figure among others, under a name with a dot."""
    rows = {"text": ["a", "b"], "labels": [{"real-label": 3.5, "label": 4}, {"real-label": 0.0, "label": 0}]}
    for split in ("train", "validation"):
        Dataset.from_dict(rows).to_parquet(tmp_path / f"{split}.parquet")
    found = read_dataset(task(train_file=None, dataset=str(tmp_path), label_column="labels.real-label"))
    assert found["dev"] == [Row(("a",), "3.5"), Row(("b",), "0")]


def test_splits_of_mnli(tmp_path):
    """Two dev splits: the one whose texts are like those of training is dev; both test splits are without labels."""
    (tmp_path / "data").mkdir()
    for name in ("train", "validation_mismatched", "validation_matched", "test_matched", "test_mismatched"):
        rows = {"text": [name], "label": [-1 if "test" in name else 1]}
        Dataset.from_dict(rows).to_parquet(tmp_path / "data" / f"{name}-00000-of-00001.parquet")
    found = read_dataset(task(train_file=None, dataset=str(tmp_path)))
    assert found == {"train": [Row(("train",), "1")], "dev": [Row(("validation_matched",), "1")]}


BROKEN = {
    "columns.tsv": ("classification", "sentence\tlabel\na\tb\n", ["'text'", "sentence, label", "task.text_columns"]),
    "twice.tsv": ("classification", "text\tlabel\ttext\na\tx\tb\n", ["2 columns are called 'text'"]),
    "labels.csv": ("classification", "label,text,label\nx,a,y\n", ["2 columns are called 'label'"]),
    "label.tsv": ("classification", "text\tlabel\na\tx\nb\t\n", ["line 3", "no label", "task.label_column"]),
    "cells.csv": ("classification", 'text,label\na,x\nb,"c\n', ["line 3", "csv"]),
    "cut.jsonl": ("classification", '{"text": "a", "label": 1}\n{"text": \n', ["line 2", "json"]),
    "list.jsonl": ("classification", '{"text": "a", "label": 1}\n[1, 2]\n', ["line 2", "[1, 2]"]),
    "field.jsonl": ("classification", '{"text": "a"}\n', ["line 1", "'label'"]),
    "number.jsonl": ("classification", '{"text": 5, "label": 1}\n', ["line 1", "int"]),
    "null.jsonl": ("classification", '\n{"text": "a", "label": null}\n', ["line 2", "no label"]),
    "nan.json": ("classification", '[{"text": "a", "label": 1}, {"text": "a", "label": NaN}]', ["row 2", "no label"]),
    "text.txt": ("classification", "a line\n", ["txt", "tsv"]),
    "header.tsv": ("classification", "text\tlabel\n", ["no rows"]),
    "words.bio": ("tagging", "The O\nSeoul\n", ["line 2", "'Seoul'"]),
    "lengths.jsonl": ("tagging", '{"tokens": ["a"], "tags": []}\n', ["line 1", "one length"]),
    "bytes.jsonl": ("classification", b'{"text": "f\xfc", "label": 1}\n', ["UTF-8"]),
    "table.parquet": ("classification", "not parquet", ["parquet"]),
    "cut.jsonl.gz": ("classification", gzip.compress(b'{"text": "a", "label": 1}\n' * 99)[:-9], ["cut-off"]),
    "not.jsonl.xz": ("classification", "not xz", ["damaged"]),
    "cut.bio.gz": ("tagging", gzip.compress(b"The O\n" * 99)[:-9], ["cut-off"]),
    "cut.parquet": ("classification", b"PAR1" + bytes(60) + b"PAR1", ["parquet"]),
    "missing.bio": ("tagging", None, ["no such file"]),
    "missing.csv": ("classification", None, ["no such file"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named(tmp_path, name):
    kind, content, expected = BROKEN[name]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        read_file(path, task(kind=kind))
    assert all(words in str(caught.value) for words in [name, *expected]), caught.value


def test_half_a_character_and_whole_numbers(tmp_path):
    """JSON can hold what no UTF-8 file can, and 1 as 1.0."""
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "bad \\ud83d", "label": 1.0}\n{"text": "good", "label": 1}\n{"text": "x", "label": 0.5}\n'
    )
    found = read_file(path, task())
    assert found == [Row(("bad \ufffd",), "1"), Row(("good",), "1"), Row(("x",), "0.5")]
    assert len(text_hashes([row.texts[0] for row in found])) == 3
