"""Means, spreads and paired differences; the table says what is within noise."""

import json

import numpy as np
import pytest
from scipy import stats

from electra_accel.finetuning.config import Settings
from electra_accel.finetuning.heads import Encoder
from electra_accel.finetuning.job import RESULT, Job, State
from electra_accel.finetuning.results import collect, markdown, paired_difference, verdict
from tests.finetuning.small import task_data

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


def test_what_two_seeds_cannot_say():
    """Equal differences have no spread, a missing one may be any: no verdict. No difference at all is no gain."""
    equal = paired_difference({1: 0.82, 2: 0.83}, {1: 0.81, 2: 0.82})
    assert (equal["within_noise"], equal["low"], equal["mean"]) == (None, None, pytest.approx(0.01))
    assert verdict(equal) == "equal with all seeds: not known"
    assert paired_difference({1: 0.8, 2: 0.7}, {1: 0.8, 2: 0.7})["within_noise"] is True
    missing = paired_difference({1: 0.85, 2: 0.88, 3: None}, {1: 0.8, 2: 0.8, 3: 0.8})
    assert verdict(missing) == "undefined with 1 of 3 seeds: not known"
    assert paired_difference({1: None}, {1: 0.8}) is None


def test_table(tmp_path):
    """Judged on test; a fine-tuning that is not finished is said to be missing."""
    jobs = []
    for name, figures in (("general", FIRST), ("adapted", OTHER)):
        for seed, value in figures.items():
            encoder = Encoder(name, f"runs/{name}", False, None, None, "")
            job = Job(Settings(), task_data((), name="nsmc"), encoder, seed, tmp_path)
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


def test_a_seed_without_a_figure_is_shown(tmp_path):
    """A constant prediction has no correlation: that is neither a figure nor a seed that was not run."""
    jobs = []
    data = task_data(0, 1, name="sts", kind="regression", notes=("5 train rows", "2 texts stand in train too"))
    for name, figures in (("general", [0.5, 0.5, 0.5]), ("adapted", [0.8, None, 0.9]), ("flat", [None] * 3)):
        for seed, value in enumerate(figures):
            jobs.append(Job(Settings(), data, Encoder(name, name, False, None, None, ""), seed, tmp_path))
            jobs[-1].folder.mkdir(parents=True)
            (jobs[-1].folder / RESULT).write_text(json.dumps({"dev": {"spearman": 0.7}, "test": {"spearman": value}}))
    lines = markdown(collect(jobs)).splitlines()
    assert "| 0.8500 ± 0.0707 (2 of 3 defined) | +0.3500 | – | undefined with 1 of 3 seeds: not known |" in lines[3]
    assert "| flat | 3 | 0.7000 ± 0.0000 | undefined | – | – | not known yet |" in lines[4]
    assert lines[-1] == "- sts: 2 texts stand in train too."


def test_seeds_that_learnt_nothing_are_named(tmp_path):
    data, encoder = task_data((), name="t"), Encoder("a", "a", False, None, None, "")
    jobs = [Job(Settings(), data, encoder, seed, tmp_path) for seed in (1, 2, 3)]
    for job, found in zip(jobs, (0.0, 0.4, 0.0), strict=True):
        job.folder.mkdir(parents=True)
        figures = {"accuracy": 0.5, "matthews": found}
        (job.folder / RESULT).write_text(json.dumps({"dev": {"accuracy": 0.5, "matthews": 0.1}, "test": figures}))
    notes = collect(jobs)["tasks"]["t"]["notes"]
    assert len(notes) == 1 and notes[0].startswith("a, seed 1, 3: ") and "matthews" in notes[0] and "test" in notes[0]


def test_the_first_of_equal_epochs_is_the_best():
    state = State()
    for epoch, figure in enumerate([None, 0.5, 0.7, 0.7, None], start=1):
        state.step = 10 * epoch
        state.judge({"accuracy": figure}, "accuracy")
    assert (state.best_epoch, state.best_step) == (3, 30)


def test_the_table_tells_of_cut_texts_and_of_figures_computed_in_different_ways(tmp_path):
    for seed, how in ((1, "cpu, fp32, 1 x 16 examples at once"), (2, "cuda, bf16, 1 x 32 examples at once")):
        job = Job(
            Settings(),
            task_data((), name="nsmc"),
            Encoder("a", "a", False, None, None, ""),
            seed,
            tmp_path,
        )
        job.folder.mkdir(parents=True)
        result = {"best_epoch": 1, "dev": {"accuracy": 0.5}, "rows": {"train": 300, "dev": 60}, "computed_with": how}
        (job.folder / RESULT).write_text(json.dumps(result | {"cut_texts": {"train": 200 + seed, "dev": 0}}))
        if seed == 1:
            assert "not all figures" not in markdown(collect([job]))
    text = markdown(collect([Job(job.settings, job.data, job.encoder, seed, tmp_path) for seed in (1, 2)]))
    assert "- nsmc: a: 202 of 300 texts of train are cut at task.max_length." in text and "of dev are cut" not in text
    assert "computed in the same way (cpu, fp32, 1 x 16 examples at once; cuda, bf16, 1 x 32 examples at once)" in text
