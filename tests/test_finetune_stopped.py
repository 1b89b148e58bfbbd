"""scripts/finetune.py that ended early: it goes on with the same bits, and a damaged checkpoint is never scored."""

import os
import signal
import subprocess
import sys
import time

import pytest

from electra_accel.errors import UserError
from electra_accel.finetuning import job
from electra_accel.finetuning.config import Settings
from electra_accel.finetuning.heads import Encoder
from electra_accel.runs import run_folder, stopping
from tests.finetuning.small import task_data
from tests.finetuning_runs import PREDICTIONS, SCRIPT, line, make_place
from tests.helpers import ROOT
from tests.pretraining_runs import run_here
from tests.processes import popen


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("finetune"))


@pytest.mark.slow
def test_goes_on_after_a_kill_with_the_same_bits(place):
    """With one thread: several share sums out as they find time."""
    more = ["--train.epochs=30", "--tracking.log_every=3"]
    program = [sys.executable, str(ROOT / "scripts" / SCRIPT)]
    alone = dict(cwd=place, env=os.environ | {"OMP_NUM_THREADS": "1"})
    silent = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert popen([*program, *line("undisturbed", *more)], **alone, **silent).wait(200) == 0
    process = popen([*program, *line("killed", *more)], **alone, **silent)
    folder = place / "killed" / "t" / "first" / "seed-1"
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/step-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert list(folder.glob("checkpoints/step-*"))
    assert not (folder / "result.json").exists()
    assert popen([*program, *line("killed", *more)], **alone, **silent).wait(200) == 0
    other = place / "undisturbed" / "t" / "first" / "seed-1"
    for name in PREDICTIONS:
        assert (folder / name).read_bytes() == (other / name).read_bytes()
    curves = [run_folder.read_jsonl(path / run_folder.METRICS) for path in (folder, other)]
    assert [{k: v for k, v in row.items() if not k.startswith("speed/")} for row in curves[0]] == [
        {k: v for k, v in row.items() if not k.startswith("speed/")} for row in curves[1]
    ]


def test_stops_when_asked(place, monkeypatch, capfd):
    """A deadline that is now: the exit code says so, and the same command ends the run with the figures of one that was not
    stopped."""
    code, out, err = run_here(line("asked", "--run.deadline=0:00"), place, monkeypatch, capfd, SCRIPT)
    assert (code, err) == (75, "")
    assert "0 of 1 fine-tunings (run.deadline" in out and "--run.dir asked " in out
    assert "step 1 of 10 of epoch 1" in out and "--task.train_rows" in out
    assert run_folder.read_status(place / "asked")["state"] == "preempted"
    code, out, err = run_here(line("asked", "--run.deadline=0:00"), place, monkeypatch, capfd, SCRIPT)
    assert code == 2 and "step 1 of 10 of epoch 1" in err and err.count("\n") == 1, "a job must not requeue for ever"
    status = run_folder.read_status(place / "asked")
    assert (status["state"], status["exit_code"]) == ("failed", 2) and "--task.train_rows" in status["reason"]
    for run in ("asked", "not-asked"):
        code, out, err = run_here(line(run), place, monkeypatch, capfd, SCRIPT)
        assert (code, err) == (0, "")
        assert not (place / run / "t" / "first" / "seed-1" / run_folder.CHECKPOINTS).exists()
    for name in PREDICTIONS:
        folders = [place / run / "t" / "first" / "seed-1" for run in ("asked", "not-asked")]
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_a_stop_in_a_later_epoch_is_progress(place):
    """Only the start before this one counts, and only where it was stopped inside the same epoch."""
    task = task_data(("no", "yes"), name="t")
    one = job.Job(Settings(), task, Encoder("m", "m", False, None, None, ""), 1, place / "later")
    one.folder.mkdir(parents=True)
    assert [job.stopped_here_before(one, step) for step in (0, 10, 10, 0)] == [False, False, True, False]


def test_only_time_that_runs_out_is_counted(place, monkeypatch, capfd):
    """Who stops a run by hand, or takes its place, says nothing about the next start."""
    reason = "signal SIGTERM"
    monkeypatch.setattr(stopping.StopRequests, "reason", lambda self: reason)
    for expected in (75, 75):
        code, out, err = run_here(line("by-hand"), place, monkeypatch, capfd, SCRIPT)
        assert (code, err) == (expected, "") and "step 1 of 10 of epoch 1" in out
    reason = "signal SIGUSR1"
    for expected in (75, 2):
        code, out, err = run_here(line("by-hand"), place, monkeypatch, capfd, SCRIPT)
        assert code == expected, out + err


def test_a_damaged_best_checkpoint_is_named_and_not_scored(place, monkeypatch, capfd):
    """The best epoch is the first, as nothing is learnt; the run ends after the last one, before it scores test."""
    write, options = job.write_predictions, line("damaged", "--optim.learning_rate=1e-12")

    def interrupted(of, split, records):
        if split == "test":
            raise UserError("interrupted")
        write(of, split, records)

    with monkeypatch.context() as patch:
        patch.setattr(job, "write_predictions", interrupted)
        code, _, err = run_here(options, place, monkeypatch, capfd, SCRIPT)
    assert code == 2 and "interrupted" in err
    folder = place / "damaged" / "t" / "first" / "seed-1"
    best, newest = sorted((folder / "checkpoints").glob("step-*"))
    assert (best.name, newest.name) == ("step-00000010", "step-00000080")
    weights = best / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    code, _, err = run_here(options, place, monkeypatch, capfd, SCRIPT)
    assert code == 2 and err.count("\n") == 1, err
    assert (
        f"{best.relative_to(place)} is damaged (model.safetensors was altered" in err
        and f"remove {folder.relative_to(place)}" in err
    )
    assert not (folder / PREDICTIONS[1]).exists() and not (folder / "result.json").exists()
