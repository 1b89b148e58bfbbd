"""The page of a run that did not end well, and run folders with a damaged file."""

from pathlib import Path

import pytest

from electra_accel.cli import PREEMPTED, exit_with_one_line
from electra_accel.reports.report import main, write_report
from electra_accel.runs import run_folder
from electra_accel.tracking.health import CHECKS
from tests.browser import PHONE, headless


@pytest.fixture(scope="module")
def browser():
    with headless() as browser:
        yield browser


@pytest.fixture
def folder(tmp_path) -> Path:
    """As a run has it after its first steps."""
    run_folder.write_atomically(tmp_path / run_folder.CONFIG, "model: {size: tiny}\ntrain: {steps: 20}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("state", "reason", "code"),
    [
        ("failed", "out of GPU memory: try --train.micro_batch_tokens 128; the global step stays the same", 2),
        ("failed", "ValueError: <img src=x onerror=alert(1)>", 1),
        ("preempted", "asked to stop by SIGTERM", PREEMPTED),
    ],
)
@pytest.mark.parametrize("figures", [False, True], ids=["before any figure", "after an evaluation"])
def test_a_run_that_ended_early_says_how_and_why(folder, browser, state, reason, code, figures):
    if figures:
        trained = {"step": 5, "train/loss": 9.0, "health/calls_nothing": 1}
        judged = {"step": 6, "eval/generator_loss": 7.0, "eval/calibration": [[0.2, 0.1, 300], [0.8, 0.9, 20]]}
        for record in (trained, judged | {"eval/calibration_error": 0.0625}):
            run_folder.append_jsonl(folder / run_folder.METRICS, record)
    run_folder.write_status(folder, state, 7, reason, code)
    browser.open(write_report(folder), PHONE)
    assert (browser.errors(), browser.overflow()) == ([], 0)
    facts = browser.run("[...document.querySelectorAll('.facts div')].map(fact => fact.innerText)")
    warnings = browser.run("[...document.querySelectorAll('.warning')].map(line => line.innerText)")
    assert facts[:2] == [f"state\n{state}", "step\n7 of 20"]
    assert warnings[0] == f"{state}: {reason}"
    if figures:
        assert warnings[1] == f"calls nothing at step 5: {CHECKS['calls_nothing']}."
        text = browser.run("document.body.innerText")
        assert "It is off by 0.062 on average" in text and "The discriminator at step 6" in text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.yaml", "model: {size: [", "broken YAML: expected"),
        ("config.yaml", "- a\n- b\n", "is damaged (it should hold groups of options)"),
        ("config.yaml", "model: tiny\n", "is damaged (it should hold groups of options)"),
        ("config.yaml", "", "is damaged (it should hold groups of options)"),
        ("metrics.jsonl", '{"step": 0}\n{"step": 1, "tr\n{"step": 2}\n', "is damaged (line 2 is no record: "),
        (
            "metrics.jsonl",
            '{"step": 0}\n7\n',
            "is damaged (line 2 is no record: it should hold names and values, not 7)",
        ),
        ("metrics.jsonl", '{"train/step": 0}\n', "is damaged (line 1 is no record: it has no step)"),
        ("samples.jsonl", '{"step": 20, \n{"step": 10}\n', "is damaged (line 1 is no record: "),
        ("environment.json", "[1]", "is damaged (it should hold names and values, not [1])"),
        ("held_out/held_out.json", '"text"', "is damaged (it should hold names and values, not text)"),
        ("status.json", '{"state": "do', "is damaged (Unterminated string"),
        ("status.json", None, "cannot be read (Is a directory)"),
        ("samples.jsonl", None, "cannot be read (Is a directory)"),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it(folder, monkeypatch, capsys, name, content, said):
    (folder / name).parent.mkdir(exist_ok=True)
    if content is None:
        (folder / name).mkdir()
    else:
        (folder / name).write_text(content, encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["report.py", str(folder)])
    with pytest.raises(SystemExit) as ended:
        exit_with_one_line(main)
    error = capsys.readouterr().err
    assert (ended.value.code, error.count("\n")) == (2, 1)
    assert error.startswith(f"error: {folder / name}") and said in error
