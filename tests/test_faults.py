"""A cut of ``make faults``: kills before some operations on files, and at random moments, are survived; damage is noticed."""

import json
import os

import pytest

from electra_accel.errors import UserError
from tests.faults import damage, full_disk, random_kills, trial
from tests.faults.operations import operations
from tests.faults.row import Row, judge
from tests.faults.signals import how


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_before_operations_on_files_are_survived(tmp_path):
    row = operations(tmp_path, "pretraining", each=80, jobs=1)
    assert row.kills >= 4 and row.runs == row.survived >= 1 and row.wrong == []
    assert max(row.lost) <= 1, "there is a checkpoint every step"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_of_one_of_two_processes_at_random_moments_are_survived(tmp_path):
    row = random_kills.at_random("ddp", tmp_path, kills=3, seed=3)
    assert row.kills >= 3 and row.of_one >= 1 and row.runs == row.survived >= 1 and row.wrong == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_launcher_starts_again_what_was_killed(tmp_path):
    row = random_kills.restarted(tmp_path, kills=1, seed=1)
    assert row.kills >= 1 and row.runs == row.survived == 1 and row.wrong == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_damaged_files_are_named_or_do_no_harm(tmp_path):
    tmp_path.chmod(0o755)
    for above in tmp_path.parents:
        if above.owner() == tmp_path.owner() and str(above).startswith("/tmp/"):
            above.chmod(0o755)
    row = damage.damaged(tmp_path, each=23, jobs=1)
    assert row.wrong == []
    assert sum(o.undisturbed + o.refused + o.told for o in row.found.values()) >= 8


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_ends_a_run_with_a_line_and_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(full_disk, "ROOM", 2_000_000)  # less than a checkpoint takes
    try:
        row = full_disk.filled(tmp_path, tries=2, seed=1)
    except UserError as reason:
        pytest.skip(str(reason))
    assert row.wrong == [] and row.survived == 2 and row.refused >= 1


@pytest.mark.parametrize(
    ("code", "status", "many", "ended"),
    [
        (75, {"state": "preempted", "exit_code": 75}, False, 0),
        (1, {"state": "preempted", "exit_code": 75}, True, 0),
        (1, {"state": "preempted", "exit_code": 75}, False, None),
        (-15, {}, False, 1),
        (1, {}, False, None),
        (1, {}, True, 1),
        (0, {"state": "done", "exit_code": 0}, False, 2),
        (-15, {"state": "done", "exit_code": 0}, False, None),
        (1, {"state": "failed", "exit_code": 1}, True, None),
        (trial.HUNG, {"state": "done", "exit_code": 0}, True, None),
    ],
)
def test_how_a_run_ended_that_was_asked_to_stop(code, status, many, ended):
    assert how(code, status, many) == ended


def test_what_is_not_equal_is_told(tmp_path):
    """Else a harness that compares nothing would be content with anything."""
    wanted = {
        "discriminator/model.safetensors": "abc",
        "figures": [{"step": 1}],
        "each step once": True,
        "state": "done",
    }
    run = tmp_path / "it" / trial.RUN
    (run / "discriminator").mkdir(parents=True)
    (run / "discriminator" / "model.safetensors").write_text("other weights")
    lines = [{"step": 1, "train/loss": 1.0}, {"step": 1, "train/loss": 1.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "status.json").write_text(json.dumps({"state": "done", "step": 1, "reason": "", "exit_code": 0}))
    row = Row("a fault")
    judge(row, "it", tmp_path / "it", trial.content(tmp_path / "it"), wanted)
    assert (row.runs, row.survived) == (1, 0)
    assert row.wrong[0].startswith("it: discriminator/model.safetensors, figures, each step once")
    assert trial.content(tmp_path / "it")["each step once"] is False
