"""HTML pages in one file that works offline, made of charts, tables and panes.

    html = page("Title", [("Figures", Table(["name", "value"], rows).html()), ("Curves", chart(figure, "Loss"))])

The HTML is in templates/, which escape every ``str`` that they are given. ``Markup`` is HTML and stays as it is: it comes out
of a template (:func:`template`), never out of an f-string. Sentences with highlighted tokens: see tracking/tokens.py.
"""

import base64
import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup, escape

from electra_accel.tracking.tokens import STYLE, templates

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HERE = Path(__file__).parent
DASHES = ("solid", "dash", "dot", "dashdot")
CHART = 'class="chart"'
NUMBER = re.compile(r"[+\-−±]?\d[\d.,]*(e[+\-]?\d+)?\s?%?(\s?±.*)?")
TEMPLATES = templates(HERE / "templates")
TEMPLATES.filters["cell"] = lambda value: cell_text(value)
TEMPLATES.filters["table"] = lambda found, caption="": found.html(caption)


def template(file: str):
    """The macros of a template: functions that return ``Markup``."""
    return TEMPLATES.get_template(file).module


PARTS = template("parts.html")
# Functions that give HTML. charts(those): side by side where there is room. slider(name, stops) and tabs(name, choices): one of
# several (label, content); a slider shows the last one at first, tabs (whose name is unique on the page) the first one.
charts, slider, tabs = PARTS.charts, PARTS.slider, PARTS.tabs


def page(title: str, sections: Iterable[tuple[str, str]], lead: str = "") -> str:
    """A whole document that asks the network for nothing, for light and dark, phone and desktop.

    Args:
        sections: (heading, content); the headings become a list of links. "" as heading: none.
        lead: stands under the title.

    The page's Content-Security-Policy lets only its own two scripts run (by their hash) and forbids every request. So even
    text that was not escaped by mistake could do nothing. plotly.js (4.8 MB) is included only if there is a chart.
    """
    sections, scripts = list(sections), [_file("page.js")]
    if any(CHART in content for content in (lead, *(content for _, content in sections))):
        from plotly.offline import get_plotlyjs

        scripts.insert(0, get_plotlyjs())
    return TEMPLATES.get_template("page.html").render(
        title=title,
        sections=sections,
        lead=lead,
        style=Markup(STYLE.read_text(encoding="utf-8") + _file("page.css")),
        scripts=list(map(Markup, scripts)),
        digests=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
    )


def chart(figure: "Figure", name: str, note: str = "") -> Markup:
    """A plotly figure with ``name`` above it: zoom and hover, no logo, as wide as there is room, in the page's colours.

    Leave fonts, backgrounds, grids and margins to the page, which has a light and a dark mode; give curves one of ``COLOURS``
    (and ``DASHES``). What the figure's layout sets wins. Text that is not ours goes through :func:`label`. ``note`` stands
    under the name.
    """
    from plotly.io.json import to_json_plotly

    content = figure.to_plotly_json()
    content["layout"].pop("template", None)  # plotly's own look
    data = Markup(to_json_plotly(content).replace("<", "\\u003c"))  # no text in it can end the script element
    return PARTS.chart(name, note, data)


def label(text: str) -> str:
    """Text that is not ours for a plotly figure (names, hover text, ticks), which would read ``<b>`` in it as markup."""
    return str(escape(text))


class Table(NamedTuple):
    """One table for pages, Markdown and the terminal. Cells are text, numbers, None (shown as –), or ``Markup``."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def html(self, caption: str = "") -> Markup:
        """Columns of numbers are aligned on the right; a text that begins as a number and goes on with % or ± counts as one."""
        columns = list(zip(*self.rows)) or [()] * len(self.columns)
        numeric = [any(map(_is_number, c)) and all(x in (None, "") or _is_number(x) for x in c) for c in columns]
        return PARTS.table(self.columns, self.rows, numeric, caption)

    def markdown(self) -> str:
        """With what users wrote as plain text."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join(f"| {' | '.join(plain(cell_text(cell)) for cell in line)} |" for line in lines)

    def show(self, narrowest: int = 1) -> None:
        """Print it; in a narrow terminal ``narrowest`` characters of a column stay together, elsewhere a row is one line."""
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


def _is_number(cell: object) -> bool:
    if isinstance(cell, str):
        return NUMBER.fullmatch(cell) is not None
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
