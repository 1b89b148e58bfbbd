"""Columns of a parquet file. Those that are asked for are read and no others: what those hold is no concern of ours."""

from itertools import chain
from typing import Any

from electra_accel.errors import UserError
from electra_accel.text.columns import COLUMN_OPTION, LABEL, TAGS, TEXT, WORDS, Reader, column_index
from electra_accel.text.files import regular_file

_BATCH_ROWS = 1000


class Parquet(Reader):
    is_text = False

    def text_bytes(self, path):
        return 4 * regular_file(path).st_size

    def rows(self, path, file, columns):
        """An empty cell is None."""
        import pyarrow  # here, so that workers and readers of other formats do not wait for it
        import pyarrow.parquet

        row = 0
        try:
            table = pyarrow.parquet.ParquetFile(file)
            schema = table.schema_arrow
            places = [column_index(path, name, schema.names) for name, _ in columns]
            for place, (_, wanted) in zip(places, columns, strict=True):
                kind = str(schema.types[place])
                if not _holds(schema.types[place], wanted):
                    raise UserError(
                        f"{path}: column {schema.names[place]!r} holds {kind[:60]}{'…' * (len(kind) > 60)}, not {wanted}: "
                        f"name another, or make {wanted} of it ({COLUMN_OPTION})"
                    )
            names = list(dict.fromkeys(schema.names[place] for place in places))
            for batch in table.iter_batches(_BATCH_ROWS, columns=names):
                cells = {name: batch.column(batch.schema.get_field_index(name)).to_pylist() for name in names}
                rows = zip(*(cells[schema.names[place]] for place in places), strict=True)
                yield from ((f"row {number}", found) for number, found in enumerate(rows, start=row + 1))
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
