"""Columns of a parquet file. Those that are asked for are read and no others: what those hold is no concern of ours."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import IO, Any

from electra_accel.errors import UserError

TEXT, LABEL, WORDS, TAGS = "text", "labels", "lists of words", "lists of tags"  # what a column can be asked for as
_BATCH_ROWS = 1000


def read_columns(
    path: Path, file: IO[bytes], choose: Callable[[list[str]], Sequence[tuple[int, str]]], option: str
) -> Iterator[tuple[Any, ...]]:
    """The rows of some columns, in order; an empty cell is None.

    Args:
        choose: from the names of all columns to the places of those that are wanted, and what each must hold: TEXT, LABEL (a
            text, a number, true or false), WORDS or TAGS.
        option: what mends a wrong choice, for errors.

    Raises:
        UserError: not a parquet file, or damaged; a column that holds something else.
    """
    import pyarrow  # here, so that workers and readers of other formats do not wait for it
    import pyarrow.parquet

    row = 0
    try:
        table = pyarrow.parquet.ParquetFile(file)
        schema, chosen = table.schema_arrow, choose(table.schema_arrow.names)
        for place, wanted in chosen:
            kind = str(schema.types[place])
            if not _holds(schema.types[place], wanted):
                raise UserError(
                    f"{path}: column {schema.names[place]!r} holds {kind[:60]}{'…' * (len(kind) > 60)}, not {wanted}: name "
                    f"another, or make {wanted} of it ({option})"
                )
        names = list(dict.fromkeys(schema.names[place] for place, _ in chosen))
        for batch in table.iter_batches(_BATCH_ROWS, columns=names):
            cells = {name: batch.column(batch.schema.get_field_index(name)).to_pylist() for name in names}
            yield from zip(*(cells[schema.names[place]] for place, _ in chosen), strict=True)
            row += len(batch)
    except UnicodeDecodeError:
        raise UserError(
            f"{path}: text that is not UTF-8 in the rows {row + 1} to {row + _BATCH_ROWS} of {', '.join(names)}"
        ) from None
    except (pyarrow.ArrowException, OSError) as error:
        reason = next(chain(str(error).splitlines(), [type(error).__name__]))
        raise UserError(f"{path}: not a readable parquet file: {reason}") from None


def _holds(kind: Any, wanted: str) -> bool:
    """Whether a column of an Arrow type can be read as what is wanted."""
    from pyarrow import types

    if wanted in (WORDS, TAGS):
        lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
        lists += (types.is_list_view, types.is_large_list_view)
        return any(is_kind(kind) for is_kind in lists) and _holds(kind.value_type, TEXT if wanted == WORDS else LABEL)
    kind = kind.value_type if types.is_dictionary(kind) else kind
    texts = (types.is_string, types.is_large_string, types.is_string_view)
    others = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean) if wanted == LABEL else ()
    return any(is_kind(kind) for is_kind in texts + others)
