"""Random markup as text of a corpus: in a real browser the page shows it, runs nothing of it and asks for nothing."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from electra_accel.reports.detect import Reading
from electra_accel.reports.detect_views import html
from electra_accel.reports.page import page
from tests.browser import headless
from tests.reports.test_page import SAMPLE, text_page

RAN = "window.ran=1"
PIECES = (
    *(f"<script>{RAN}</script>", "</script>", f"<img src=http://x.invalid/a onerror={RAN}>", f"<svg/onload={RAN}>"),
    *(
        f'" onmouseover="{RAN}" autofocus onfocus="{RAN}',
        f"' onmouseover='{RAN}",
        f"javascript:{RAN}",
        "</style>",
        "</title>",
    ),
    *(
        "<iframe src=http://x.invalid></iframe>",
        "<link rel=stylesheet href=http://x.invalid/c>",
        "<base href=http://x.invalid/>",
    ),
    *(
        "<meta http-equiv=refresh content='0;url=http://x.invalid'>",
        "<style>@import 'http://x.invalid/b'</style>",
        "<!--",
    ),
    *(
        "-->",
        "]]>",
        "<![CDATA[",
        "</textarea>",
        "</template>",
        "&lt;script&gt;",
        "&#60;b&#62;",
        "{{7*7}}",
        "{% raw %}",
        "\u2028",
    ),
    *(
        "</td></tr></table>",
        "<a href=http://x.invalid>x</a>",
        "`${window.ran=1}`",
        "\\u003cscript>",
        "##<b>",
        '"',
        "'",
        "<",
        ">",
        "&",
    ),
)
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), min_size=1, max_size=6).map("".join)
FOREIGN = (
    "[...document.querySelectorAll('img, iframe, object, embed, base, link:not([rel=icon]), a[href^=http], form')]"
)
HANDLERS = "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()).filter(n => n.startsWith('on'))"


@pytest.fixture(scope="module")
def browser():
    with headless() as browser:
        yield browser


def unprotected(document: str) -> str:
    """Without the policy that would stop what was not escaped: escaping alone has to do."""
    document, found = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", document)
    assert found == 1
    return document


def harm(browser, document: str, file: Path, scripts: int) -> dict[str, object]:
    """What a page does that it should not."""
    file.write_text(unprotected(document), encoding="utf-8", errors="replace")
    browser.open(file)
    found = {
        "ran": browser.run("window.ran"),
        "foreign": browser.run(f"{FOREIGN}.map(e => e.outerHTML)"),
        "handlers": browser.run(HANDLERS),
        "more scripts": browser.run("document.scripts.length") - scripts,
        "requests": browser.requests(),
        "errors": browser.errors(),
    }
    return {name: value for name, value in found.items() if value}


QUIET = dict(derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@settings(max_examples=6, deadline=None, phases=[Phase.generate], **QUIET)
@given(st.lists(TEXTS, min_size=5, max_size=5))
def test_text_does_nothing_in_a_page(browser, tmp_path_factory, texts):
    sample = replace(SAMPLE, original=texts, shown=texts, generated=texts, best=texts)
    file = tmp_path_factory.mktemp("page") / "page.html"
    # plotly.js, the page's own script, and the figures of four charts
    assert harm(browser, text_page(texts[0], sample), file, scripts=6) == {}


@settings(max_examples=60, deadline=None, phases=[Phase.generate], **QUIET)
@given(st.lists(TEXTS, min_size=4, max_size=4))
def test_text_does_nothing_in_a_reading(browser, tmp_path_factory, texts):
    candidates = [(1, [(texts[2], 0.6), (texts[3], 0.1)])]
    reading = Reading(texts[0], texts, [0.1, 0.6, 0.9, 1.0], candidates, 1, candidates)
    file = tmp_path_factory.mktemp("page") / "page.html"
    assert harm(browser, html([reading]), file, scripts=1) == {}
    shown = browser.run("document.body.innerText")
    assert "x.invalid" in shown or "x.invalid" not in "".join(texts), "the text is to be read as it is"


@pytest.mark.parametrize(
    "text", [piece for piece in PIECES if RAN in piece and piece.startswith("<") or "x.invalid" in piece]
)
def test_what_is_not_escaped_is_noticed(browser, tmp_path, text):
    """Else the tests above would be content with anything."""
    assert harm(browser, page("Title", [("", Markup(text))]), tmp_path / "page.html", scripts=1)
