"""How runs end and begin again: kills at awkward moments, early stopping, damage, a full disk. Tiny runs in this process."""

import io
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from electra_accel.reports import settings
from electra_accel.reports.adaptation import held_out_sets, story_of_run, tell
from electra_accel.runs import checkpoint, run_folder
from tests.pretraining_runs import exported_weights, finish, metrics, options, run_short, start, write_corpus

SHORT = {
    "train__steps": 4,
    "checkpoint__every": 2,
    "eval__every": 2,
    "eval__batches": 1,
    "tracking__samples_every": 2,
    "tokenizer__train_vocab_size": 400,
    "optim__warmup_steps": 0,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("endings")
    write_corpus(folder / "text.txt", most=300)
    return folder


@pytest.fixture
def train(place, monkeypatch, capfd):
    """Runs the script in ``place``: train("run", option=…) -> (exit code, stdout, stderr)."""
    return run_short(SHORT, place, monkeypatch, capfd)


def test_a_run_that_stopped_may_end_where_it_stands(train, place):
    """With fewer steps than before: it is judged there, so that its story is of the weights that it exports."""
    code, out, err = train("shortened", train__steps=40, run__deadline="0:00")
    assert code == 75 and "stopped at step 1" in out + err
    told = story_of_run(place / "shortened")
    assert told.after_step == 0
    code, out, err = train("shortened", train__steps=1)
    assert code == 0, out + err
    assert "held out at step 1: " in out and "nothing to compare" not in out
    evaluations = [record["step"] for record in metrics(place / "shortened") if "eval/generator_loss" in record]
    assert evaluations == [0, 1] and story_of_run(place / "shortened").cost.tokens > 0
    logged = metrics(place / "shortened")
    run_folder.write_status(place / "shortened", "running", 1)
    assert train("shortened", train__steps=1)[0] == 0 and metrics(place / "shortened") == logged


def test_a_kill_between_the_last_step_and_the_export(train, place):
    """Nothing is trained again, nothing is logged again, the export is made."""
    run = place / "late"
    assert train("late")[0] == 0
    exported, logged = exported_weights(run), metrics(run)
    shutil.rmtree(run / "discriminator")
    run_folder.write_status(run, "running", 4)
    code, out, err = train("late")
    assert code == 0, out + err
    assert exported_weights(run) == exported and metrics(run) == logged
    assert run_folder.read_status(run)["state"] == "done"

    code, _, err = train("late", train__steps=2)
    assert code == 0  # finished is finished
    run_folder.write_status(run, "running", 4)
    code, _, err = train("late", train__steps=2)
    assert code == 2 and "train.steps 2" in err
    assert exported_weights(run) == exported and metrics(run) == logged


def test_a_kill_before_the_first_checkpoint(train, place):
    """The run starts again at step 0, and step 0 is recorded once."""
    run = place / "early"
    assert train("early")[0] == 0
    shutil.rmtree(run / "checkpoints")
    run_folder.write_status(run, "running", 1)
    logged, samples = metrics(run), run_folder.read_jsonl(run / run_folder.SAMPLES)
    assert train("early")[0] == 0
    assert metrics(run) == logged
    assert run_folder.read_jsonl(run / run_folder.SAMPLES) == samples


def test_early_stopping_exports_the_best_step_which_may_be_the_start(train, place):
    """A learning rate that destroys the networks: nothing ever beats step 0."""
    code, out, err = train(
        "stopped", optim__learning_rate=0.3, optim__schedule="constant", train__steps=20, eval__patience=2
    )
    assert code == 0, out + err
    run = place / "stopped"
    status = run_folder.read_status(run)
    assert (status["state"], status["step"]) == ("done", 4) and "has not improved since step 0" in status["reason"]
    card = (run / "discriminator" / "README.md").read_text()
    assert "step 0 (the best by discriminator_loss)" in card
    first = next(record for record in metrics(run) if record["step"] == 0)
    assert f"{first['eval/auc']:.4f}" in card
    outdone = "no better: none of 2 later evaluations is better than step 0, which this is"
    assert outdone in out and outdone.capitalize() in card and "advice: the held-out text is small" in out
    assert checkpoint.path_of(run / "checkpoints", 0).is_dir(), "the best checkpoint is never pruned"
    better = {"step": 6, "eval/generator_loss": 1.0, "eval/discriminator_loss": 0.01}
    records = [*metrics(run), better]
    told = tell("x", records, settings.read(run), held_out_sets(run), step=0)
    assert told.later == 0, "a checkpoint of the start that is exported although a later step was better"
    code, out, _ = train(
        "stopped", optim__learning_rate=0.3, optim__schedule="constant", train__steps=40, eval__patience=2
    )
    assert code == 0 and "is finished: discriminator_loss has not improved" in out


def test_a_run_that_goes_on_from_step_0_has_judged_it_already(train, place):
    """Patience 1: a second look at the same weights would use it up."""
    patient = {"eval__patience": 1, "eval__metric": "generator_loss", "checkpoint__keep": 5}
    run = place / "again"
    assert train("again", **patient)[0] == 0
    (_, start), *later = checkpoint.existing(run / "checkpoints")
    for _, path in later:
        shutil.rmtree(path)
    logged, samples = metrics(run), run_folder.read_jsonl(run / run_folder.SAMPLES)
    run_folder.write_status(run, "running", 0)
    code, out, err = train("again", **patient)
    assert code == 0 and start.name == "step-00000000" and "stopped early" not in out, out + err
    assert metrics(run) == logged and run_folder.read_jsonl(run / run_folder.SAMPLES) == samples


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoints(train, place):
    code, out, err = train("burst", optim__learning_rate=1e30, optim__schedule="constant", checkpoint__every=1)
    assert code == 2 and err.count("\n") == 1
    assert "not finite at steps 2 to 4" in err
    run = place / "burst"
    assert 1 in [step for step, _ in checkpoint.existing(run / "checkpoints")], "the last before them"
    status = run_folder.read_status(run)
    assert (status["state"], status["exit_code"]) == ("failed", 2) and "not finite" in status["reason"]


def test_damage_is_never_loaded_and_never_means_starting_over_in_silence(train, place):
    run = place / "damaged"
    assert train("damaged")[0] == 0
    run_folder.write_status(run, "running", 4)
    for _, path in checkpoint.existing(run / "checkpoints"):
        (path / "optimizer.safetensors").unlink()
    before = metrics(run)
    code, out, err = train("damaged")
    assert code == 2 and "all checkpoints" in err and "step-00000002, step-00000004" in err
    assert metrics(run) == before


def test_a_run_that_began_at_anothers_checkpoint_goes_on_from_its_own(train, place):
    assert train("origin")[0] == 0
    at = place / "origin" / "checkpoints" / "step-00000002"
    code, out, err = train("branch", run__resume=at)
    assert code == 0 and "from step 2" in out, out + err
    run_folder.write_status(place / "branch", "running", 4)
    code, out, err = train("branch", run__resume=at, train__steps=6)
    assert code == 0 and "from step 4" in out, out + err
    assert [record["step"] for record in metrics(place / "branch") if "train/loss" in record] == [3, 4, 5, 6]
    judged = {run: [r for r in metrics(place / run) if "eval/auc" in r] for run in ("origin", "branch")}
    assert [record["step"] for record in judged["branch"]] == [0, 4, 6], "the start that both share, once"
    start = {name: value for name, value in judged["origin"][0].items() if name != "eval/calibration"}
    assert judged["branch"][0] == start
    told, card = story_of_run(place / "branch"), (place / "branch" / "discriminator" / "README.md").read_text("utf-8")
    assert (told.before_step, told.domain["auc"].before) == (0, start["eval/auc"])
    assert "| step 0 | step 6 |" in card and f"{start['eval/auc']:.4f}" in card
    assert f"{start['eval/auc']:.4f}" in (place / "branch" / "report.html").read_text("utf-8")
    fixed = [(place / run / "held_out" / "held_out.npy").read_bytes() for run in ("origin", "branch")]
    assert fixed[0] == fixed[1]
    (place / "branch" / "held_out" / "held_out.npy").write_bytes(changed(fixed[1]))
    run_folder.write_status(place / "branch", "running", 6)
    code, _, err = train("branch", train__steps=8)
    assert code == 2 and "held_out.npy" in err, "figures on another corruption would not compare"


def changed(array: bytes) -> bytes:
    """The .npy file with one replacement changed: its last used slot of the first bins."""
    values = np.load(io.BytesIO(array))
    values[1, 0, 0] += 1
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def test_two_processes_never_write_into_one_run_folder(train, place):
    """The lock is the operating system's: whoever holds it may die without a trace."""
    assert train("shared")[0] == 0
    run_folder.write_status(place / "shared", "running", 4)
    program = (
        "import fcntl, sys, time; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); print(1, flush=True)"
    )
    command = [sys.executable, "-c", program + "; time.sleep(120)", str(place / "shared" / run_folder.LOCK)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "1\n"
    code, _, err = train("shared", train__steps=6)
    holder.kill()
    holder.wait(timeout=30)
    assert code == 2 and "in use by another process" in err
    assert train("shared", train__steps=6)[0] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_disk_that_fills_up_while_training(place, tmp_path):
    """One line, exit code 2, and what was saved before stays whole."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90m", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("this machine does not allow mounts")
    try:
        run = tmp_path / "run"
        process = start(options("text.txt", run, **SHORT | {"train__steps": 4000}), place, WANDB_MODE="disabled")
        deadline = time.monotonic() + 120
        while not checkpoint.existing(run / "checkpoints") and time.monotonic() < deadline:
            time.sleep(0.05)
        try:
            with open(tmp_path / "filler", "wb") as file:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
        except OSError:
            pass  # full, as wanted
        code, out, err = finish(process)
        assert code == 2 and "no space left" in err.splitlines()[-1], out + err
        assert checkpoint.newest_valid(run / "checkpoints", print)
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)
