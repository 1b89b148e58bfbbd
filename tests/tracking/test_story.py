"""How the story of an adaptation is shown: terminal, page, model card, W&B, several runs side by side."""

import dataclasses

from electra_accel.tracking import story
from electra_accel.tracking.adaptation import tell
from tests.tracking.test_adaptation import COUNTS, GIVEN, evaluation, training

SETS = {
    "eval": COUNTS | {"examples": 900, "replaced": 9000, "replacements": "generator of the starting pair"},
    "general": COUNTS | {"examples": 800, "replaced": 8000, "replacements": "generator of the starting pair"},
}
for known in SETS.values():
    known["corruption"] = "0123abcd"
RECORDS = [
    evaluation(0) | evaluation(0, "general"),
    training(500),
    evaluation(500, auc=0.85, generator_loss=1.5) | evaluation(500, "general", auc=0.7, generator_loss=2.01),
]
TOLD = tell("books", RECORDS, GIVEN, SETS)
NO_BETTER = tell("other", [evaluation(0), evaluation(9)], {}, SETS)


def mlm(record: dict) -> dict:
    return record | {name: None for name in record if "discriminator" in name or "auc" in name}


def test_the_verdict_speaks_of_text_never_of_tasks():
    assert story.verdict(TOLD).startswith(
        "better on the domain's text: discriminator ROC-AUC 0.8000 -> 0.8500 (+0.0500 ± 0.0"
    )
    assert story.verdict(NO_BETTER).startswith("no better on held-out text than untrained, as far as that can tell: ")
    worse = tell("run", [evaluation(0), evaluation(9, auc=0.7)], GIVEN, SETS)
    assert story.verdict(worse).startswith("worse on the domain's text: ")
    unknown = tell("run", [evaluation(0), evaluation(9)], GIVEN, {})
    assert "cannot be told without standard errors" in story.verdict(unknown)
    for told in (TOLD, NO_BETTER, worse, unknown):
        assert "task" not in story.verdict(told)
        assert "Whether tasks gain is for fine-tuning to show." in story.markdown(told)


def test_in_the_terminal():
    lines = story.lines(TOLD)
    assert lines[0] == "trained on 500,000 tokens in 5h00m (20.00 hours of all processes)"
    figures = [line.split()[-6:] for line in lines if "ROC-AUC" in line and "is better" in line]
    assert [figure[0] for figure in figures] == ["+0.0500", "-0.1000"], "the domain, then general text"
    assert max(map(len, lines[:-1])) <= 110
    assert lines[-1].startswith("advice: general text is being forgotten: ")
    alone = story.lines(tell("run", list(map(mlm, RECORDS)), GIVEN, SETS))
    assert not any("discriminator" in line for line in alone) and any("better on the domain" in line for line in alone)


def test_on_the_page():
    html = story.section(TOLD, RECORDS, SETS)
    assert "Better on the domain&#39;s text" in html and "<strong>forgetting</strong>: general text" in html
    assert "<caption>General text</caption>" in html and "800 examples" in html
    hostile = dataclasses.replace(TOLD, advice={"rising": "<script>"})
    assert "<script>" not in story.section(hostile, RECORDS, SETS)
    assert "not been judged" in story.section(None, [], SETS)
    start = tell("run", RECORDS[:1], GIVEN, SETS)
    assert "Judged at step 0 only" in story.section(start, RECORDS[:1], SETS), "nothing was trained yet"


def test_in_a_model_card():
    rows = [line for line in story.markdown(TOLD).splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert (
        len([row for row in rows if "| general text |" in row])
        == len([row for row in rows if "| domain |" in row])
        == 4
    )


def test_as_summary_values():
    values = story.summary_values(TOLD)
    assert all(name.startswith("story/") and isinstance(value, int | float) for name, value in values.items())
    assert values["story/general/auc_change"] == 0.7 - 0.8 and values["story/domain/auc_after"] == 0.85
    assert (values["story/verdict"], values["story/advice/forgetting"], values["story/advice/rising"]) == (1, 1, 0)
    assert values["story/device_hours"] == 20
    alone = story.summary_values(tell("run", list(map(mlm, RECORDS)), GIVEN, SETS))
    assert not any("auc" in name for name in alone) and alone["story/verdict"] == 1


def test_several_runs_side_by_side():
    columns, rows = story.side_by_side([TOLD, NO_BETTER])
    assert columns == ["", "books", "other"] and all(len(row) == 3 for row in rows)
    cells = {row[0]: row[1:] for row in rows}
    assert cells["started from"] == ["a given pair", "scratch"]
    assert cells["general text: discriminator ROC-AUC (higher is better)"][1] is None
    assert cells["on the domain's text"] == ["better", "no better"]
