"""Labelled rows of a file or of a data set on the hub; what a row must hold says the task's kind.

Files are read by ``text/readers.py`` and ``text/parquet.py``, lines of words by ``text/word_lines.py``.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from electra_accel.errors import UserError, named, one_line
from electra_accel.finetuning.config import Task
from electra_accel.finetuning.kinds.kind import Row
from electra_accel.finetuning.kinds.registry import KINDS
from electra_accel.text import parquet, readers
from electra_accel.text.word_lines import read_sentences

SPLITS = {
    "train": ("train",),
    "dev": ("validation", "dev", "valid", "validation_matched"),  # the last one and its test: MNLI
    "test": ("test", "test_matched"),
}  # names on the hub


@contextmanager
def _our_options() -> Iterator[None]:
    """The readers name the option of pre-training that is to blame for a column; here it is another."""
    try:
        yield
    except UserError as error:
        raise UserError(
            str(error).replace(readers.COLUMN_OPTION, "options task.text_columns and task.label_column")
        ) from None


@_our_options()
def read_file(path: Path, task: Task, tell: Callable[[str], None] = lambda line: None) -> list[Row]:
    """The rows of one file, in order.

    Args:
        tell: gets a line for a person about what was passed over.

    Raises:
        UserError: the file is missing, broken, empty, or lacks a column or a label; names it and the line or row.
    """
    with readers.file_errors(path):
        readers.regular_file(path)
        readers.require_text(path)
        rows = [_row(f"{path}, {place}", cells, task) for place, cells in _cells(path, task, tell)]
    if not rows:
        raise UserError(f"{path} holds no rows")
    return rows


def has_lines_of_words(path: Path, task: Task) -> bool:
    """Whether a file has a word and its tag in a line, as in the CoNLL shared tasks, rather than records."""
    suffix = "".join(path.suffixes[-2:-1] if path.suffix.lower() in (".gz", ".xz") else path.suffixes[-1:]).lower()
    return KINDS[task.kind].words and (suffix not in readers.FORMATS or suffix in (".txt", ".tsv", ".csv"))


def _cells(path: Path, task: Task, tell: Callable[[str], None]) -> Iterator[tuple[str, list]]:
    """The cells of each row, its label last, and where it stands, such as "line 3"."""
    names = [*task.text_columns, task.label_column]
    if has_lines_of_words(path, task):
        yield from ((f"sentence {number}", cells) for number, cells in enumerate(read_sentences(path, tell), start=1))
    elif (suffix := readers.format_of(path)) == ".txt":
        raise UserError(f"{path}: a txt file has no columns; give csv, tsv, jsonl or parquet (option task.train_file)")
    elif suffix in (".csv", ".tsv"):
        columns = [list(readers.read_texts(path, name, join_lines=False)) for name in names]
        yield from ((f"row {number}", cells) for number, cells in enumerate(zip(*columns, strict=True), start=1))
    elif suffix == ".parquet":
        of_text, of_label = KINDS[task.kind].cells
        holds = [*(of_text for _ in task.text_columns), of_label]

        def choose(columns: list[str]) -> list[tuple[int, str]]:
            return [(readers.column_index(path, name, columns), cell) for name, cell in zip(names, holds, strict=True)]

        with readers.open_bytes(path) as file:
            rows = parquet.read_columns(path, file, choose, readers.COLUMN_OPTION)
            yield from ((f"row {number}", cells) for number, cells in enumerate(rows, start=1))
    else:
        with readers.open_bytes(path) as file:
            for place, record in readers.json_records(path, io.TextIOWrapper(file, "utf-8-sig")):
                if not isinstance(record, dict):
                    raise UserError(f"{path}, {place}: not a record with named fields but {str(record)[:40]!r}")
                fields = tuple(record)
                yield place, [record[fields[readers.column_index(f"{path}, {place}", name, fields)]] for name in names]


def _row(where: str, cells: list, task: Task) -> Row:
    with named(where):
        return KINDS[task.kind].row(cells, task.metric)


@_our_options()
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
        reason = one_line(error) or type(error).__name__
        raise UserError(
            f"task.dataset {task.dataset} cannot be loaded from the hub: {reason}; download it and give files"
        ) from None
    splits = {}
    for ours, theirs in SPLITS.items():
        split = next((found[name].flatten() for name in theirs if name in found), None)  # a.b of records in records
        if split is None:
            continue
        known, where = split.column_names, f"{task.dataset} {ours}"
        columns = [known[readers.column_index(where, name, known)] for name in (*task.text_columns, task.label_column)]
        label = columns[-1]
        split = split.select_columns(list(dict.fromkeys(columns)))  # what the others hold is never looked at
        if ours == "test" and all(y == -1 for y in split[label]):
            continue
        feature = split.features[label]
        classes = getattr(getattr(feature, "feature", feature), "names", None)  # what its numbers stand for
        splits[ours] = []
        for number, record in enumerate(split, start=1):
            place, cells = f"{where}, row {number}", [record[column] for column in columns]
            if classes:
                cells[-1] = _class_names(place, cells[-1], classes)
            splits[ours].append(_row(place, cells, task))
    if "train" not in splits:
        raise UserError(f"task.dataset {task.dataset} has no split train, only {', '.join(found)}")
    return splits


def _class_names(where: str, cell: Any, classes: list[str]) -> Any:
    """In place of the number, or of each number, in a label's cell."""
    if isinstance(cell, list):
        return [_class_names(where, each, classes) for each in cell]
    if cell is None or not 0 <= cell < len(classes):
        raise UserError(f"{where}: the label {cell} is none of the {len(classes)} classes (option task.label_column)")
    return classes[cell]
