"""The readers of text files by suffix, and those of txt, csv, tsv, json and jsonl. All read in flat memory.

Local files are read by Python's own modules, not by `datasets`: its loaders know no line numbers, take rows with missing
cells for empty texts, refuse a jsonl file in which a field first appears late, put quotes around texts where a column also
holds numbers, and leave lock files in the user's cache.
"""

import csv
import io
import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

from electra_accel import json_text
from electra_accel.errors import UserError
from electra_accel.text.columns import Reader, column_index, columns_called, no_column, separator
from electra_accel.text.files import file_errors, open_bytes, require_content, suffix_of
from electra_accel.text.parquet import Parquet

LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can escape half a character, which no UTF-8 text can hold
_BLOCK_CHARACTERS = 8192


def _decoded(file: IO[bytes], newline: str | None = None) -> IO[str]:
    return io.TextIOWrapper(file, "utf-8-sig", newline=newline)  # drops the mark that Windows programs put in front


class Txt(Reader):
    def texts(self, path, file, column, join_lines):
        """Runs of lines that are not blank, each cut at the end of a line once it is long enough."""
        characters = _BLOCK_CHARACTERS if join_lines else 0
        block, begin, size = [], 1, 0
        for number, line in enumerate(_decoded(file), start=1):
            line = line.strip()
            if block and (not line or size > characters):
                yield f"line {begin}", "\n".join(block)
                block, size = [], 0
            if line:
                begin = begin if block else number
                block.append(line)
                size += len(line)
        if block:
            yield f"line {begin}", "\n".join(block)


class Table(Reader, ABC):
    """A header and rows of as many cells."""

    def rows(self, path, file, columns):
        lines = self.lines(path, file)
        _, header = next(lines, (1, []))
        places = [column_index(path, name, header) for name, _ in columns]
        for number, row in lines:
            if len(row) != len(header):
                raise UserError(
                    f"{path}, line {number}: {len(row)} cells where the header has {len(header)}; quote cells that hold a "
                    "separator (csv), and save cells that hold tabs or line breaks as csv or jsonl"
                )
            yield f"line {number}", [row[place] for place in places]

    @abstractmethod
    def lines(self, path: Path, file: IO[bytes]) -> Iterator[tuple[int, list[str]]]:
        """Rows, the header first, with the line each begins on; blank lines are left out."""


class Csv(Table):
    def lines(self, path, file):
        csv.field_size_limit(sys.maxsize)
        text = _decoded(file, newline="")  # csv wants line breaks untouched
        first, begin = text.readline(), 1
        rows = csv.reader(chain([first], text), strict=True)
        try:
            for row in rows:
                if row:  # a blank line gives an empty row
                    yield begin, row
                begin = rows.line_num + 1
        except csv.Error as error:
            found = separator(first)
            is_other = found not in ("", "commas")
            why = f"its cells are separated by {found}" if is_other else "is a quote left open or not doubled?"
            raise UserError(f"{path}, line {begin}: not valid csv: {error} ({why})") from None


class Tsv(Table):
    def lines(self, path, file):
        """One row a line. Quotes are ordinary characters, except around a whole cell, as csv writers put them."""
        for number, line in enumerate(_decoded(file), start=1):
            if line := line.rstrip("\n"):
                cells = line.split("\t")
                yield number, list(map(_unquoted, cells)) if '"' in line else cells


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if re.fullmatch('"(?:[^"]+|"")*"', cell) else cell


class Json(Reader):
    """A json array, which is read as a whole, or one value a line."""

    def rows(self, path, file, columns):
        for place, record in _records(path, _decoded(file)):
            if not isinstance(record, dict):
                raise UserError(f"{path}, {place}: not a record with named fields but {str(record)[:40]!r}")
            fields = tuple(record)
            yield place, [record[fields[column_index(f"{path}, {place}", name, fields)]] for name, _ in columns]

    def texts(self, path, file, column, join_lines):
        """A record may be a text by itself; a field may be left out of some records, but not of all."""
        found, names = False, ()
        for place, record in _records(path, _decoded(file)):
            if isinstance(record, dict):
                fields = tuple(record)
                names, called = names or fields, columns_called(column, fields)
                found = found or bool(called)
                record = record[fields[column_index(f"{path}, {place}", column, fields)]] if called else None
            if not isinstance(record, str | None):
                raise UserError(f"{path}, {place}: {column!r} holds a {type(record).__name__}, not text")
            yield place, LONE_SURROGATE.sub("\ufffd", record) if record else ""
        if names and not found:
            raise no_column(path, column, names)


def _records(path: Path, file: IO[str]) -> Iterator[tuple[str, Any]]:
    """The values of a json file, each with its place: "line 3", in an array "row 3"."""
    number, first = 1, file.readline()
    while first.isspace():
        number, first = number + 1, file.readline()
    if first.lstrip().startswith("["):
        records = _parsed(path, number, first + file.read(), is_array=True)
        yield from ((f"row {number}", record) for number, record in enumerate(records, start=1))
        return
    while first:
        if not first.isspace():
            yield f"line {number}", _parsed(path, number, first.rstrip(), is_array=False)
        number, first = number + 1, file.readline()


def _parsed(path: Path, line: int, text: str, is_array: bool) -> Any:
    """What a JSON text that begins on this line of a file holds."""
    try:
        return json_text.loads(text)
    except json.JSONDecodeError as error:
        remedy = "" if is_array else " (one value a line, or one array)"
        where = f"line {line + error.lineno - 1}"
        raise UserError(f"{path}, {where}: not valid json: {error.msg}, column {error.colno}{remedy}") from None
    except ValueError as error:
        raise UserError(f"{path}, {'in its array' if is_array else f'line {line}'}: {error}") from None


READERS: dict[str, Reader] = {
    ".txt": Txt(),
    ".csv": Csv(),
    ".tsv": Tsv(),
    ".json": Json(),
    ".jsonl": Json(),
    ".parquet": Parquet(),
}


def format_of(path: Path) -> str:
    """The suffix in ``READERS`` that says how to read ``path``; UserError for any other."""
    if (suffix := suffix_of(path)) not in READERS:
        raise UserError(f"{path}: cannot read this kind of file (known: {' '.join(READERS)}, also with .gz or .xz)")
    return suffix


def placed_texts(path: Path, text_column: str, join_lines: bool) -> Iterator[tuple[str, str]]:
    """The place of each text in a file, such as "line 3", and the text; a cell that is empty, null or not there gives "".

    Args:
        text_column: column of csv, tsv and parquet, field of json and jsonl.
        join_lines: of txt only. False: every line is a text. True: the lines between two blank lines are one text, joined by
            line breaks; a run of lines without a blank line is cut at a line end about every 8,000 characters, so that
            a book without blank lines is still many texts.

    Raises:
        UserError: the file is missing, empty, damaged, not UTF-8, not what its suffix says, or lacks the column or has two.
    """
    reader = READERS[format_of(path)]
    with file_errors(path):
        require_content(path, reader.is_text)
        with open_bytes(path) as file:
            yield from reader.texts(path, file, text_column, join_lines)


def read_rows(path: Path, columns: Sequence[tuple[str, str]]) -> Iterator[tuple[str, Sequence[Any]]]:
    """The rows of a file with columns; see :meth:`~electra_accel.text.columns.Reader.rows`."""
    with open_bytes(path) as file:
        yield from READERS[format_of(path)].rows(path, file, columns)
