"""One label is one class however it is written, and what no label can be is named."""

import unicodedata

import pyarrow as pa
import pyarrow.parquet
import pytest

from electra_accel.errors import UserError
from electra_accel.finetuning.config import Task, check, resolve
from electra_accel.finetuning.config_parser import parse
from electra_accel.finetuning.heads import build, names, open_encoder
from electra_accel.finetuning.rows import Row, read_file
from electra_accel.finetuning.tasks import load_task
from tests.finetuning.small import make_encoder, task, write_jsonl

NFD = unicodedata.normalize("NFD", "긍정")
WRITINGS = ("긍정", NFD, "긍\u200b정", " 긍정\u00a0", "부정", "\ufeff부정")


def records(labels, number=60):
    return [{"text": f"w{i}", "label": labels[i % len(labels)]} for i in range(number)]


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl", ".parquet"])
def test_one_label_is_one_class(tmp_path, suffix):
    """From the file to the saved model's own names."""
    rows = records(WRITINGS)
    path = tmp_path / f"a{suffix}"
    if suffix == ".tsv":
        path.write_text("text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in rows))
    elif suffix == ".jsonl":
        write_jsonl(path, rows)
    else:
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    data = load_task(task(train_file=str(path), dev_fraction=0.2))
    assert data.kind.labels == ("긍정", "부정")
    model = build(open_encoder(str(make_encoder(tmp_path / "model")), "x"), data, 1)
    assert model.config.id2label == {0: "긍정", 1: "부정"} and model.config.num_labels == 2


def test_splits_may_write_a_label_and_a_text_differently(tmp_path):
    """A text in another composition is the same text, which stands in two splits."""
    text = "재미있다"
    train = [*records(("긍정", "부정")), {"text": text, "label": "긍정"}]
    dev = [{"text": unicodedata.normalize("NFD", text), "label": NFD}, {"text": "x", "label": "부정 "}]
    files = {"train": train, "dev": dev}
    files = {f"{name}_file": str(write_jsonl(tmp_path / f"{name}.jsonl", rows)) for name, rows in files.items()}
    data = load_task(task(**files))
    assert [row.label for row in data.splits["dev"]] == ["긍정", "부정"]
    assert "1 of the 2 texts of dev stand in train too" in data.notes


def test_labels_that_differ_by_case_are_told(tmp_path):
    notes = load_task(task(train_file=str(write_jsonl(tmp_path / "a.jsonl", records(("Good", "good", "bad")))))).notes
    assert any("'Good' and 'good'" in note for note in notes)
    notes = load_task(task(train_file=str(write_jsonl(tmp_path / "a.jsonl", records(("good", "bad")))))).notes
    assert len(notes) == 1
    words = [{"tokens": [f"w{i}", "v"], "tags": [("B-LOC", "B-loc")[i % 2], "O"]} for i in range(60)]
    notes = load_task(task(kind="tagging", train_file=str(write_jsonl(tmp_path / "a.jsonl", words)))).notes
    assert any("'B-LOC' and 'B-loc'" in note for note in notes)
    files = {"train_file": records(("good", "bad")), "dev_file": [{"text": "x", "label": "Good"}]}
    files = {name: str(write_jsonl(tmp_path / f"{name}.jsonl", rows)) for name, rows in files.items()}
    with pytest.raises(UserError, match="dev_file.jsonl, row 1: .*'Good'.*'good'"):
        load_task(task(**files))


def test_names_of_columns_tasks_and_models_have_one_way_of_writing(tmp_path):
    column = unicodedata.normalize("NFD", "평가")
    path = write_jsonl(tmp_path / "리뷰.jsonl", [{"본문 ": f"w{i}", column: ("a", "b")[i % 2]} for i in range(60)])
    data = load_task(
        task(train_file=str(path), text_columns=[unicodedata.normalize("NFD", "본문")], label_column="평가")
    )
    assert data.kind.labels == ("a", "b") and data.splits["train"][0].texts[0].startswith("w")
    assert (data.task.text_columns, data.task.label_column, data.task.name) == (["본문"], "평가", "리뷰")
    decomposed = unicodedata.normalize("NFD", "données")
    assert resolve(Task(train_file=f"{decomposed}.tsv")).name == resolve(Task(name=decomposed)).name == "données"
    assert names([f"runs/{unicodedata.normalize('NFD', '뉴스')}/discriminator"]) == ["뉴스"]


def test_tasks_of_a_suite_that_look_alike_are_two_of_one_name(tmp_path):
    (tmp_path / "suite.yaml").write_text(
        "tasks:\n" + "".join(f"  - {{name: {name}, kind: regression, train_file: a.tsv}}\n" for name in (NFD, "긍정"))
    )
    asked = parse(["--models", "m", "--suite", str(tmp_path / "suite.yaml")], "")
    with pytest.raises(UserError, match="two tasks are called 긍정"):
        check(asked.settings, asked.tasks)


KINDS = {
    "whole numbers": (pa.array([1, 0]), ("1", "0")),
    "floats": (pa.array([1.0, 0.5]), ("1", "0.5")),
    "decimals": (pa.array([1, 2.5]).cast(pa.decimal128(8, 3)), ("1", "2.5")),
    "truth": (pa.array([True, False]), ("True", "False")),
    "dictionary": (pa.array([NFD, "b "]).dictionary_encode(), ("긍정", "b")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_parquet(tmp_path, kind):
    column, wanted = KINDS[kind]
    table = {"text": ["x", "y"], "when": pa.array([2**30] * 2, pa.date32()), "label": column}
    pa.parquet.write_table(pa.table(table), tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet", task()) == [Row(("x",), wanted[0]), Row(("y",), wanted[1])]


NO_LABELS = {
    "date32": (pa.array([1] * 2, pa.date32()), {}),
    "binary": (pa.array([b"a", b"b"]), {}),
    "list": (pa.array([["a"], ["b"]]), {}),
    "string": (pa.array(["O", "O"]), {"kind": "tagging"}),
}


@pytest.mark.parametrize("kind", NO_LABELS)
def test_columns_of_parquet_without_labels_are_named(tmp_path, kind):
    column, fields = NO_LABELS[kind]
    table = {"text": ["x", "y"], "tokens": [["x"], ["y"]], "label": column}
    pa.parquet.write_table(pa.table(table), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=rf"a\.parquet: column 'label' holds {kind}.*task\.label_column"):
        read_file(tmp_path / "a.parquet", task(label_column="label", **fields))


def test_a_word_without_a_tag_is_named(tmp_path):
    """An empty cell of a list is no tag "None", and an empty word no word "None"."""
    write_jsonl(
        tmp_path / "a.jsonl", [{"tokens": ["a", None], "tags": ["O", "B-X"]}, {"tokens": ["a"], "tags": [None]}]
    )
    with pytest.raises(UserError, match="a.jsonl, line 2: no tag for word 1"):
        read_file(tmp_path / "a.jsonl", task(kind="tagging"))
    write_jsonl(tmp_path / "a.jsonl", [{"tokens": ["a", None], "tags": ["O", "B-X"]}])
    assert read_file(tmp_path / "a.jsonl", task(kind="tagging")) == [Row(("a", ""), ("O", "B-X"))]


def scores(*values):
    return [{"text": f"w{i}", "label": values[i % len(values)]} for i in range(60)]


UNLEARNABLE = {
    "too large for fp32": (scores("1e+308", "-1e308"), ["line 1", "'1e+308'", "fp32", "task.label_column"]),
    "one that is": (scores(*[0.5] * 30, "-4e38"), ["line 31", "'-4e38'", "fp32"]),
    "infinite": (scores(1, float("inf")), ["line 2", "'inf'", "not a number"]),
    "written as infinite": (scores("1", "1e999"), ["line 2", "'1e999'", "too large"]),
    "no number": (scores(1, "NaN"), ["line 2", "'NaN'", "not a number"]),
    "an empty cell": (scores(1, float("nan")), ["line 2", "no label"]),
    "all equal": (scores(0.1), ["all training labels are 0.1"]),
    "too little apart": (scores(0, 1e-200), ["training labels differ by less", "fp32"]),
}


@pytest.mark.parametrize("what", UNLEARNABLE)
def test_scores_that_cannot_be_learnt(tmp_path, what):
    """Before a step is made, and the learning rate is not to blame."""
    rows, expected = UNLEARNABLE[what]
    path = str(write_jsonl(tmp_path / "a.jsonl", rows))
    with pytest.raises(UserError) as caught:
        load_task(task(kind="regression", train_file=path))
    assert all(words in str(caught.value) for words in ["a.jsonl", *expected]), caught.value
    assert "learning_rate" not in str(caught.value)


def test_large_and_small_scores_can_be_learnt(tmp_path):
    for size in (1e20, 1e-20):
        path = str(write_jsonl(tmp_path / "a.jsonl", scores(size, 3 * size)))
        data = load_task(task(kind="regression", train_file=path))
        assert data.kind.deviation == pytest.approx(size, rel=0.1) and data.kind.mean == pytest.approx(
            2 * size, rel=0.1
        )
