"""Labelled rows of a file or of a data set on the hub, as they are written there.

csv, tsv and json are read by ``data/readers.py``; parquet, whose labels may be numbers or lists, and columns as in the CoNLL
shared tasks are read here.
"""

import io
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from electra_accel.data.readers import (
    COLUMN_OPTION,
    FORMATS,
    LONE_SURROGATE,
    format_of,
    json_records,
    one_line_errors,
    open_bytes,
    read_texts,
    regular_file,
    separator_hint,
)
from electra_accel.downstream.settings import Task
from electra_accel.errors import UserError

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


def read_file(path: Path, task: Task) -> list[Row]:
    """The rows of one file, in order.

    Raises:
        UserError: the file is missing, broken, empty, or lacks a column or a label; names it and the line or row.
    """
    try:
        regular_file(path)
        with one_line_errors(path):
            if has_lines_of_words(path, task):
                rows = list(_columns_of_words(path))
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
                rows = list(_from_records(str(path), _records(path), task))
    except UserError as error:
        raise UserError(str(error).replace(COLUMN_OPTION, "options task.text_columns and task.label_column")) from None
    if not rows:
        raise UserError(f"{path} holds no rows")
    return rows


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
    splits, label = {}, task.label_column
    for ours, theirs in SPLITS.items():
        split = next((found[name].flatten() for name in theirs if name in found), None)  # a.b of records in records
        if split is None or (ours == "test" and label in split.column_names and all(y == -1 for y in split[label])):
            continue
        names = _class_names(split.features.get(label))
        places = ((f"row {number}", record) for number, record in enumerate(split, start=1))
        splits[ours] = list(_from_records(f"{task.dataset} {ours}", places, task, names))
    if "train" not in splits:
        raise UserError(f"task.dataset {task.dataset} has no split train, only {', '.join(found)}")
    return splits


def _class_names(feature: Any) -> list[str] | None:
    """What the numbers in a column of the hub stand for; None where they are not numbers of classes."""
    return getattr(getattr(feature, "feature", feature), "names", None)


def _columns_of_words(path: Path) -> Iterator[Row]:
    """Sentences of a file with a word a line: word first, tag last, tabs or blanks between, a blank line after each sentence.

    Lines before a sentence that begin with # are comments, unless they are a word and a tag; -DOCSTART- lines are passed over.
    """
    words: list[str] = []
    tags: list[str] = []
    with open_bytes(path) as file:
        for number, line in enumerate(io.TextIOWrapper(file, "utf-8-sig"), start=1):
            cells = line.rstrip("\n").split("\t") if "\t" in line else line.split()
            if not line.strip() or line.startswith("-DOCSTART-"):
                if words:
                    yield Row(tuple(words), tuple(tags))
                words, tags = [], []
            elif line.startswith("#") and not words and len(cells) != 2:
                continue
            elif len(cells) < 2 or not cells[-1].strip():
                raise UserError(f"{path}, line {number}: no tag behind the word {line.strip()[:40]!r}")
            else:
                words.append(cells[0])
                tags.append(cells[-1].strip())
    if words:
        yield Row(tuple(words), tuple(tags))


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """The records of a json, jsonl or parquet file, each with its place in it."""
    with open_bytes(path) as file:
        if format_of(path) == ".parquet":
            import pyarrow  # here: readers of other formats need not wait for it
            import pyarrow.parquet

            try:
                records = pyarrow.parquet.read_table(file).to_pylist()
            except (pyarrow.ArrowException, OSError) as error:
                raise UserError(f"{path}: not a readable parquet file: {str(error).splitlines()[0]}") from None
            yield from ((f"row {number}", record) for number, record in enumerate(records, start=1))
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
        if missing := [name for name in wanted if name not in record]:
            raise UserError(
                f"{where}: no column {missing[0]!r}; it has: {', '.join(record)}{separator_hint(list(record))} "
                "(options task.text_columns and task.label_column)"
            )
        cells = [record[name] for name in wanted]
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
        return Row(tuple(_text(word) for word in words), tuple(_text(tag) for tag in label))
    if wrong := [text for text in texts if not isinstance(text, str | None)]:
        raise UserError(f"{where}: the text is a {type(wrong[0]).__name__} (option task.text_columns)")
    nothing = label is None or (isinstance(label, float) and math.isnan(label))  # how tables write an empty cell
    if nothing or isinstance(label, list | dict) or not str(label).strip():
        raise UserError(f"{where}: no label in column {task.label_column!r} (option task.label_column)")
    return Row(tuple(_text(text or "") for text in texts), _text(label).strip())


def _text(cell: Any) -> str:
    """As it is written, but 1.0 as 1: a table with an empty cell in it makes floats of whole numbers."""
    whole = isinstance(cell, float) and cell.is_integer()
    return LONE_SURROGATE.sub("\ufffd", str(int(cell) if whole else cell))
