"""The HTML renderer: what it writes, and in a real browser what one sees of it and what it asks for."""

import base64
import hashlib
import json
import re
from dataclasses import replace

import pytest
from markupsafe import Markup
from plotly import graph_objects as go
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

from electra_accel.reports.page import Table, chart, charts, label, page, slider, tabs
from electra_accel.tracking.samples import Piece, Reconstruction
from electra_accel.tracking.tokens import heat, legend, reconstruction, reconstructions_panel
from tests.browser import DESKTOP, PHONE, headless

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & {0} %s"
SAMPLE = Reconstruction(
    original=["<b>", "##old", "plain", "words", "here"],
    shown=["<b>", "[MASK]", "[MASK]", "words", "here"],
    generated=["<b>", "##old", "bold", "words", "here"],
    best=["", "##old", "plain", "some", ""],
    selected=[False, True, True, True, False],
    masked=[False, True, True, False, False],
    probability=[0.1, 0.2, 0.9, 0.3, 0.75],
)


def figure(name: str = "curve") -> go.Figure:
    return go.Figure(go.Scatter(x=[1, 2, 3], y=[3, None, 1], name=label(name), showlegend=True))


def text_page(hostile: str = HOSTILE, sample: Reconstruction = SAMPLE) -> str:
    """Everything the renderer has, made of hostile text."""
    rows = [[hostile, 1.5, 1234567, "0.53 ± 0.01"], [Markup("<em>ours</em>"), None, 3, "0.5"]]
    return page(
        hostile,
        [
            (hostile, Table([hostile, "float", "whole", "interval"], rows).html(hostile)),
            ("Charts", charts([chart(figure(hostile), hostile, note=hostile), chart(figure(), "Second")])),
            ("Slider", slider("step", [("1,000", hostile), ("2,000", legend() + reconstruction(sample))])),
            ("Tabs", tabs("x-axis", [("steps", chart(figure(), "Steps")), ("tokens", chart(figure(), "Tokens"))])),
            ("Wide", Table([f"column {i}" for i in range(40)], [[f"value{i}" for i in range(40)]]).html()),
            ("", heat([Piece("play", False, "", 0.04), Piece("ing", True, "", 0.93, "ed"), Piece("<i>", False)])),
        ],
        lead=hostile,
    )


@pytest.fixture(scope="module")
def browser():
    with headless() as browser:
        yield browser


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "page.html"
    file.write_text(text_page(), encoding="utf-8")
    return file


def test_text_is_escaped_and_markup_is_not():
    written = text_page()
    assert "<script>alert" not in written and "<img" not in written
    assert "<em>ours</em>" in written
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in written


def test_only_the_pages_own_scripts_may_run():
    written = text_page()
    scripts = re.findall(r"<script>(.*?)</script>", written, flags=re.DOTALL)
    allowed = re.search(r"script-src ([^;]*);", written.replace("&#39;", "'"))[1].split()
    assert len(scripts) == 2 and max(map(len, scripts)) > 1e6  # plotly.js once, for four charts
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert allowed == [f"'sha256-{digest}'" for digest in digests]


def test_a_page_without_charts_is_small():
    assert len(page("Title", [("Section", Table(["a"], [[1]]).html())])) < 20_000


def test_a_chart_holds_its_figure_as_data():
    html = chart(figure(HOSTILE), "Name")
    content = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[1])
    assert content["data"][0]["y"] == [3, None, 1]
    assert "template" not in content["layout"]  # the page's colours, not plotly's


def test_columns_of_numbers_stand_on_the_right():
    html = Table(
        ["name", "loss", "steps", "mixed"], [["a", 0.123456, 12000, "1"], ["b", float("nan"), None, "two"]]
    ).html()
    cells = re.findall(r"<td( class=\"number\")?>(.*?)</td>", html)
    assert [text for _, text in cells] == ["a", "0.1235", "12,000", "1", "b", "–", "–", "two"]
    assert [bool(number) for number, _ in cells] == [False, True, True, False] * 2


def test_verdicts_are_read_without_colour():
    html = reconstruction(SAMPLE)
    tokens = re.findall(r'<span class="token ([a-z-]+)" title="([^"]*)">([^<]*)</span>', html)
    assert [(name, text) for name, _, text in tokens] == [
        ("masked", "[MASK]"),
        ("masked", "[MASK]"),
        ("restored", "[old]="),
        ("caught", "[bold]+"),
        ("restored", "(words)="),
        ("false-alarm", "here!"),
    ]
    assert tokens[3][1] == "caught; replaced with probability 0.90; the generator&#39;s most probable token: plain"
    assert "&lt;b&gt;old plain words here" in html  # running text: a continued word has no space in it


def test_what_the_discriminator_would_put_there_is_shown_where_it_was_asked():
    corrected = replace(SAMPLE, corrected=["", "##old", "<i>", "some", ""])
    html, without = reconstruction(corrected), reconstruction(SAMPLE)
    restored = '<span class="token restored" title="restored">[old]=</span>'
    assert f"<dt>corrected</dt><dd>&lt;b&gt;{restored} [&lt;i&gt;] [some] here" in html
    assert "the generator&#39;s most probable token: plain; the discriminator would put &lt;i&gt;" in html
    assert "1 of 3 originals named" in html
    panels = reconstructions_panel([corrected]), reconstructions_panel([SAMPLE])
    assert ["In the corrected line" in panel for panel in panels] == [True, False]
    assert not any(word in without for word in ("corrected", "would put", "originals named"))


def test_a_panel_stands_by_itself():
    html = reconstructions_panel([SAMPLE, SAMPLE])
    assert html.count('class="reconstruction"') == 2 and "<style>" in html and "<script" not in html
    assert len(html) < 12_000


def test_heat_has_a_sign_too():
    html = heat([Piece("play", False, "", 0.04), Piece("ing", True, "", 0.93, "ed"), Piece("<i>", False)])
    assert re.findall(r"--p:([\d.]+)", html) == ["0.040", "0.930"]
    assert ">play</span><span" in html and ">ing!</span> &lt;i&gt;" in html


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_it_looks_right_and_asks_for_nothing(browser, file, width, dark):
    browser.open(file, width, dark)
    assert browser.run("document.querySelectorAll('.main-svg').length > 0"), "no chart was drawn"
    assert (browser.errors(), browser.requests()) == ([], [])
    assert browser.overflow() == 0  # the wide table scrolls inside itself
    assert browser.run("[...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)")
    assert browser.run("document.querySelector('h1').textContent") == HOSTILE
    brightness = "getComputedStyle(document.{}).{}.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)"
    paper, ink = (browser.run(brightness.format("body", name)) for name in ("backgroundColor", "color"))
    assert (paper < 120 and ink > 600) if dark else (paper > 700 and ink < 150)


def test_charts_follow_the_colours_while_the_page_is_open(browser, file):
    browser.open(file)
    ink = "document.querySelector('.legendtext').style.fill"
    light = browser.run(ink)
    browser.driver.execute_script("return Plotly.relayout(document.querySelector('.plot'), {'xaxis.range': [1, 2]})")
    browser.colours(dark=True)
    browser.until(f"{ink} !== '{light}'")
    assert browser.run("document.querySelector('.plot')._fullLayout.xaxis.range") == [1, 2]  # the zoom stays


def test_charts_zoom_and_tell_their_values_and_never_upload_them(browser, file):
    browser.open(file)
    buttons = browser.run(
        "[...document.querySelector('.plot').querySelectorAll('.modebar-btn')].map(b => b.dataset.title)"
    )
    assert buttons == ["Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"]
    width = "(([a, b]) => b - a)(document.querySelector('.plot')._fullLayout.xaxis.range)"
    before = browser.run(width)
    plot = browser.driver.find_element("css selector", ".plot .nsewdrag")
    ActionChains(browser.driver).drag_and_drop_by_offset(plot, 120, 0).perform()
    browser.until(f"0 < {width} && {width} < {before}")
    browser.open(file)
    point = browser.driver.find_elements("css selector", ".plot .scatterlayer .point")[0]
    ActionChains(browser.driver).move_to_element(point).perform()
    browser.until("document.querySelector('.hoverlayer').textContent !== ''")


def test_a_slider_obeys_the_keyboard(browser, file):
    browser.open(file)
    seen = (
        "[...document.querySelectorAll('.panes')[0].querySelectorAll('.pane')].map(pane => pane.offsetParent !== null)"
    )
    assert browser.run(seen) == [False, True]
    browser.driver.find_element("css selector", "input[type=range]").send_keys(Keys.ARROW_LEFT)
    assert browser.run(seen) == [True, False]
    assert browser.run("document.querySelector('output').value") == "1,000"


def test_tabs_draw_what_they_show(browser, file):
    browser.open(file)
    second = "document.querySelectorAll('.panes')[1].querySelectorAll('.pane')[1]"
    assert browser.run(f"{second}.querySelector('.main-svg')") is None
    browser.driver.find_elements("css selector", "input[type=radio]")[1].click()
    assert browser.run(f"{second}.querySelector('.main-svg').getBoundingClientRect().width") > 300


def test_a_tap_tells_what_a_title_says(browser, file):
    browser.open(file, PHONE)
    browser.driver.find_element("css selector", ".token.caught[title]").click()
    told = browser.run("document.querySelector('.lines + .told').textContent")
    assert told == "[bold]+: caught; replaced with probability 0.90; the generator's most probable token: plain"


def test_a_request_is_seen_where_no_policy_forbids_it(browser, tmp_path):
    """That the pages ask for nothing is known only if asking is noticed."""
    address = "http://127.0.0.1:9/x"
    (tmp_path / "page.html").write_text(f'<!doctype html><img src="{address}">', encoding="utf-8")
    browser.open(tmp_path / "page.html")
    assert browser.requests() == [address]
    assert browser.requests() == []  # told once


def test_what_escapes_escaping_does_not_run(browser, tmp_path):
    """The second line of defence: a mistake of ours in some later table."""
    script = Markup("<script>document.title = 'taken'</script><img src=data:, onerror=\"document.title = 'taken'\">")
    (tmp_path / "page.html").write_text(page("Safe", [("", script)]), encoding="utf-8")
    browser.open(tmp_path / "page.html")
    assert browser.run("document.title") == "Safe"
    assert len([message for message in browser.errors() if "Content Security Policy" in message]) == 2
