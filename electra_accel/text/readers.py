"""Reads the texts of one file, in flat memory; a file that is broken is named with the line at fault.

Suffixes: .txt .csv .tsv .json .jsonl .parquet, each also with .gz or .xz behind it.

Local files are read by Python's own modules, not by `datasets`: its loaders know no line numbers, take rows with missing
cells for empty texts, refuse a jsonl file in which a field first appears late, put quotes around texts where a column also
holds numbers, and leave lock files in the user's cache.
"""

import csv
import gzip
import io
import json
import lzma
import os
import re
import shlex
import stat
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import IO, Any

from electra_accel import json_text
from electra_accel.errors import UserError
from electra_accel.text import guess, parquet
from electra_accel.text.writing import normalise_name

FORMATS = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".parquet")
_OPENERS = {".gz": gzip.open, ".xz": lzma.open}
LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can escape half a character, which no UTF-8 text can hold
_BLOCK_CHARACTERS = 8192
COLUMN_OPTION = "option data.text_column, in other scripts --text_column"  # what a wrong column is mended by


def format_of(path: Path) -> str:
    """The suffix in FORMATS that says how to read ``path``; UserError for any other."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _OPENERS:
        suffixes.pop()
    if not suffixes or suffixes[-1] not in FORMATS:
        raise UserError(f"{path}: cannot read this kind of file (known: {' '.join(FORMATS)}, also with .gz or .xz)")
    return suffixes[-1]


def regular_file(path: Path) -> os.stat_result:
    """The status of a regular file with something in it; UserError for a folder, pipe, socket or device, or an empty file."""
    with file_errors(path):
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} is a pipe, a socket or a device; text is read more than once: save it in a file")
    if not found.st_size:
        raise UserError(f"{path} is empty")
    return found


def open_bytes(path: Path) -> IO[bytes]:
    """The decompressed bytes of ``path``."""
    return _OPENERS.get(path.suffix.lower(), open)(path, "rb")


def decompressed_bytes(path: Path) -> int:
    """Size of the file's text in bytes; of a compressed file an estimate, by the ratio in its first 4 MiB of text."""
    size, opener = regular_file(path).st_size, _OPENERS.get(path.suffix.lower())
    if opener is None:
        return size
    with file_errors(path), open(path, "rb") as compressed:
        return len(opener(compressed).read(4 << 20)) * size // max(1, compressed.tell())


def require_text(path: Path) -> None:
    """Raises UserError unless a file has something in it, and not in UTF-16 or UTF-32, which may pass for UTF-8."""
    with file_errors(path), open_bytes(path) as file:
        head = file.read(guess.HEAD)
    if not head:
        raise UserError(f"{path} is empty")
    if ".parquet" in map(str.lower, path.suffixes[-2:]):
        return
    if kind := guess.binary_kind(head):
        raise UserError(f"{path} is {kind}, no text; save its text as UTF-8 (in Excel: CSV UTF-8)")
    if encoding := guess.wide_encoding(head):
        raise UserError(
            f"{path}: {encoding.upper()}, not UTF-8; save it as UTF-8 (in Excel: CSV UTF-8), or convert it by "
            f"`iconv -f {encoding} -t utf-8`"
        )


def read_texts(path: Path, text_column: str, join_lines: bool) -> Iterator[str]:
    """The texts of one file, in order, as :func:`placed_texts` finds them."""
    return (text for _, text in placed_texts(path, text_column, join_lines))


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
    suffix = format_of(path)
    with file_errors(path):
        require_text(path)
        with open_bytes(path) as file:
            if suffix == ".parquet":
                yield from _parquet(path, file, text_column)
                return
            # csv wants line breaks untouched; utf-8-sig drops the mark that Windows programs put in front
            text = io.TextIOWrapper(file, "utf-8-sig", newline="" if suffix == ".csv" else None)
            if suffix == ".txt":
                yield from _blocks(text, _BLOCK_CHARACTERS if join_lines else 0)
            elif suffix == ".csv":
                yield from _column(path, _csv_rows(path, text), text_column)
            elif suffix == ".tsv":
                yield from _column(path, _tsv_rows(text), text_column)
            else:
                yield from _fields(path, json_records(path, text), text_column)


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Whatever reading ``path`` raises becomes a UserError that names the file and, where it can be told, the line."""
    try:
        yield
    except FileNotFoundError:
        target = f": a link to {os.readlink(path)}, which is not there" if os.path.islink(path) else ": no such file"
        raise UserError(f"{path}{target}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name its files, for example {shlex.quote(f'{path}/*.txt')}") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read it") from None
    except UnicodeDecodeError:
        raise UserError(
            f"{path}, line {_undecodable_line(path)}: not UTF-8; convert the file, for example a Korean Windows file by "
            "`iconv -f cp949 -t utf-8`"
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path}: damaged or cut-off compressed file ({error}); fetch or compress it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def _undecodable_line(path: Path) -> int:
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    raise AssertionError(f"{path} could not be decoded, and now it can: it changes while it is read")


def _blocks(file: IO[str], characters: int) -> Iterator[tuple[str, str]]:
    """Runs of lines that are not blank, each cut at the end of a line once it has more than ``characters``."""
    block, begin, size = [], 1, 0
    for number, line in enumerate(file, start=1):
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


def _csv_rows(path: Path, file: IO[str]) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line each begins on."""
    csv.field_size_limit(sys.maxsize)
    first, begin = file.readline(), 1
    rows = csv.reader(chain([first], file), strict=True)
    try:
        for row in rows:
            if row:  # a blank line gives an empty row
                yield begin, row
            begin = rows.line_num + 1
    except csv.Error as error:
        found = guess.separator(first)
        is_other = found not in ("", "commas")
        why = f"its cells are separated by {found}" if is_other else "is a quote left open or not doubled?"
        raise UserError(f"{path}, line {begin}: not valid csv: {error} ({why})") from None


def _tsv_rows(file: IO[str]) -> Iterator[tuple[int, list[str]]]:
    """One row a line. Quotes are ordinary characters, except around a whole cell, as csv writers put them."""
    for number, line in enumerate(file, start=1):
        if line := line.rstrip("\n"):
            cells = line.split("\t")
            yield number, list(map(_unquoted, cells)) if '"' in line else cells


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if re.fullmatch('"(?:[^"]+|"")*"', cell) else cell


def _column(path: Path, rows: Iterator[tuple[int, list[str]]], name: str) -> Iterator[tuple[str, str]]:
    _, header = next(rows, (1, []))
    column = column_index(path, name, header)
    for number, row in rows:
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {number}: {len(row)} cells where the header has {len(header)}; quote cells that hold a "
                "separator (csv), and save cells that hold tabs or line breaks as csv or jsonl"
            )
        yield f"line {number}", row[column]


def json_records(path: Path, file: IO[str]) -> Iterator[tuple[str, Any]]:
    """Records of a json array (read as a whole) or of a file with one value a line, each with its place: "line 3", "row 3"."""
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


def _fields(path: Path, records: Iterator[tuple[str, Any]], name: str) -> Iterator[tuple[str, str]]:
    found, names = False, ()  # a field may be left out of some records, but not of all
    for place, record in records:
        if isinstance(record, dict):
            fields = tuple(record)
            names, called = names or fields, columns_called(name, fields)
            found = found or bool(called)
            record = record[fields[column_index(f"{path}, {place}", name, fields)]] if called else None
        if not isinstance(record, str | None):
            raise UserError(f"{path}, {place}: {name!r} holds a {type(record).__name__}, not text")
        yield place, LONE_SURROGATE.sub("\ufffd", record) if record else ""
    if names and not found:
        raise _no_column(path, name, names)


def _parquet(path: Path, file: IO[bytes], name: str) -> Iterator[tuple[str, str]]:
    def choose(columns: list[str]) -> list[tuple[int, str]]:
        return [(column_index(path, name, columns), parquet.TEXT)]

    rows = enumerate(parquet.read_columns(path, file, choose, COLUMN_OPTION), start=1)
    yield from ((f"row {number}", text or "") for number, (text,) in rows)


def column_index(path: Path | str, name: str, columns: Sequence[str]) -> int:
    """Where the column ``name`` stands among those of a file; UserError where there is none of this name, or several."""
    places = columns_called(name, tuple(columns))
    if not places:
        raise _no_column(path, name, columns)
    if len(places) > 1:
        written = ", but for letters that look alike or are not seen" if len({columns[i] for i in places}) > 1 else ""
        raise UserError(
            f"{path}: {len(places)} columns are called {name!r}{written}; rename all but the one that is meant"
        )
    return places[0]


@lru_cache(maxsize=256)  # the fields of a file's records are mostly the same
def columns_called(name: str, columns: tuple[str, ...]) -> list[int]:
    """Where the columns stand that are called ``name``, however it is written there (``writing.normalise_name``)."""
    wanted = normalise_name(name)
    return [place for place, column in enumerate(columns) if normalise_name(column) == wanted]


def _no_column(path: Path | str, name: str, columns: Sequence[str]) -> UserError:
    found = guess.separator(columns[0]) if len(columns) == 1 else ""
    hint = f", one column: its cells are separated by {found}, not as the suffix says" if found else ""
    return UserError(f"{path}: no column {name!r}; it has: {', '.join(columns)}{hint} ({COLUMN_OPTION})")
