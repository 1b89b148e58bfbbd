"""Means, spreads and paired differences; the table says what is within noise."""

import json

import numpy as np
import pytest
from scipy import stats

from electra_accel.downstream.heads import Encoder
from electra_accel.downstream.job import RESULT, Job, State
from electra_accel.downstream.results import collect, markdown, paired_difference
from electra_accel.downstream.settings import Settings
from electra_accel.downstream.tasks import TaskData
from tests.downstream.small import task

FIRST = {1: 0.80, 2: 0.82, 3: 0.81, 4: 0.79}
OTHER = {1: 0.85, 2: 0.86, 3: 0.83, 4: 0.86, 9: 0.10}  # seed 9 has no partner


def test_paired_difference_is_that_of_scipy():
    found = paired_difference(OTHER, FIRST)
    mine, theirs = ([figures[seed] for seed in FIRST] for figures in (OTHER, FIRST))
    interval = stats.ttest_rel(mine, theirs).confidence_interval(0.95)
    assert (found["low"], found["high"]) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found["mean"] == pytest.approx(np.mean(mine) - np.mean(theirs))
    assert found["seeds"] == 4 and found["within_noise"] is False
    assert paired_difference({1: 0.9, 2: 0.7}, {1: 0.8, 2: 0.8})["within_noise"] is True
    assert paired_difference({1: 0.9}, {1: 0.8})["within_noise"] is None
    assert paired_difference({1: 0.9}, {2: 0.8}) is None


def test_table(tmp_path):
    """Judged on test; a fine-tuning that is not finished is said to be missing."""
    jobs = []
    for name, figures in (("general", FIRST), ("adapted", OTHER)):
        for seed, value in figures.items():
            encoder = Encoder(name, f"runs/{name}", False, None, None, "")
            job = Job(Settings(), TaskData(task(name="nsmc"), {}, (), 0, 1, ()), encoder, seed, tmp_path)
            jobs.append(job)
            job.folder.mkdir(parents=True)
            if seed != 9:
                dev, test = {"accuracy": 0.5}, {"accuracy": value}
                (job.folder / RESULT).write_text(json.dumps({"best_epoch": 1, "dev": dev, "test": test}))
    results = collect(jobs)
    adapted = results["tasks"]["nsmc"]["models"]["adapted"]
    assert adapted["summary"]["test"]["accuracy"]["difference"] == paired_difference(OTHER, FIRST)
    assert adapted["seeds"]["3"]["test"]["accuracy"] == 0.83
    lines = markdown(results).splitlines()
    assert lines[2] == "| nsmc | accuracy | general | 4 | 0.5000 ± 0.0000 | 0.8050 ± 0.0129 |  |  | the first model |"
    assert lines[3].startswith("| nsmc | accuracy | adapted | 4 | 0.5000 ± 0.0000 | 0.8500 ± 0.0141 | +0.0450 | +0.0")
    assert lines[3].endswith("| better |")
    assert lines[-1] == "8 of 9 fine-tunings are finished."


def test_the_first_of_equal_epochs_is_the_best():
    state = State()
    for epoch, figure in enumerate([None, 0.5, 0.7, 0.7, None], start=1):
        state.step = 10 * epoch
        state.judge({"accuracy": figure}, "accuracy")
    assert (state.best_epoch, state.best_step) == (3, 30)
