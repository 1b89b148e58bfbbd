"""Groups, comparability and verdicts, on runs with known figures."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from electra_accel.errors import UserError
from electra_accel.model.figures import FIGURES as FIGURE
from electra_accel.reports.compare import compare
from electra_accel.reports.comparison_text import explanations, flags, runs_table
from electra_accel.reports.experiments import DEFAULTS, Experiment, split_records
from electra_accel.reports.wandb_runs import Segment, join_segments

HELD_OUT = {
    "corruption": "c1", "tokenizer": "t1", "data": "d1", "mask_prob": 0.15, "seed": 1,
    "tokens": 50_000, "judged": 45_000, "selected": 7_000, "replaced": 6_500,
}  # fmt: skip


def experiment(name: str, seed: int = 1, held_out: dict | None = None, done: bool = True, **figures) -> Experiment:
    """A run with one evaluation; names of options have double underscores for dots."""
    options = {key.replace("__", "."): figures.pop(key) for key in list(figures) if "__" in key}
    figures |= {"replaced_fraction": 0.14} if figures else {}
    record = {"step": 100, **{f"eval/{key}": value for key, value in figures.items()}}
    return Experiment(
        name=name,
        source=name,
        folder=None,
        state="done" if done else "running at step 100",
        options=DEFAULTS | {"run.seed": seed, "run.dir": name} | options,
        held_out=HELD_OUT if held_out is None else held_out,
        evaluations=[record] if figures else [],
    )


def two_groups(ours: list[float], theirs: list[float], key: str = "discriminator_loss", **common) -> list[Experiment]:
    """Runs with learning_rate 0.15 and with 0.25, a seed for each value of the figure ``key``."""
    return [
        experiment(f"{rate}-{seed}", seed, optim__learning_rate=rate, **{key: value}, **common)
        for rate, values in ((0.15, ours), (0.25, theirs))
        for seed, value in enumerate(values)
    ]


def verdict(runs: list[Experiment], key: str = "discriminator_loss"):
    (found,) = [verdict for verdict in compare(runs).verdicts if verdict.figure.key == key]
    return found


def test_the_interval_of_a_difference_is_welchs():
    ours, theirs = [0.50, 0.51, 0.52], [0.40, 0.42, 0.44, 0.46]
    parts = [np.var(values, ddof=1) / len(values) for values in (ours, theirs)]
    degrees = sum(parts) ** 2 / sum(part**2 / (n - 1) for part, n in zip(parts, (3, 4)))
    half = stats.t.ppf(0.975, degrees) * math.sqrt(sum(parts))
    found = verdict(two_groups(ours, theirs))
    assert (found.low, found.high) == pytest.approx((-0.08 - half, -0.08 + half))
    assert found.kind == "differs"
    assert found.text == (
        f"learning_rate 0.25 better than learning_rate 0.15 by 0.0800 (95% interval {0.08 - half:.4f} to {0.08 + half:.4f})"
    )


def test_better_follows_the_direction_of_the_figure():
    assert verdict(two_groups([0.1, 0.11], [0.9, 0.91], "auc"), "auc").text.startswith("learning_rate 0.25 better")
    assert verdict(two_groups([0.9, 0.91], [0.1, 0.11], "auc"), "auc").text.startswith("learning_rate 0.15 better")
    assert verdict(two_groups([0.1, 0.11], [0.9, 0.91])).text.startswith("learning_rate 0.15 better")


def test_equal_distributions_are_within_noise():
    """In 95 of 100 comparisons, which is what the interval promises; three seeds each."""
    values = np.random.default_rng(5).normal(0.5, 0.01, (300, 6))
    kinds = [verdict(two_groups(list(six[:3]), list(six[3:]))).kind for six in values]
    assert set(kinds) == {"noise", "differs"}
    assert kinds.count("differs") / len(kinds) < 0.08


def with_shares(runs: list[Experiment], *shares: float) -> list[Experiment]:
    """Each run has trained on its share of replaced tokens; the logged ones scatter around it."""
    for run, share in zip(runs, shares, strict=True):
        run.training = [{"step": step, "train/replaced_fraction": share + step / 100} for step in (-1, 0, 1)]
        run.training.append({"step": 2, "train/replaced_fraction": None})
    return runs


def test_another_share_of_replaced_tokens_is_no_merit():
    """A discriminator that was trained at 25% expects 25%: its loss on a corruption of 15% is worse for that alone."""
    runs = two_groups([0.38, 0.381], [0.40, 0.401], auc=0.5)
    comparison = compare(with_shares(runs, 0.151, 0.153, 0.251, 0.253))
    found = verdict(runs)
    assert found.kind == "confounded" and found.difference == pytest.approx(0.02) and found.low > 0
    assert found.text.startswith("+0.0200 (95% interval +0.0") and found.text.partition(";")[2]
    assert comparison.metric.key == "discriminator_loss" and comparison.primary.key == "auc"
    share, primary, *_ = flags(comparison)
    for said in ("15.2% to 25.2%", "discriminator loss, balanced accuracy, recall and calibration error", "ROC-AUC"):
        assert said in share
    assert "ROC-AUC" in primary and "eval.metric" in primary
    assert "comparisons" not in " ".join(explanations(comparison)), (
        "the confounded one is no comparison that may stand out by chance"
    )
    single = with_shares(two_groups([0.38], [0.40]), 0.15, 0.25)
    assert verdict(single).kind == "confounded" and verdict(single).text.startswith("+0.0200; ")


def test_ranking_and_the_generator_are_judged_whatever_the_share():
    for key in ("auc", "generator_loss"):
        runs = with_shares(two_groups([0.55, 0.551], [0.53, 0.531], key), 0.15, 0.15, 0.25, 0.25)
        assert verdict(runs, key).kind == "differs"
    runs[0].options["eval.metric"] = "generator_loss"
    comparison = compare(runs)
    assert comparison.confounded and comparison.primary == comparison.metric == FIGURE["generator_loss"]


def test_the_share_is_that_of_training_not_a_setting():
    """A wider generator guesses right more often, which mask_prob does not show; and a masking unit may make up for it."""
    wider = with_shares(two_groups([0.38, 0.381], [0.40, 0.401]), 0.150, 0.150, 0.135, 0.135)
    assert verdict(wider).kind == "confounded"
    close = with_shares(two_groups([0.38, 0.381], [0.40, 0.401]), 0.150, 0.150, 0.145, 0.145)
    for run in close:
        run.options["objective.mask_prob"] = run.options["optim.learning_rate"]
    assert verdict(close).kind == "differs" and compare(close).primary.key == "discriminator_loss"
    close[0].training = close[1].training = []
    assert verdict(close).kind == "confounded", "older runs without a count are told apart by the setting"


def test_single_seeds_are_never_called_better():
    """Standard errors of 0.002 each: the difference may be 1.96 * 0.002 * sqrt(2) = 0.0055 by the sample alone."""
    larger = verdict(two_groups([0.50], [0.40], discriminator_loss_se=0.002))
    assert larger.kind == "unknown"
    assert larger.text == "−0.1000, larger than the evaluation's own noise (0.0055); the spread over seeds is unknown"
    smaller = verdict(two_groups([0.500], [0.497], discriminator_loss_se=0.002))
    assert smaller.kind == "noise" and smaller.text.startswith(
        "within the evaluation's own noise: −0.0030 (up to 0.0055)"
    )
    mixed = verdict(two_groups([0.50, 0.51, 0.52], [0.4], discriminator_loss_se=0.002))
    assert mixed.kind == "unknown" and mixed.text.endswith(
        "the spread over seeds is unknown (learning_rate 0.25 has one)"
    )
    no_size = verdict(two_groups([0.50], [0.40]))
    assert "own noise is not known" in no_size.text and "better" not in no_size.text


def test_seeds_that_all_agree_give_no_interval():
    found = verdict(two_groups([0.0, 0.0], [0.1, 0.1], "recall"), "recall")
    assert found.kind == "unknown" and found.low is None and found.difference is not None
    assert verdict(two_groups([0.0, 0.0], [0.1, 0.2], "recall"), "recall").kind == "noise"


def test_runs_that_differ_in_nothing_that_counts_are_one_group():
    runs = [
        experiment("a", 1, auc=0.7),
        experiment("b", 2, auc=0.8, train__micro_batch_tokens=512, tracking__notes="x", checkpoint__every=7),
        experiment(
            "c", 2, auc=0.9, eval__every=3, run__deadline="1:00", objective__discriminator_weight=50
        ),  # W&B: 50.0 is 50
        experiment("d", 1, auc=0.6, train__steps=50),
    ]
    groups = compare(runs).groups
    assert [[run.name for run in group.runs] for group in groups] == [["a", "b", "c"], ["d"]]
    assert [group.label for group in groups] == ["steps None", "steps 50"]
    against = runs[0].final
    assert groups[0].by_seed(FIGURE["auc"], against) == pytest.approx({"1": 0.7, "2": 0.85}), "seed 2 counts once"


def test_labels_are_unique_and_short():
    ambiguous = [experiment("a", auc=0.5), experiment("b", auc=0.5, objective__mask_prob=0.3, eval__mask_prob=0.3)]
    assert [group.label for group in compare(ambiguous).groups][1] == "objective.mask_prob 0.3, eval.mask_prob 0.3"
    long = [experiment("a", auc=0.5), experiment("b", auc=0.5, data__train_files="['" + "x" * 50 + "']")]
    assert [group.label for group in compare(long).groups][1] == "b"


def test_unfinished_runs_are_left_out_of_means():
    runs = two_groups([0.50, 0.51], [0.40, 0.41])
    runs += [experiment("late", 7, optim__learning_rate=0.25, discriminator_loss=9.0, done=False)]
    comparison = compare(runs)
    assert [len(group.runs) for group in comparison.groups] == [2, 3]
    assert comparison.verdicts[0].difference == pytest.approx(-0.1)
    only = compare([runs[0], runs[-1]])
    assert only.verdicts[0].text.startswith("not comparable: learning_rate 0.25 ")


@pytest.mark.parametrize(
    ("changed", "generator", "discriminator"),
    [
        ({"tokenizer": "t2"}, "another tokenizer", "another tokenizer"),
        ({"data": "d2"}, "another held-out text", "another held-out text"),
        ({"corruption": "c2"}, "", "another corruption"),
        ({"corruption": "c2", "seed": 2}, "another eval.seed", "another corruption"),
        ({"corruption": "c2", "mask_prob": 0.3}, "another eval.mask_prob", "another corruption"),
        ({"corruption": "c2", "tokens": 9}, "another share of the held-out tokens", "another corruption"),
        ({"replaced": 1, "examples": 3}, "", ""),
    ],
)
def test_what_may_be_compared(changed, generator, discriminator):
    first, other = experiment("a", auc=0.5).final, experiment("b", auc=0.5, held_out=HELD_OUT | changed).final
    assert (other.why_not(first, "generator"), other.why_not(first, "discriminator")) == (generator, discriminator)


def test_incomparable_figures_have_no_verdict():
    common = dict(auc=0.5, generator_loss=5.0, generator_loss_se=0.1)
    runs = [experiment("a", **common), experiment("b", objective__mask_prob=0.3, **common)]
    runs[1].held_out = HELD_OUT | {"corruption": "c2"}
    assert verdict(runs, "auc").text.startswith("not comparable: mask_prob 0.3 ")
    assert verdict(runs, "generator_loss").kind == "noise", "the generator reads the same input"
    runs[1].held_out = {}
    assert verdict(runs, "generator_loss").kind == "not comparable", "an older run says nothing of its held-out set"


def test_one_network_compares_by_what_it_has():
    """Its own corruption, by token frequency, is nobody's reason to refuse a figure; nor is another mask_prob a confounder."""
    pair = dict(generator_loss=2.0, generator_loss_se=0.01, auc=0.8, discriminator_loss=0.3)
    alone = experiment(
        "mlm", objective__kind="mlm", objective__mask_prob=0.3, generator_loss=1.5, generator_loss_se=0.01
    )
    alone.held_out = HELD_OUT | {"corruption": "by frequency"}
    runs = [experiment("a", **pair), experiment("b", optim__learning_rate=1.0, **pair), alone]
    for order in (runs, runs[::-1]):
        comparison = compare(order)
        found = {(v.figure.key, v.group.runs[0].name): v for v in comparison.verdicts}
        assert comparison.against.held_out == HELD_OUT
        assert not comparison.confounded and not [flag for flag in flags(comparison) if "corruption" in flag]
        name = order[-1].name
        assert found["generator_loss", name].difference == pytest.approx(-0.5 if order is runs else 0.5)
        assert found["auc", name].kind == "not comparable" and "has no discriminator" in found["auc", name].text
    assert verdict(runs[:2], "auc").difference == 0


def test_figures_of_an_objective_that_no_run_has_are_left_out():
    plain = dict(auc=0.8, discriminator_loss=0.3, generator_loss=2.0)
    head = experiment("head", objective__corrective_weight=9.0, corrective_loss=1.0, **plain)
    without = compare([experiment("a", **plain), experiment("b", optim__learning_rate=1.0, **plain)])
    assert not [each for each in without.figures if each.optional]
    assert not [verdict for verdict in without.verdicts if verdict.figure.optional]
    runs = [experiment("a", **plain), head]
    assert verdict(runs, "corrective_loss").text == "not comparable: corrective_weight 0.0 has no such figure"
    assert (
        "corrective loss" in runs_table(compare(runs)).columns and "corrective loss" not in runs_table(without).columns
    )


def test_the_primary_figure_is_the_runs_own_metric():
    comparison = compare([experiment("a", auc=0.5, eval__metric="auc"), experiment("b", auc=0.6, train__steps=3)])
    assert comparison.primary.key == comparison.verdicts[0].figure.key == "auc"


def test_the_best_evaluation_is_the_first_with_the_best_metric():
    run = experiment("a", auc=0.5)
    run.evaluations = [{"step": step, "eval/auc": auc} for step, auc in ((0, None), (1, 0.7), (2, 0.9), (3, 0.9))]
    lower = dataclasses.replace(FIGURE["auc"], better="lower")
    assert (run.best(FIGURE["auc"]).step, run.best(lower).step) == (2, 1)
    assert run.best(FIGURE["recall"]) is None


def test_with_patience_the_best_evaluation_is_final():
    """Its weights are the ones that are exported."""
    run = experiment("a", auc=0.5, eval__metric="auc")
    run.evaluations = [{"step": step, "eval/auc": auc} for step, auc in ((1, 0.7), (2, 0.9), (3, 0.8))]
    assert run.final.step == 3
    run.options["eval.patience"] = 1
    assert run.final.step == 2


def test_records_that_hold_no_number_hold_none():
    training, evaluations = split_records(
        [
            {"step": 2, "train/loss": 3.0, "train/auc": float("nan")},
            {"step": 1, "train/loss": 4.0, "train/auc": "NaN"},
            {"step": 2, "train/loss": 2.0, "train/auc": 0.5},
            {"step": 2, "eval/generator_loss": 0.7, "eval/calibration": [[0.1, 0.2, 3]]},
            {"step": 2, "samples/reconstructions": {}},
        ]
    )
    assert [(record["step"], record["train/loss"], record["train/auc"]) for record in training] == [
        (1, 4.0, None),
        (2, 2.0, 0.5),
    ]
    assert [record["eval/generator_loss"] for record in evaluations] == [0.7]


def test_segments_of_a_resumed_run_are_one_run(tmp_path):
    def segment(name: str, steps: range, exit_code: int | None) -> Segment:
        rows = [{"train/step": step, "train/loss": float(step)} for step in steps]
        config = {
            "objective.mask_prob": 0.3,
            "train.steps": 9,
            "held_out.corruption": "c",
            "environment.commit": "abc",
            "_wandb": {},
        }
        return Segment("id", "run", tmp_path / name / "run-id.wandb", config, rows, exit_code)

    killed, resumed = segment("one", range(1, 7), None), segment("two", range(5, 10), 0)
    whole = join_segments([killed, resumed])
    assert [record["step"] for record in whole.training] == list(range(1, 10))
    assert whole.done and whole.options["train.steps"] == 9 and "environment.commit" not in whole.options
    assert (whole.held_out, whole.environment) == ({"corruption": "c"}, {"commit": "abc"})
    assert join_segments([killed]).state == "unfinished at step 6"
    killed.config = {"lr": 0.1}
    with pytest.raises(UserError, match="not the record of a run"):
        join_segments([killed])
