"""HTML pages in one file that works offline, made of charts, tables and panes.

    from electra_accel.reports.page import chart, page, table

    html = page("Title", [("First section", table(["name", "value"], rows)), ("Curves", chart(figure, "Loss"))])

The HTML is in templates/, which escape every ``str`` that they are given. ``Markup`` is HTML and stays as it is: it comes out
of a template (:func:`template`), never out of an f-string. Sentences with highlighted tokens: see tracking/tokens.py.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from electra_accel.reports.tables import cell_text
from electra_accel.tracking.tokens import STYLE, templates

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HERE = Path(__file__).parent
DASHES = ("solid", "dash", "dot", "dashdot")
CHART = 'class="chart"'
NUMBER = re.compile(r"[+\-−±]?\d[\d.,]*(e[+\-]?\d+)?\s?%?(\s?±.*)?")
TEMPLATES = templates(HERE / "templates")
TEMPLATES.filters["cell"] = cell_text


def template(file: str):
    """The macros of a template: functions that return ``Markup``."""
    return TEMPLATES.get_template(file).module


PARTS = template("parts.html")


def page(title: str, sections: Iterable[tuple[str, str]], lead: str = "") -> str:
    """A whole document that asks the network for nothing, for light and dark, phone and desktop.

    Args:
        title: of the document, and its first heading.
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

    Leave fonts, backgrounds, grids and margins to the page, which changes them with the reader's light or dark mode; give
    curves one of ``COLOURS`` (and ``DASHES``). What the figure's layout sets wins. Text in a figure that is not ours goes
    through :func:`label`. Put several into :func:`charts`.

    Args:
        note: a sentence under the name.
    """
    from plotly.io.json import to_json_plotly

    content = figure.to_plotly_json()
    content["layout"].pop("template", None)  # plotly's own look
    data = Markup(to_json_plotly(content).replace("<", "\\u003c"))  # no text in it can end the script element
    return PARTS.chart(name, note, data)


def label(text: str) -> str:
    """Text that is not ours for a plotly figure (names, hover text, ticks), which would read ``<b>`` in it as markup."""
    return str(escape(text))


def charts(those: Iterable[Markup]) -> Markup:
    """Charts side by side where there is room."""
    return PARTS.charts(list(those))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> Markup:
    """A table of cells as in ``tables.Table``; a column of numbers is aligned on the right.

    A text that begins as a number and goes on with % or ± counts as one. Wider than a phone, the table scrolls inside itself.
    """
    rows = [list(row) for row in rows]
    numeric = [any(map(_is_number, column)) and all(cell in (None, "") or _is_number(cell) for cell in column)
               for column in zip(*rows)]  # fmt: skip
    return PARTS.table(columns, rows, numeric or [False] * len(columns), caption)


TEMPLATES.filters["table"] = lambda found, caption="": table(*found, caption)


def slider(name: str, stops: Sequence[tuple[str, str]]) -> Markup:
    """One of several contents, chosen by a slider (mouse, finger, arrow keys); the last one is shown at first.

    Args:
        name: what the slider moves over, such as "Step".
        stops: (label, content).
    """
    return PARTS.slider(name, stops)


def tabs(name: str, choices: Sequence[tuple[str, str]]) -> Markup:
    """One of several contents, chosen by radio buttons; the first one is shown at first.

    Args:
        name: what is chosen, such as "x-axis"; it must be unique on its page.
        choices: (label, content).
    """
    return PARTS.tabs(name, choices)


def _is_number(cell: object) -> bool:
    if isinstance(cell, str):
        return NUMBER.fullmatch(cell) is not None
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
