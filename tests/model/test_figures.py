"""Every figure is said once: one entry in figures.py is logged, summed up, charted, told, compared, and may be eval.metric."""

import subprocess
import sys

import pytest

from electra_accel.model import figures, metrics
from tests.helpers import ROOT

# A figure of the counters that there are, known to figures.py before any other file reads it.
ADDED = """
from electra_accel.model import figures
figures.FIGURES["misses"] = figures.Figure(
    "misses", "missed tokens", "discriminator", "lower", "share of the replaced tokens that it misses",
    lambda c: figures.ratio(c["replaced"] - c["true_positives"], c["replaced"]),
    lambda value, c: figures.intervals.proportion_error(value, c["replaced"]), chooses=True)
figures.METRICS += ("misses",)

import torch
from electra_accel.model.metrics import BINS, SCALARS, summarise
counters = torch.zeros(len(SCALARS) + 2 * BINS)
for name, value in {"judged": 100, "replaced": 10, "true_positives": 4}.items():
    counters[SCALARS.index(name)] = value
assert round(summarise(counters)["misses"], 6) == 0.6

from electra_accel.tracking.trackers import SUMMARIES
assert SUMMARIES["eval/misses"] == SUMMARIES["general/misses"] == "min"

from electra_accel.reports import story
from electra_accel.reports.adaptation import tell
from electra_accel.reports.curves import learning_charts
from tests.reports.test_adaptation import COUNTS, GIVEN, evaluation
records = [evaluation(0, misses=0.9), evaluation(9, misses=0.5), evaluation(18, misses=0.6)]
best = tell("run", records, GIVEN | {"eval.metric": "misses", "eval.patience": 1}, {"eval": COUNTS})
assert best.after_step == 9 and best.domain["misses"].verdict == "better"
told = story.markdown(best) + "\\n".join(story.lines(best))
assert told.count("discriminator missed tokens") == 2 and "-0.4000 ± " in told
assert story.summary_values(best)["story/domain/misses_change"] == 0.5 - 0.9
assert 'aria-label="Discriminator missed tokens"' in learning_charts(records, None)

from electra_accel.reports.compare import compare
from electra_accel.reports.comparison_text import csv_text, markdown_text
from tests.reports.test_compare import two_groups
comparison = compare(two_groups([0.5, 0.51], [0.2, 0.21], "misses"))
(verdict,) = [each for each in comparison.verdicts if each.figure.key == "misses"]
assert verdict.text.startswith("learning_rate 0.25 better")
assert "missed tokens" in markdown_text(comparison) and "final/misses_se" in csv_text(comparison)
"""


def test_a_new_figure_is_one_entry():
    command = [sys.executable, "-c", ADDED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_new_counter_is_one_entry(monkeypatch, trained_pair):
    """Of tokens that are not replaced and not called so; what it must be follows from the others."""
    from electra_accel.model.rtd import ReplacedTokenDetection
    from tests.model.batches import pack_examples, toy_examples

    entry = lambda f: f.judged & ~f.replaced & ~f.positive  # noqa: E731
    monkeypatch.setitem(metrics.OF_VERDICTS, "true_negatives", entry)
    monkeypatch.setattr(metrics, "SCALARS", (*metrics.SCALARS, "true_negatives"))
    batch, _ = pack_examples(toy_examples(30, seed=3), rows=16)
    counters = ReplacedTokenDetection(*trained_pair).eval()(batch).counters
    found = dict(zip(metrics.SCALARS, counters.tolist(), strict=False))
    assert found["true_negatives"] == found["judged"] - found["replaced"] - found["false_positives"] > 0


def test_figures_need_no_torch():
    """The command line reads them for --help."""
    program = "import sys; from electra_accel.model import figures; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize(
    ("key", "better", "worse"), [("auc", 0.8, 0.7), ("generator_loss", 2.0, 3.0), ("discriminator_loss", 0.2, 0.3)]
)
def test_which_way_is_better(key, better, worse):
    figure = figures.FIGURES[key]
    assert figure.is_better(better, worse) and not figure.is_better(worse, better)
    assert not figure.is_better(better, better) and not figure.is_better(float("nan"), worse)
    entries = [(worse, 0), (better, 1), (better, 2), (worse, 3)]
    assert figure.best(entries, lambda entry: entry[0]) == (better, 1), "the first of equals"
    assert figure.best([], lambda entry: entry[0]) is None
    assert key in figures.METRICS


def test_names_are_unique():
    every = figures.FIGURES.values()
    assert len({figure.full_name for figure in every}) == len(every)
    assert all(
        figure.better in ("higher", "lower", "") and figure.network in ("generator", "discriminator")
        for figure in every
    )
    assert all(figure.better for figure in every if figure.chooses)
