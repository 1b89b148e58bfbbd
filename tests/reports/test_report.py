"""The page of a run: a small real run, what its page shows in a browser, and run folders that lack this or that."""

import json
import re
import shutil
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from selenium.webdriver.common.keys import Keys

from electra_accel.errors import UserError
from electra_accel.reports.curves import MOST_POINTS, series
from electra_accel.reports.report import MOST_STEPS, REPORT, main, write_report
from electra_accel.runs import run_folder
from tests.browser import DESKTOP, PHONE, headless
from tests.pretraining_runs import STEPS, finish, options, start, write_corpus

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
FIGURES = "document.querySelectorAll('.main-svg').length"
TEXT = "document.body.innerText"


@pytest.fixture(scope="module")
def browser():
    with headless() as browser:
        yield browser


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A real run with a recipe, one of whose options was given another value on the command line."""
    place = tmp_path_factory.mktemp("run")
    write_corpus(place / "text.txt", most=1500)
    recipe = {"optim": {"weight_decay": 0.05, "learning_rate": 0.003}, "tracking": {"notes": HOSTILE}}
    (place / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    given = options("text.txt", "books", optim__weight_decay=0.02, optim__learning_rate=None)
    code, out, err = finish(start([f"--config={place / 'recipe.yaml'}", *given], place, WANDB_MODE="disabled"))
    assert code == 0, err
    return place / "books"


@pytest.fixture
def copied(run, tmp_path) -> Path:
    """The run's folder in another place, without its weights; to change at will."""
    names = shutil.ignore_patterns("checkpoints", "discriminator", "generator", "wandb")
    return shutil.copytree(run, tmp_path / "copied <run>", ignore=names)


def text_of(page: Path) -> str:
    """The page's HTML without scripts and styles."""
    return re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page.read_text("utf-8"), flags=re.DOTALL)


def change(file: Path, edit) -> None:
    """Each record of a jsonl file, as ``edit`` gives it back."""
    records = [edit(record) for record in run_folder.read_jsonl(file)]
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_a_real_run_on_its_page(browser, run, tmp_path, width, dark):
    browser.open(run / REPORT, width, dark)
    assert (browser.errors(), browser.requests(), browser.overflow()) == ([], [], 0)
    text = browser.run(TEXT)
    assert f"{STEPS} of {STEPS}" in text and "done" in text
    assert HOSTILE in text  # the notes, as they were written
    assert all(
        heading in text for heading in ("Before and after", "Reconstructions", "Learning", "Speed", "Environment")
    )
    assert browser.run(FIGURES) >= 20
    browser.screenshot(tmp_path / "page.png")
    seen = Image.open(tmp_path / "page.png").convert("RGB")
    assert seen.width == width and seen.height > 3000  # the whole page, not the window
    brightness = np.asarray(seen.convert("L"))
    assert brightness.mean() < 60 if dark else brightness.mean() > 220
    for part in np.array_split(brightness, 4):
        assert part.std() > 5  # something is drawn all the way down
    colours = {colour for count, colour in seen.getcolors(1 << 24) if count > 20}
    assert sum(max(colour) - min(colour) > 100 for colour in colours) >= 5  # curves and verdicts, not only text


def test_the_slider_goes_through_the_steps(browser, run):
    browser.open(run / REPORT)
    seen = "[...document.querySelectorAll('.pane')].find(pane => pane.offsetParent).innerText"
    last = browser.run(seen)
    slider = browser.driver.find_element("css selector", "input[type=range]")
    slider.send_keys(Keys.HOME)
    assert browser.run("document.querySelector('output').value") == "0"
    first = browser.run(seen)
    originals = [re.findall(r"original\n(.*)", text)[:3] for text in (first, last)]
    assert originals[0] == originals[1] and first != last  # the same sentences, read by another generator
    assert "Others, drawn at this step" in first


def test_what_was_set_differently_is_marked(run, copied):
    rows = re.findall(r"<tr><td>(.*?)</td>(.*?)</tr>", text_of(run / REPORT))
    cells = {name: re.findall(r"<td[^>]*>(.*?)</td>", rest) for name, rest in rows}
    assert cells["optim.weight_decay"] == ["<strong>0.02</strong> <mark>changed</mark>", "0.05", "0.01"]
    assert cells["optim.learning_rate"] == ["0.003", "0.003", "0.002"]  # the default is that of the size
    assert cells["optim.eps"] == ["1e-06"]  # below, among the others
    environment = json.loads((copied / run_folder.ENVIRONMENT).read_text("utf-8"))
    environment["command"] = ["pretrain.py", "--config", "gone.yaml"]
    run_folder.write_json(copied / run_folder.ENVIRONMENT, environment)
    text = text_of(write_report(copied))
    assert "<code>gone.yaml</code>" in text
    assert "<td>optim.weight_decay</td><td>0.02</td><td>0.01</td>" in text


def test_text_of_a_corpus_stays_text_in_a_copied_folder(browser, copied):
    hostile = {
        "tokens": [HOSTILE, "b"],
        "shown": [HOSTILE, "[MASK]"],
        "generated": [HOSTILE, HOSTILE],
        "best": [HOSTILE],
    }
    hostile |= {"selected": [1], "masked": [1], "probability": [0.9, 0.9]}
    change(copied / run_folder.SAMPLES, lambda record: record | hostile)
    (copied / REPORT).unlink()
    browser.open(write_report(copied))
    assert (browser.errors(), browser.requests()) == ([], [])
    assert browser.run("document.title") == copied.name
    assert f"original {HOSTILE} b" in " ".join(browser.run(TEXT).split())
    assert f"[{HOSTILE}]+" in browser.run(TEXT)


def test_before_and_after_tells_the_recorded_figures(run):
    evaluations = [r for r in run_folder.read_jsonl(run / run_folder.METRICS) if "eval/auc" in r]
    text = text_of(run / REPORT)
    for record in (evaluations[0], evaluations[-1]):
        assert f"{record['eval/generator_loss']:.4f} ± {1.96 * record['eval/generator_loss_se']:.4f}" in text
        assert f"step {record['step']}" in text
    best = min(evaluations, key=lambda record: record["eval/discriminator_loss"])
    assert f">{best['eval/discriminator_loss']:.4f}<" in text


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def older(folder: Path) -> None:
    """As earlier versions wrote it: no hours, no calibration, no errors, samples without the newest fields."""
    known = ("train/loss", "train/auc", "eval/generator_loss", "eval/auc", "train/tokens", "step")
    change(folder / run_folder.METRICS, lambda r: {name: r[name] for name in known if name in r})
    newest = ("best", "fixed", "example")
    change(folder / run_folder.SAMPLES, lambda r: {name: value for name, value in r.items() if name not in newest})
    (folder / run_folder.HELD_OUT / run_folder.HELD_OUT_IDENTITY).unlink()


def no_numbers(folder: Path) -> None:
    """Every figure is null, as one without a denominator is, or NaN."""
    nothing = {"eval/calibration": [], "eval/auc": float("nan")}
    kept = ("step", "train/step", "train/tokens")
    change(folder / run_folder.METRICS, lambda r: {n: r[n] if n in kept else nothing.get(n) for n in r})


def only_the_start(folder: Path) -> None:
    lines = (folder / run_folder.METRICS).read_text("utf-8").splitlines(keepends=True)
    unfinished = '{"step": 1, "unfiní'.encode()[:-1]  # killed within a character
    (folder / run_folder.METRICS).write_bytes(lines[0].encode() + unfinished)
    with open(folder / run_folder.SAMPLES, "ab") as file:
        file.write(unfinished)


def unknown_options(folder: Path) -> None:
    """config.yaml of another version of the code."""
    config = yaml.safe_load((folder / run_folder.CONFIG).read_text("utf-8"))
    config["model"]["gone"] = 7
    del config["eval"]["seed"]
    (folder / run_folder.CONFIG).write_text(yaml.safe_dump(config), encoding="utf-8")


@pytest.mark.parametrize(
    ("alter", "expected"),
    [
        (remove(run_folder.METRICS), "The held-out text has not been judged yet."),
        (remove(run_folder.SAMPLES), "None yet."),
        (remove(run_folder.ENVIRONMENT, run_folder.STATUS), "Started without a recipe"),
        (remove(run_folder.CONFIG), "<dt>state</dt><dd>done</dd>"),
        (older, "Reconstructions"),
        (no_numbers, "<td>generator loss</td>"),
        (only_the_start, "<td>generator loss</td>"),
        (unknown_options, "<td>model.gone</td><td>7</td>"),
    ],
    ids=["metrics", "samples", "environment", "config", "older", "no_numbers", "only_the_start", "unknown_options"],
)
def test_a_folder_that_lacks_something_has_a_page(copied, alter, expected):
    alter(copied)
    assert expected in text_of(write_report(copied))


@pytest.mark.parametrize("alter", [older, no_numbers, only_the_start])
def test_charts_stand_few_figures(copied, browser, alter):
    alter(copied)
    browser.open(write_report(copied), PHONE)
    assert (browser.errors(), browser.overflow()) == ([], 0)


def test_warnings_say_where_they_held(tmp_path):
    held = [0, 1, 1, 1, 0, 1, 0]
    records = [
        {"step": 50 * i, "health/calls_nothing": value, "health/sure_generator": 0} for i, value in enumerate(held)
    ]
    for record in records:
        run_folder.append_jsonl(tmp_path / run_folder.METRICS, record)
    text = text_of(write_report(tmp_path))
    assert "<strong>calls nothing</strong> at step 50–150, 250: the discriminator calls almost no token" in text
    assert "It no longer holds." in text
    assert "sure generator" not in text


def test_long_curves_keep_their_spikes():
    records = [{"step": step, "train/loss": 1.0} for step in range(10_000)]
    records[4321]["train/loss"], records[777]["train/loss"] = 9.0, -9.0
    x, y = series(records, "train/loss")
    assert len(x) <= MOST_POINTS and (x[0], x[-1]) == (0, 9999) and (np.diff(x) > 0).all()
    assert (x[y.argmax()], x[y.argmin()]) == (4321, 777)


def test_what_the_discriminator_would_put_there_has_its_line_and_its_legend(run, copied):
    line, legend, titles = (
        "<dt>corrected</dt>",
        "In the corrected line [token] is",
        "and what the discriminator would put",
    )
    text = text_of(run / REPORT)
    assert text.count(line) == text.count("<dt>most likely</dt>") and legend in text and titles in text
    change(copied / run_folder.SAMPLES, lambda record: {name: record[name] for name in record if name != "corrected"})
    assert not any(words in text_of(write_report(copied)) for words in (line, legend, titles))


def test_a_long_run_has_a_bounded_page_quickly(copied):
    """A page is made at each evaluation: it must not grow with the run, nor hold it up."""
    training = [r for r in run_folder.read_jsonl(copied / run_folder.METRICS) if "train/loss" in r][-1]
    lines = [json.dumps(training | {"step": 50 * i, "train/loss": 1 / (i + 1)}) + "\n" for i in range(10_000)]
    (copied / run_folder.METRICS).write_text("".join(lines), encoding="utf-8")
    samples = run_folder.read_jsonl(copied / run_folder.SAMPLES)[-5:]
    lines = [json.dumps(sample | {"step": 500 * i}) + "\n" for i in range(1000) for sample in samples]
    (copied / run_folder.SAMPLES).write_text("".join(lines), encoding="utf-8")
    began = time.process_time()
    page = write_report(copied)
    assert time.process_time() - began < 5  # about one second on a free machine
    assert page.stat().st_size < 9e6  # half of it is plotly.js
    text = text_of(page)
    assert f"{MOST_STEPS} of 1,000 recorded steps are on this page" in text
    assert f"Curves of more than {MOST_POINTS:,} points show the lowest and the highest of each stretch" in text


def test_memory_does_not_grow_with_the_recorded_steps(copied):
    """Of samples.jsonl only what is shown is held: the sentences of a long run are far larger than its page."""
    words, some = [f"word{i}" for i in range(128)], list(range(19))
    sample = {"example": 0, "fixed": True, "tokens": words, "shown": words, "generated": words, "best": ["word"] * 19}
    sample |= {"selected": some, "masked": some, "probability": [0.1234] * 128}
    rest = json.dumps(sample).removeprefix("{")
    peaks = []
    for steps in (50, 800):
        with open(copied / run_folder.SAMPLES, "w", encoding="utf-8") as file:
            file.writelines(f'{{"step": {500 * step}, {rest}\n' for step in range(steps) for _ in range(5))
        tracemalloc.start()
        page = write_report(copied)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert f"37 of 800 recorded steps are on this page; all are in {run_folder.SAMPLES}" in text_of(page)
    assert peaks[1] < 1.3 * peaks[0]  # three times as much where all is parsed


def test_by_hand(copied, monkeypatch, capsys):
    (copied / REPORT).unlink()
    monkeypatch.setattr("sys.argv", ["report.py", str(copied)])
    main()
    assert capsys.readouterr().out == f"{copied / REPORT}\n"
    assert (copied / REPORT).stat().st_size > 1e6
    for arguments, error in (
        (["nothing"], "is no run folder"),
        ([], "are required: FOLDER; --help lists"),
        (["--x"], "--help"),
    ):
        monkeypatch.setattr("sys.argv", ["report.py", *arguments])
        with pytest.raises(UserError, match=error):
            main()
