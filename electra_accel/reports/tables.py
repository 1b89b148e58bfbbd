"""One table, and its writers: Markdown and the terminal here, HTML in page.py."""

import math
import re
from typing import NamedTuple


class Table(NamedTuple):
    """Cells are text, numbers, None (shown as –), or ``Markup`` where they are meant for a page only."""

    columns: list[str]
    rows: list[list]

    def markdown(self) -> str:
        """With what users wrote as plain text."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join(f"| {' | '.join(plain(cell_text(cell)) for cell in line)} |" for line in lines)

    def show(self, narrowest: int = 1) -> None:
        """Print it; where the output is not a terminal, each row is one line, however long.

        Args:
            narrowest: characters of a column that stay on one line in a narrow terminal.
        """
        from rich import console, table  # here: a page needs none of it

        out = console.Console(highlight=False, markup=False, emoji=False)  # names and settings are the user's
        if not out.is_terminal:
            out.width = 10_000
        drawn = table.Table(box=None, pad_edge=False)
        for column in self.columns:
            drawn.add_column(column, overflow="fold", min_width=narrowest)
        for row in self.rows:
            drawn.add_row(*map(cell_text, row))
        out.print(drawn)
        out.print()


def cell_text(value: object) -> str:
    """A value as tables show it: floats with four significant digits, whole numbers with thousands separators."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return "–"
    if isinstance(value, bool | str):
        return value if isinstance(value, str) else str(value).lower()
    if isinstance(value, int) or isinstance(value, float) and 1000 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plain(text: str) -> str:
    """Text for Markdown: on one line, without what would end a cell or become HTML or a link."""
    return re.sub(r"([\\|<>`*_\[\]])", r"\\\1", " ".join(text.split()))


def capital(text: str) -> str:
    """With a capital letter at its beginning."""
    return text[:1].upper() + text[1:]
