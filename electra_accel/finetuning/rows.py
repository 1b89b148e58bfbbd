"""Labelled rows of a file or of a data set on the hub; what a row must hold says the task's kind.

Files are read by ``text/readers.py``, lines of words by ``text/word_lines.py``.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from electra_accel.errors import UserError, named, one_line
from electra_accel.finetuning.config import Task
from electra_accel.finetuning.kinds.kind import Row
from electra_accel.finetuning.kinds.registry import KINDS
from electra_accel.text.columns import COLUMN_OPTION, Reader, column_index
from electra_accel.text.files import file_errors, regular_file, require_content, suffix_of
from electra_accel.text.readers import READERS, read_rows
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
        raise UserError(str(error).replace(COLUMN_OPTION, "options task.text_columns and task.label_column")) from None


@_our_options()
def read_file(path: Path, task: Task, tell: Callable[[str], None] = lambda line: None) -> list[Row]:
    """The rows of one file, in order.

    Args:
        tell: gets a line for a person about what was passed over.

    Raises:
        UserError: the file is missing, broken, empty, or lacks a column or a label; names it and the line or row.
    """
    with file_errors(path):
        regular_file(path)
        require_content(path, READERS.get(suffix_of(path), Reader).is_text)
        rows = [_row(f"{path}, {place}", cells, task) for place, cells in _cells(path, task, tell)]
    if not rows:
        raise UserError(f"{path} holds no rows")
    return rows


def has_lines_of_words(path: Path, task: Task) -> bool:
    """Whether a file has a word and its tag in a line, as in the CoNLL shared tasks, rather than records."""
    suffix = suffix_of(path)
    return KINDS[task.kind].words and (suffix not in READERS or suffix in (".txt", ".tsv", ".csv"))


def _cells(path: Path, task: Task, tell: Callable[[str], None]) -> Iterator[tuple[str, Sequence[Any]]]:
    """The cells of each row, its label last, and where it stands, such as "line 3"."""
    if has_lines_of_words(path, task):
        yield from ((f"sentence {number}", cells) for number, cells in enumerate(read_sentences(path, tell), start=1))
    else:
        of_text, of_label = KINDS[task.kind].cells
        yield from read_rows(path, [*((name, of_text) for name in task.text_columns), (task.label_column, of_label)])


def _row(where: str, cells: Sequence[Any], task: Task) -> Row:
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
        columns = [known[column_index(where, name, known)] for name in (*task.text_columns, task.label_column)]
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
