"""The one HTML renderer: whole pages in one file that works offline, made of charts, tables and panes.

    from electra_accel.reports.page import chart, page, table

    html = page("Title", [("First section", table(["name", "value"], rows)), ("Curves", chart(figure, "Loss"))])

Everything here takes and returns ``markupsafe.Markup``: a plain ``str`` is text of somebody and is escaped wherever it is put,
a ``Markup`` is HTML and stays. Build HTML with ``Markup("<p>{}</p>").format(text)``, never with an f-string. Sentences with
highlighted tokens: see tokens.py.
"""

import base64
import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

HERE = Path(__file__).parent
DASHES = ("solid", "dash", "dot", "dashdot")
CHART = 'class="chart"'
NUMBER = re.compile(r"[+\-−±]?\d[\d.,]*(e[+\-]?\d+)?\s?%?(\s?±.*)?")


def page(title: str, sections: Iterable[tuple[str, str]], lead: str = "") -> str:
    """A whole document that asks the network for nothing, for light and dark, phone and desktop.

    Args:
        title: of the document, and its first heading.
        sections: (heading, content); the headings become a list of links. "" as heading: none.
        lead: stands under the title.

    The page's Content-Security-Policy lets only its own two scripts run (by their hash) and forbids every request, so
    that even text which had escaped escaping could do nothing. plotly.js (4.8 MB) is in it where a chart is.
    """
    sections = [(f"section-{number}", *section) for number, section in enumerate(sections, 1)]
    links = Markup("\n").join(Markup('<a href="#{}">{}</a>').format(name, text) for name, text, _ in sections if text)
    body = Markup("\n").join(
        (Markup('<section aria-labelledby="{0}"><h2 id="{0}">{1}</h2>') if heading else Markup("<section>")).format(
            name, heading
        )
        + escape(content)
        + Markup("</section>")
        for name, heading, content in sections
    )
    scripts = [_file("page.js")]
    if CHART in body or CHART in lead:
        from plotly.offline import get_plotlyjs

        scripts.insert(0, get_plotlyjs())
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
        "form-action 'none'"
    )
    document = Markup(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<title>{title}</title>\n<link rel="icon" href="data:,">\n<style>\n{style}</style>\n</head>\n<body>\n'
        "<header><h1>{title}</h1>\n{lead}</header>\n{nav}<main>\n{body}\n</main>\n{scripts}</body>\n</html>\n"
    ).format(
        policy=policy,
        title=title,
        style=Markup(_file("tokens.css", HERE.parent / "tracking") + _file("page.css")),
        lead=lead,
        nav=Markup('<nav aria-label="Sections">\n{}\n</nav>\n').format(links) if links else "",
        body=body,
        scripts=Markup("").join(Markup(f"<script>{script}</script>\n") for script in scripts),
    )
    return str(document)


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
    caption = Markup("{}<span>{}</span>").format(name, note) if note else escape(name)
    return Markup(
        '<figure class="chart" aria-label="{}"><figcaption>{}</figcaption><div class="plot"></div>'
        '<script type="application/json">{}</script></figure>\n'
    ).format(name, caption, data)


def label(text: str) -> str:
    """Text of somebody for a plotly figure (names, hover text, ticks), which would read ``<b>`` in it as markup."""
    return str(escape(text))


def charts(those: Iterable[Markup]) -> Markup:
    """Charts side by side where there is room."""
    return Markup('<div class="charts">{}</div>\n').format(Markup("").join(those))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> Markup:
    """Cells are text, numbers, None (shown as –) or Markup; a column of numbers stands on the right.

    Floats get four significant digits and whole numbers thousands separators; a text that begins as a number and goes on
    with % or ± counts as one. Wider than a phone, the table scrolls inside itself.
    """
    rows = [list(row) for row in rows]
    right = [
        any(map(_is_number, column)) and all(cell in (None, "") or _is_number(cell) for cell in column)
        for column in zip(*rows)
    ] or [False] * len(columns)

    def line(tag: str, cells: Iterable[object]) -> Markup:
        return Markup("").join(
            Markup("<{0}{1}>{2}</{0}>").format(tag, Markup(' class="number"') if number else "", cell_text(cell))
            for cell, number in zip(cells, right)
        )

    frame = '<div class="scroll" tabindex="0"><table>{}<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>\n'
    return Markup(frame).format(
        Markup("<caption>{}</caption>").format(caption) if caption else "",
        line("th", columns),
        Markup("\n").join(Markup("<tr>{}</tr>").format(line("td", row)) for row in rows),
    )


def cell_text(value: object) -> str:
    """How :func:`table` writes a value."""
    if value is None or isinstance(value, float) and math.isnan(value):
        return "–"
    if isinstance(value, bool | str):
        return value if isinstance(value, str) else str(value).lower()
    if isinstance(value, int) or isinstance(value, float) and 1000 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def slider(name: str, stops: Sequence[tuple[str, str]]) -> Markup:
    """One of several contents, chosen by a slider (mouse, finger, arrow keys); the last one is seen at first.

    Args:
        name: what the slider moves over, such as "Step".
        stops: (label, content).
    """
    last = len(stops) - 1
    control = Markup(
        '<label class="control">{}<input type="range" min="0" max="{}" value="{}" autocomplete="off">'
        "<output>{}</output></label>"
    ).format(name, last, last, stops[last][0])
    return _panes(control, stops, last)


def tabs(name: str, choices: Sequence[tuple[str, str]]) -> Markup:
    """One of several contents, chosen by radio buttons; the first one is seen at first.

    Args:
        name: what is chosen, such as "x-axis"; another on each page's tabs.
        choices: (label, content).
    """
    buttons = Markup("").join(
        Markup('<label><input type="radio" name="{}" autocomplete="off"{}>{}</label>').format(
            name, Markup("" if i else " checked"), text
        )
        for i, (text, _) in enumerate(choices)
    )
    legend = Markup('<div class="control" role="radiogroup" aria-label="{0}"><span class="quiet">{0}</span>{1}</div>')
    return _panes(legend.format(name, buttons), choices, 0)


def _panes(control: Markup, contents: Sequence[tuple[str, str]], seen: int) -> Markup:
    panes = Markup("").join(
        Markup('<div class="pane" data-label="{}"{}>{}</div>\n').format(
            text, Markup("" if i == seen else " hidden"), html
        )
        for i, (text, html) in enumerate(contents)
    )
    return Markup('<div class="panes">{}\n{}</div>\n').format(control, panes)


def _is_number(cell: object) -> bool:
    if isinstance(cell, str):
        return NUMBER.fullmatch(cell) is not None
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _file(name: str, folder: Path = HERE) -> str:
    return (folder / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
