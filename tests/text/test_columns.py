"""A column is found by its name however that is written, and nothing is read but what was asked for."""

import gzip
import json
import unicodedata
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet
import pytest

from electra_accel.errors import UserError
from electra_accel.finetuning.config import Task
from electra_accel.finetuning.rows import read_file
from electra_accel.text.columns import Reader, column_index
from electra_accel.text.corpus import Corpus, read_documents, text_bytes
from electra_accel.text.readers import READERS, placed_texts

TEXTS = ["첫째", "둘째"]
FORMATS = [".csv", ".tsv", ".json", ".jsonl", ".parquet"]
NFD = unicodedata.normalize("NFD", "본문")


def texts_of(path, column, join_lines):
    return (text for _, text in placed_texts(path, column, join_lines))


def write(path, names, *columns):
    """A file of any format with these columns."""
    records = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if path.suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_arrays(list(map(pa.array, columns)), names=names), path)
    elif path.suffix in (".csv", ".tsv"):
        sign = "," if path.suffix == ".csv" else "\t"
        path.write_text("".join(sign.join(row) + "\n" for row in [names, *zip(*columns, strict=True)]))
    else:
        path.write_text(json.dumps(records) if path.suffix == ".json" else "\n".join(map(json.dumps, records)))
    return path


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("header", [NFD, "본문 ", "본\u200b문"], ids=["decomposed", "blank", "zero-width"])
def test_a_name_in_another_writing_is_found(tmp_path, suffix, header):
    path = write(tmp_path / f"a{suffix}", ["id", header], ["1", "2"], TEXTS)
    assert list(texts_of(path, "본문", False)) == TEXTS
    assert list(texts_of(write(path, ["id", "본문"], ["1", "2"], TEXTS), header, False)) == TEXTS


@pytest.mark.parametrize("suffix", FORMATS)
def test_two_columns_that_look_alike_are_refused(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", [NFD, "본문"], TEXTS, TEXTS)
    with pytest.raises(UserError, match=rf"a{suffix}.*2 columns are called '본문'.*rename"):
        list(texts_of(path, "본문", False))
    assert list(texts_of(write(path, [NFD, "본문", "other"], TEXTS, TEXTS, TEXTS), "other", False)) == TEXTS


def test_records_may_write_a_name_differently(tmp_path):
    (tmp_path / "a.jsonl").write_text(f'{{"{NFD}": "a"}}\n{{"x": "b"}}\n{{"본문": "c"}}\n')
    assert list(texts_of(tmp_path / "a.jsonl", "본문", False)) == ["a", "", "c"]


TROUBLE = {
    "a date that Python has not": pa.array([2**30] * 2, pa.date32()),
    "a time zone that nobody knows": pa.array([0] * 2, pa.timestamp("us", tz="Mars/Phobos")),
    "bytes that are no text": pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(bytes([0] * 4 + [1] + [0] * 3 + [2] + [0] * 3)), pa.py_buffer(b"\xff\xfe")]
    ),
}


def parquet(path, **columns):
    pa.parquet.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("trouble", TROUBLE)
def test_other_columns_of_parquet_are_not_read(tmp_path, trouble):
    path = parquet(tmp_path / "a.parquet", when=TROUBLE[trouble], text=TEXTS)
    assert list(texts_of(path, "text", False)) == TEXTS


def test_a_column_is_not_taken_for_its_neighbour(tmp_path):
    """Names with dots, which parquet also writes for fields in records; and two others of one name."""
    table = pa.Table.from_arrays(
        [pa.array(["x"]), pa.array(["a"]), pa.array([1]), pa.array([2])], ["t.b", "t", "n", "n"]
    )
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    assert [list(texts_of(tmp_path / "a.parquet", name, False)) for name in ("t", "t.b")] == [["a"], ["x"]]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_text_of_every_kind_is_read(tmp_path, kind):
    path = parquet(tmp_path / "a.parquet", text=pa.array(["a", None, "c"]).cast(kind))
    assert list(texts_of(path, "text", False)) == ["a", "", "c"]


NO_TEXT = {
    "list": pa.array([["a", "b"]]),
    "struct": pa.array([{"a": "b"}]),
    "map": pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string())),
    "int64": pa.array([1]),
    "decimal": pa.array([Decimal("1.5")]),
    "binary": pa.array([b"a"]),
    "bool": pa.array([True]),
}


@pytest.mark.parametrize("kind", NO_TEXT)
def test_a_column_without_text_is_named(tmp_path, kind):
    path = parquet(tmp_path / "a.parquet", text=NO_TEXT[kind])
    with pytest.raises(UserError, match=rf"a\.parquet: column 'text' holds {kind}.*, not text.*data\.text_column"):
        list(texts_of(path, "text", False))


def test_text_that_is_not_utf8_is_named(tmp_path):
    path = parquet(tmp_path / "a.parquet", text=TROUBLE["bytes that are no text"])
    with pytest.raises(UserError, match=r"a\.parquet: .*not UTF-8.*rows 1 to .*text"):
        list(texts_of(path, "text", False))


def test_a_reader_is_one_entry(tmp_path, monkeypatch):
    """A format that is known here alone, cells between semicolons: both jobs read it, compressed too."""

    class Semicolons(Reader):
        def rows(self, path, file, columns):
            header, *rows = (line.decode().rstrip().split(";") for line in file)
            places = [column_index(path, name, header) for name, _ in columns]
            for number, row in enumerate(rows, start=2):
                yield f"line {number}", [row[place] for place in places]

    monkeypatch.setitem(READERS, ".semi", Semicolons())
    path = tmp_path / "a.semi.gz"
    path.write_bytes(gzip.compress("label;text\n1;첫째\n2;둘째\n".encode()))
    corpus = Corpus(files=(str(tmp_path / "*.semi.gz"),))
    assert [batch.documents for batch in read_documents(corpus)] == [TEXTS] and text_bytes(corpus) > 20
    rows = read_file(path, Task(kind="classification", text_columns=["text"], label_column="label"))
    assert [(row.texts[0], row.label) for row in rows] == [("첫째", "1"), ("둘째", "2")]
    with pytest.raises(UserError, match="no column 'labels'; it has: label, text .*task.label_column"):
        read_file(path, Task(kind="classification", text_columns=["text"], label_column="labels"))
