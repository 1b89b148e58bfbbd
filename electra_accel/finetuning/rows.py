"""Labelled rows of a file or of a data set on the hub, as they are written there.

Files are read by ``text/readers.py`` and ``text/parquet.py``, lines of words by ``word_lines.py``.
"""

import io
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from electra_accel.errors import UserError
from electra_accel.finetuning.config import Task
from electra_accel.finetuning.word_lines import read_sentences
from electra_accel.text import parquet
from electra_accel.text.readers import (
    COLUMN_OPTION,
    FORMATS,
    LONE_SURROGATE,
    column_index,
    file_errors,
    format_of,
    json_records,
    open_bytes,
    read_texts,
    regular_file,
    require_text,
)
from electra_accel.text.writing import normalise_name

SPLITS = {
    "train": ("train",),
    "dev": ("validation", "dev", "valid", "validation_matched"),  # the last one and its test: MNLI
    "test": ("test", "test_matched"),
}  # names on the hub


class Row(NamedTuple):
    """One labelled example.

    Attributes:
        texts: one text, or the two of a pair; tagging: the words.
        label: as it is written (a whole number as one: 1.0 is 1); tagging: one tag a word.
    """

    texts: tuple[str, ...]
    label: str | tuple[str, ...]


def read_file(path: Path, task: Task, tell: Callable[[str], None] = lambda line: None) -> list[Row]:
    """The rows of one file, in order.

    Args:
        tell: gets a line for a person about what was passed over.

    Raises:
        UserError: the file is missing, broken, empty, or lacks a column or a label; names it and the line or row.
    """
    with _our_options(), file_errors(path):
        regular_file(path)
        require_text(path)
        if has_lines_of_words(path, task):
            rows = [Row(*sentence) for sentence in read_sentences(path, tell)]
        elif format_of(path) == ".txt":
            raise UserError(
                f"{path}: a txt file has no columns; give csv, tsv, jsonl or parquet (option task.train_file)"
            )
        elif format_of(path) in (".csv", ".tsv"):
            names = (*task.text_columns, task.label_column)
            columns = [list(read_texts(path, name, join_lines=False)) for name in names]
            cells = enumerate(zip(*columns, strict=True), start=1)
            rows = [_row(f"{path}, row {number}", row, task) for number, row in cells]
        else:
            rows = list(_from_records(str(path), _records(path, task), task))
    if not rows:
        raise UserError(f"{path} holds no rows")
    return rows


@contextmanager
def _our_options() -> Iterator[None]:
    """The readers name the option of pre-training that is to blame for a column; here it is another."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(COLUMN_OPTION, "options task.text_columns and task.label_column")) from None


def has_lines_of_words(path: Path, task: Task) -> bool:
    """Whether a file has a word and its tag in a line, as in the CoNLL shared tasks, rather than records."""
    suffix = path.suffixes[-2:-1] if path.suffix.lower() in (".gz", ".xz") else path.suffixes[-1:]
    known = bool(suffix) and suffix[0].lower() in FORMATS
    return task.kind == "tagging" and (not known or suffix[0].lower() in (".txt", ".tsv", ".csv"))


def read_dataset(task: Task) -> dict[str, list[Row]]:
    """The splits of ``task.dataset`` by our names: train, and dev and test where it has them.

    A test split whose labels are all -1 is left out: that is how benchmarks such as GLUE withhold them.

    Raises:
        UserError: no such data set, the hub cannot be reached, or a column is missing.
    """
    import datasets  # here: it takes a second to import, and only this function needs it

    name, _, config = task.dataset.partition(":")
    try:
        found = datasets.load_dataset(name, config or None)
    except Exception as error:  # the client lets through what its HTTP library raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"task.dataset {task.dataset} cannot be had from the hub: {reason}; download it and name files"
        ) from None
    splits = {}
    for ours, theirs in SPLITS.items():
        split = next((found[name].flatten() for name in theirs if name in found), None)  # a.b of records in records
        if split is None:
            continue
        with _our_options():
            known, where = split.column_names, f"{task.dataset} {ours}"
            *texts, label = [
                known[column_index(where, name, known)] for name in (*task.text_columns, task.label_column)
            ]
            split = split.select_columns(
                list(dict.fromkeys([*texts, label]))
            )  # what the others hold is never looked at
            if ours == "test" and all(y == -1 for y in split[label]):
                continue
            places = ((f"row {number}", record) for number, record in enumerate(split, start=1))
            splits[ours] = list(_from_records(where, places, task, _class_names(split.features[label])))
    if "train" not in splits:
        raise UserError(f"task.dataset {task.dataset} has no split train, only {', '.join(found)}")
    return splits


def _class_names(feature: Any) -> list[str] | None:
    """What the numbers in a column of the hub stand for; None where they are not numbers of classes."""
    return getattr(getattr(feature, "feature", feature), "names", None)


def _records(path: Path, task: Task) -> Iterator[tuple[str, Any]]:
    """The records of a json, jsonl or parquet file, each with its place in it; of parquet the fields of the task alone."""
    names, is_tagging = [*task.text_columns, task.label_column], task.kind == "tagging"
    kinds = [*(parquet.WORDS if is_tagging else parquet.TEXT for _ in task.text_columns)]
    kinds.append(parquet.TAGS if is_tagging else parquet.LABEL)

    def choose(columns: list[str]) -> list[tuple[int, str]]:
        return [(column_index(path, name, columns), kind) for name, kind in zip(names, kinds, strict=True)]

    with open_bytes(path) as file:
        if format_of(path) == ".parquet":
            rows = enumerate(parquet.read_columns(path, file, choose, COLUMN_OPTION), start=1)
            yield from ((f"row {number}", dict(zip(names, row, strict=True))) for number, row in rows)
        else:
            yield from json_records(path, io.TextIOWrapper(file, "utf-8-sig"))


def _from_records(
    source: str, records: Iterable[tuple[str, Any]], task: Task, names: list[str] | None = None
) -> Iterator[Row]:
    """Args: names: what numbers in the label column stand for, if they are classes."""
    wanted = (*task.text_columns, task.label_column)
    for place, record in records:
        where = f"{source}, {place}"
        if not isinstance(record, dict):
            raise UserError(f"{where}: not a record with named fields but {str(record)[:40]!r}")
        fields = tuple(record)
        cells = [record[fields[column_index(where, name, fields)]] for name in wanted]
        if names:
            numbers = cells[-1] if isinstance(cells[-1], list) else [cells[-1]]
            if wrong := [c for c in numbers if c is None or not 0 <= c < len(names)]:
                raise UserError(
                    f"{where}: the label {wrong[0]} is none of the {len(names)} classes (option task.label_column)"
                )
            cells[-1] = [names[c] for c in numbers] if isinstance(cells[-1], list) else names[numbers[0]]
        yield _row(where, cells, task)


def _row(where: str, cells: Iterable[Any], task: Task) -> Row:
    *texts, label = cells
    if task.kind == "tagging":
        words = texts[0]
        if not isinstance(words, list) or not isinstance(label, list) or len(words) != len(label):
            raise UserError(f"{where}: {task.text_columns[0]} and {task.label_column} must be lists of one length")
        if not words:
            raise UserError(f"{where}: no words in column {task.text_columns[0]!r}")
        tags = tuple(_label(tag) for tag in label)
        if "" in tags:
            raise UserError(f"{where}: no tag for word {tags.index('') + 1} in column {task.label_column!r}")
        return Row(tuple("" if word is None else _text(word) for word in words), tags)
    if wrong := [text for text in texts if not isinstance(text, str | None)]:
        raise UserError(f"{where}: the text is a {type(wrong[0]).__name__} (option task.text_columns)")
    if not (name := _label(label)):
        raise UserError(f"{where}: no label in column {task.label_column!r} (option task.label_column)")
    return Row(tuple(_text(text or "") for text in texts), name)


def _label(cell: Any) -> str:
    """A label or tag in its one way of writing; "" for a cell that holds none."""
    nothing = cell is None or (isinstance(cell, float) and math.isnan(cell))  # how tables write an empty cell
    return "" if nothing or isinstance(cell, list | dict) else normalise_name(_text(cell))


def _text(cell: Any) -> str:
    """As it is written, but 1.0 as 1: a table with an empty cell in it makes floats of whole numbers."""
    if isinstance(cell, Decimal):  # a column of them has one number of digits behind the point
        return f"{cell:f}".rstrip("0").rstrip(".") if cell % 1 else str(int(cell))
    whole = isinstance(cell, float) and cell.is_integer()
    return LONE_SURROGATE.sub("\ufffd", str(int(cell) if whole else cell))
