"""The story of an adaptation: verdicts and advice on small records, each rule on both sides of its threshold."""

import json
import math

import pytest

from electra_accel.errors import UserError
from electra_accel.pretraining.cost import Cost
from electra_accel.reports.adaptation import story_of_run, tell
from electra_accel.reports.advice import rising
from electra_accel.reports.judgements import Change
from electra_accel.runs import run_folder
from electra_accel.tracking.health import CHECKS

COUNTS = {"selected": 15_000, "judged": 100_000, "chance": 0.05}
GIVEN = {"model.discriminator": "some/discriminator", "eval.metric": "discriminator_loss", "eval.patience": 0}


def evaluation(step: int, prefix: str = "eval", se: float = 0.01, **changed) -> dict:
    """A record of an evaluation; ``changed`` are figures."""
    figures = {"generator_loss": 2.0, "generator_accuracy": 0.5, "discriminator_loss": 0.3, "auc": 0.8}
    figures |= {"replaced_fraction": 0.1, "generator_loss_se": se, "discriminator_loss_se": se}
    return {"step": step} | {f"{prefix}/{name}": value for name, value in (figures | changed).items()}


def training(step: int, **health: int) -> dict:
    spent = {"train/tokens": 1000 * step, "train/hours": step / 100, "train/device_hours": step / 25}
    return {"step": step, "train/loss": 9.0} | spent | {f"health/{name}": held for name, held in health.items()}


def story(*records: dict, sets=None, **options):
    return tell("run", records, GIVEN | options, {"eval": COUNTS, "general": COUNTS} if sets is None else sets)


@pytest.mark.parametrize(
    ("better", "after", "error", "verdict"),
    [
        ("lower", 1.9, 0.03, "better"),  # the difference's error is .042: 2.4 of them
        ("lower", 2.1, 0.03, "worse"),
        ("higher", 2.1, 0.03, "better"),
        ("lower", 1.9, 0.04, "no better"),  # 1.8 of them
        ("higher", 2.1, 0.04, "no better"),
        ("lower", 1.9, None, None),
        ("lower", None, None, None),
    ],
)
def test_a_change_counts_beyond_the_interval_of_the_difference(better, after, error, verdict):
    assert Change("loss", better, 2.0, after, error, error).verdict == verdict


def test_the_verdict_is_on_the_ranking_not_on_the_loss():
    """The loss moves with the share of replaced tokens that the discriminator expects."""
    told = story(evaluation(0), evaluation(9, discriminator_loss=0.2, auc=0.8001))
    assert told.primary == "auc"
    assert (told.domain["discriminator_loss"].verdict, told.domain["auc"].verdict) == ("better", "no better")
    assert story(evaluation(0), evaluation(9, auc=0.85)).domain["auc"].verdict == "better"


def test_one_network_has_no_figures_of_a_discriminator():
    nothing = dict.fromkeys(("discriminator_loss", "auc", "replaced_fraction", "discriminator_loss_se"))
    told = story(evaluation(0, **nothing), evaluation(9, **nothing | {"generator_loss": 1.5}))
    assert told.primary == "generator_loss" and told.domain["generator_loss"].verdict == "better"
    assert told.domain["auc"].after is None and told.domain["auc"].verdict is None


def test_what_was_spent_and_on_what(tmp_path):
    """Read from a folder: the exported step is the last, or the best where patience is set; the cost is that of the run, and
    beside it that of the warm start in it."""
    records = [evaluation(0), training(5), evaluation(5, discriminator_loss=0.2), training(10), evaluation(10)]
    for record in records:
        run_folder.append_jsonl(tmp_path / run_folder.METRICS, record)
    with pytest.raises(UserError, match="is not the folder of a run"):
        story_of_run(tmp_path)
    for patience, step in ((0, 10), (3, 5)):
        options = f"eval: {{metric: discriminator_loss, patience: {patience}}}\nmodel: {{size: tiny}}\n"
        run_folder.write_atomically(tmp_path / run_folder.CONFIG, options)
        told = story_of_run(tmp_path)
        assert (told.before_step, told.after_step, told.given) == (0, step, False)
        assert (told.cost, told.warm_start) == (Cost(10, 10_000, 0.1, 0.4), None)
    assert story_of_run(tmp_path, step=7).after_step == 5, "weights between two evaluations: the one before"
    assert told.domain["auc"].verdict is None, "no held_out.json, no standard errors"
    (tmp_path / run_folder.HELD_OUT).mkdir()
    (tmp_path / run_folder.HELD_OUT / "held_out.json").write_text(json.dumps(COUNTS))
    assert story_of_run(tmp_path).domain["auc"].verdict == "no better"
    (tmp_path / run_folder.WARM_START).mkdir()
    assert story_of_run(tmp_path).warm_start is None
    for record in (evaluation(0), training(3)):
        run_folder.append_jsonl(tmp_path / run_folder.WARM_START / run_folder.METRICS, record)
    told = story_of_run(tmp_path)
    assert (told.cost.tokens, told.warm_start) == (10_000, Cost(3, 3000, 0.03, 0.12))


@pytest.mark.parametrize(
    ("options", "accuracy", "start", "given"),
    [
        ({"model.discriminator": None}, 0.5, "scratch", False),
        ({}, 0.5, "a given pair", True),
        ({"model.generator": "warm-start"}, 0.5, "a discriminator, its generator warm-started", True),
        ({"model.generator": "warm-start", "objective.kind": "mlm"}, 0.0, "fresh layers on a discriminator's", False),
        ({"objective.kind": "mlm"}, 0.0, "one encoder", False),
        ({"objective.kind": "mlm"}, 0.5, "one encoder with its LM head", True),  # .05 is the most frequent token's
    ],
)
def test_only_networks_that_were_trained_before_can_forget(options, accuracy, start, given):
    before = evaluation(0, generator_accuracy=accuracy) | evaluation(0, "general")
    told = story(before, evaluation(9) | evaluation(9, "general", generator_loss=3.0), **options)
    assert told.start.startswith(start) and told.given == given == ("forgetting" in told.advice)


def test_a_small_held_out_text_is_told_of():
    few = {"eval": COUNTS | {"selected": 1999}}
    assert "only 1,999 tokens are judged" in story(evaluation(0), evaluation(9), sets=few).advice["small"]
    enough = {"eval": COUNTS | {"selected": 2000}}
    assert story(evaluation(0), evaluation(9), sets=enough).advice == {}


def test_a_run_that_has_judged_nothing_has_no_story():
    assert story(training(5)) is None and story() is None


def test_collapse_is_what_holds_at_the_exported_weights():
    records = [evaluation(0), training(5, calls_nothing=1, sure_generator=0), evaluation(5)]
    assert story(*records).advice == {"collapse": CHECKS["calls_nothing"]}
    recovered = [training(10, calls_nothing=0, sure_generator=0), evaluation(10)]
    assert story(*records, *recovered).advice == {}
    best_before = {"eval.patience": 2}
    worse_later = [training(10, calls_nothing=1), evaluation(10, discriminator_loss=0.4)]
    assert story(evaluation(0), evaluation(5, discriminator_loss=0.2), *worse_later, **best_before).advice == {}


@pytest.mark.parametrize(
    ("figures", "forgotten"),
    [
        ({"generator_loss": 2.0 + math.log(1.11)}, "perplexity rises from 7.389 to 8.202"),
        ({"generator_loss": 2.0 + math.log(1.09)}, None),
        ({"auc": 0.775}, "orders wrongly rises from 0.2 to 0.225"),  # 12.5% more pairs
        ({"auc": 0.785}, None),
        ({"generator_loss": 2.5, "se": 0.5}, None),  # may be chance
        ({"generator_loss": 1.5, "auc": 0.9}, None),
    ],
)
def test_forgetting_is_a_tenth_more_errors_on_general_text(figures, forgotten):
    before = evaluation(0) | evaluation(0, "general", se=figures.get("se", 0.01))
    told = story(before, evaluation(9) | evaluation(9, "general", **figures))
    assert set(told.general) == set(told.domain)
    if forgotten is None:
        assert told.advice == {}
    else:
        assert forgotten in told.advice["forgetting"] and "data.replay_files" in told.advice["forgetting"]


def test_without_general_text_nothing_is_said_of_it():
    told = story(evaluation(0), evaluation(9))
    assert told.general == {} and told.advice == {}


@pytest.mark.parametrize(
    ("losses", "rises"),
    [
        ((2.0, 1.5, 1.6, 1.6), True),  # 0.1 above, 2 errors of the difference are .028
        ((2.0, 1.5, 1.6, 1.51), False),  # only one of the last two
        ((2.0, 1.5, 1.52, 1.52), False),
        ((2.0, 1.5, 1.6), False),  # one evaluation may be chance
        ((1.5, 1.6, 1.7), True),  # never better than at the start
        ((2.0, 1.9, 1.8), False),
    ],
)
@pytest.mark.parametrize("key", ["generator_loss", "discriminator_loss"])
def test_held_out_loss_rises_over_two_evaluations(losses, rises, key):
    found = rising([evaluation(10 * i, **{key: loss}) for i, loss in enumerate(losses)])
    assert bool(found) == rises
    if rises:
        at = 10 * losses.index(min(losses))
        assert f"{key.split('_')[0]} loss of the domain rises, from {min(losses):.4f} at step {at} " in found


def test_losses_without_standard_errors_give_no_advice():
    assert rising([evaluation(i, se=None, generator_loss=i) for i in range(5)]) is None
