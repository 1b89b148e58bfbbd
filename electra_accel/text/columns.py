"""What a file reader is, and how the columns of a table are found by their names."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from electra_accel.errors import UserError
from electra_accel.text.files import decompressed_bytes, suffix_of
from electra_accel.text.writing import normalise_name

TEXT, LABEL, WORDS, TAGS = "text", "labels", "lists of words", "lists of tags"  # what a column can be asked for as
COLUMN_OPTION = "option data.text_column, in other scripts --text_column"  # what a wrong column is mended by
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "the sign |"}


class Reader:
    """Reads files of one kind. A new kind is a subclass, and its suffix in ``READERS`` (readers.py)."""

    is_text = True  # in UTF-8

    def rows(
        self, path: Path, file: IO[bytes], columns: Sequence[tuple[str, str]]
    ) -> Iterator[tuple[str, Sequence[Any]]]:
        """Each row's place in the file, such as "line 3", and its cells in the order of ``columns``.

        Args:
            file: decompressed.
            columns: name, and what it holds: TEXT, LABEL (a text, a number, true or false), WORDS or TAGS.

        Raises:
            UserError: the file is not what its suffix says, or lacks a column or has two of a name.
        """
        raise UserError(
            f"{path}: a {suffix_of(path)[1:]} file has no columns; give csv, tsv, jsonl or parquet (option task.train_file)"
        )

    def texts(self, path: Path, file: IO[bytes], column: str, join_lines: bool) -> Iterator[tuple[str, str]]:
        """Each text and its place; see ``readers.placed_texts``."""
        return ((place, cell or "") for place, (cell,) in self.rows(path, file, [(column, TEXT)]))

    def text_bytes(self, path: Path) -> int:
        """About how many bytes of text it holds."""
        return decompressed_bytes(path)


def column_index(path: Path | str, name: str, columns: Sequence[str]) -> int:
    """Where the column ``name`` stands among those of a file; UserError where there is none of this name, or several."""
    places = columns_called(name, tuple(columns))
    if not places:
        raise no_column(path, name, columns)
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


def no_column(path: Path | str, name: str, columns: Sequence[str]) -> UserError:
    found = separator(columns[0]) if len(columns) == 1 else ""
    hint = f", one column: its cells are separated by {found}, not as the suffix says" if found else ""
    return UserError(f"{path}: no column {name!r}; it has: {', '.join(columns)}{hint} ({COLUMN_OPTION})")


def separator(line: str) -> str:
    """The sign that separates the cells of a table's first line, in words; "" where there is none."""
    outside = re.sub('"[^"]*"', "", line)  # of quotes
    found = max(_SEPARATORS, key=outside.count)
    return _SEPARATORS[found] if found in outside else ""
