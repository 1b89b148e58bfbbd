"""How the story of an adaptation is shown: terminal, page, model card, W&B, several runs side by side."""

import dataclasses

from electra_accel.pretraining.cost import Cost
from electra_accel.reports import story
from electra_accel.reports.adaptation import tell
from electra_accel.reports.story import side_by_side
from electra_accel.reports.tasks import TaskChange
from tests.reports.test_adaptation import COUNTS, GIVEN, evaluation, training

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
    assert story.verdict(NO_BETTER).startswith("no better on held-out text than untrained, as far as ")
    worse = tell("run", [evaluation(0), evaluation(9, auc=0.7)], GIVEN, SETS)
    assert story.verdict(worse).startswith("worse on the domain's text: ")
    unknown = tell("run", [evaluation(0), evaluation(9)], GIVEN, {})
    assert "cannot be told without standard errors" in story.verdict(unknown)
    for told in (TOLD, NO_BETTER, worse, unknown):
        assert "task" not in story.verdict(told)
        assert "ine-tun" in story.markdown(told).partition("\n")[0]


def test_with_figures_of_tasks_it_speaks_of_tasks():
    difference = {"mean": 0.0222, "low": 0.0101, "high": 0.0343, "seeds": 5, "within_noise": False}
    gained = TaskChange("nsmc", "accuracy", "test", 0.81, 0.8322, difference, "better")
    unknown = TaskChange("a|b", "spearman", "dev", None, None, None, "not known yet")
    told = dataclasses.replace(TOLD, tasks=(gained, unknown))
    card = story.markdown(told)
    assert "Fine-tune it to see" not in card
    assert ". Fine-tuned, it is better on nsmc; whether a|b gained is not known" in card
    assert "| nsmc | accuracy, test | 0.8100 | 0.8322 | +0.0222 (+0.0101 to +0.0343) | 5 | better |" in card
    assert "| a\\|b | spearman, dev | – | – | – | 0 | not known yet |" in card
    assert "before is the network that it started from" in card
    columns, rows = side_by_side([told, TOLD], [SETS, SETS])
    assert next(row[1:] for row in rows if row[0] == "task nsmc") == [str(gained), None]


def test_in_the_terminal():
    lines = story.lines(TOLD)
    assert lines[0] == "trained on 500,000 tokens in 5h00m (20.00 hours of all processes)"
    figures = [line.split()[-6:] for line in lines if "ROC-AUC" in line and "is better" in line]
    assert [figure[0] for figure in figures] == ["+0.0500", "-0.1000"], "the domain, then general text"
    assert max(map(len, lines[:-1])) <= 110
    assert lines[-1].startswith("advice: general text is being forgotten: ")
    alone = story.lines(tell("run", list(map(mlm, RECORDS)), GIVEN, SETS))
    assert not any("discriminator" in line for line in alone) and any("better on the domain" in line for line in alone)


def test_one_network_that_got_an_lm_head_is_compared_with_an_untrained_one():
    """Its start is not the domain read by a trained network, and nobody draws or reads replaced tokens."""
    first, *others = map(mlm, RECORDS)
    first = first | {"eval/generator_accuracy": 0.001, "eval/generator_loss": 9.2}
    told = tell("run", [first, *others], GIVEN | {"objective.kind": "mlm"}, SETS)
    assert story.verdict(told).startswith(
        "better on held-out text than with an untrained LM head: generator loss 9.2000"
    )
    for shown in ("\n".join(story.lines(told)), story.markdown(told), story.section(told, [first, *others], SETS)):
        assert not [word for word in ("AUC", "replaced", "better on the domain", "forgotten") if word in shown], shown
        assert "95% interval" in shown


def test_the_warm_start_is_counted():
    told = dataclasses.replace(TOLD, warm_start=Cost(20, 20_015, 0.05, 0.05))
    assert story.spent(told).endswith("processes), and 20,015 tokens in 3m00s in the generator's warm start")
    values = story.summary_values(told)
    assert (values["story/tokens"], values["story/warm_start_tokens"]) == (500_000, 20_015)
    assert "story/warm_start_tokens" not in story.summary_values(TOLD)


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
    columns, rows = side_by_side([TOLD, NO_BETTER], [SETS, SETS])
    assert columns == ["", "books", "other"] and all(len(row) == 3 for row in rows)
    cells = {row[0]: row[1:] for row in rows}
    assert cells["started from"] == ["a given pair", "scratch"]
    assert cells["general text: discriminator ROC-AUC (higher is better)"][1] is None
    assert cells["on the domain's text"] == ["better", "no better"]
    assert "on the domain's text" not in [row[0] for row in side_by_side([TOLD], [SETS])[1]], "said below the table"


def test_whether_figures_side_by_side_compare():
    known = {"tokenizer": "t", "data": "d", "mask_prob": 0.15, "seed": 1, "tokens": 9, "selected": 3, "corruption": "c"}
    one = {"eval": known, "general": known}
    for others, said in (
        ({}, "yes"),
        ({"corruption": "x"}, "the generator's figures only: another corruption"),
        ({"tokenizer": "x"}, "no: another tokenizer"),
    ):
        _, rows = side_by_side([TOLD, TOLD], [one, {"eval": known | others, "general": known}])
        cells = {row[0]: row[1:] for row in rows}
        assert cells["domain: compares with the first run"] == [None, said]
        assert cells["general text: compares with the first run"] == [None, "yes"]


def test_many_runs_are_a_row_each():
    columns, rows = side_by_side([TOLD, NO_BETTER, TOLD, NO_BETTER], [SETS] * 4)
    assert [row[0] for row in rows] == ["books", "other", "books", "other"]
    assert {len(row) for row in rows} == {len(columns)} and "started from" in columns
    assert not any("balanced accuracy" in column for column in columns)
