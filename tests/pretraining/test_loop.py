"""What the loop does between two steps when a run goes on."""

import shutil

import pytest

from electra_accel.engines.state import MODEL_FILE
from electra_accel.runs import checkpoint, run_folder
from tests.pretraining_runs import metrics, options, run_here, write_corpus


def test_a_run_that_goes_on_at_step_0_is_not_judged_twice(tmp_path, monkeypatch, capfd):
    """Its first checkpoint is of step 0 where patience is set; a kill may come right after it."""
    write_corpus(tmp_path / "text.txt", most=300)
    line = options(
        "text.txt", "run", train__steps=2, eval__patience=3, optim__warmup_steps=1, tracking__mode="disabled"
    )
    code, _, _ = run_here([*line, "--run.deadline=0:00"], tmp_path, monkeypatch, capfd)
    assert code == 75
    shutil.rmtree(tmp_path / "run" / run_folder.CHECKPOINTS / "step-00000001")
    code, out, _ = run_here(line, tmp_path, monkeypatch, capfd)
    assert code == 0 and "from step 0" in out and "at step 0:" not in out
    metrics = run_folder.read_jsonl(tmp_path / "run" / run_folder.METRICS)
    assert [record["step"] for record in metrics if "eval/auc" in record] == [0, 2]
    shown = [record["step"] for record in run_folder.read_jsonl(tmp_path / "run" / run_folder.SAMPLES)]
    assert shown.count(0) == shown.count(2) > 0


def test_a_run_with_the_corrective_head_goes_on_exactly_and_has_figures_of_it(tmp_path, monkeypatch, capfd):
    write_corpus(tmp_path / "text.txt", most=300)
    short = dict(
        optim__schedule="constant", optim__warmup_steps=0, checkpoint__every=2, eval__every=2, tracking__samples="none"
    )
    short |= dict(objective__corrective_weight=3, tracking__mode="disabled")

    def run(name, **changed):
        return run_here(options("text.txt", name, **short | changed), tmp_path, monkeypatch, capfd)

    for name, steps in (("whole", 4), ("halves", 2), ("halves", 4)):
        code, out, err = run(name, train__steps=steps)
        assert code == 0, out + err
    assert "corrective loss" in out
    whole, halves = metrics(tmp_path / "whole"), metrics(tmp_path / "halves")
    assert [record for record in halves if record["step"] > 2] == [record for record in whole if record["step"] > 2]
    weights = [
        checkpoint.path_of(tmp_path / name / run_folder.CHECKPOINTS, 4) / MODEL_FILE for name in ("whole", "halves")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    training = [record for record in whole if "train/loss" in record]
    for record in training:
        parts = (record[f"train/{name}_loss"] for name in ("generator", "discriminator", "corrective"))
        assert record["train/loss"] == pytest.approx(sum(w * part for w, part in zip((1, 10, 3), parts)), rel=1e-6)
    judged = [record for record in whole if "eval/auc" in record]
    assert [record["step"] for record in judged] == [0, 2, 4]
    kept = dict.fromkeys(("loss", "loss_se", "accuracy", "accuracy_replaced", "accuracy_kept"))
    assert {f"eval/corrective_{name}" for name in kept} <= judged[0].keys()
    assert judged[-1]["eval/corrective_loss"] < judged[0]["eval/corrective_loss"]

    code, _, err = run("halves", train__steps=4, objective__corrective_weight=0)
    assert code == 2 and "objective.corrective_weight: 3.0 -> 0.0" in err
    code, out, err = run("without", train__steps=2, objective__corrective_weight=0)
    assert code == 0 and "corrective" not in out
    assert not [key for record in metrics(tmp_path / "without") for key in record if "corrective" in key]


def test_one_of_every_so_many_checkpoints_stays_and_the_wait_for_them_is_logged(tmp_path, monkeypatch, capfd):
    write_corpus(tmp_path / "text.txt", most=300)
    chosen = dict(
        train__steps=5, optim__warmup_steps=1, checkpoint__every=1, checkpoint__keep=1, tracking__mode="disabled"
    )
    line = options("text.txt", "run", **chosen, checkpoint__keep_every=2)
    code, _, err = run_here(line, tmp_path, monkeypatch, capfd)
    assert code == 0, err
    saved = checkpoint.existing(tmp_path / "run" / run_folder.CHECKPOINTS)
    assert [step for step, _ in saved] == [2, 4, 5]
    assert all(checkpoint.verify(path) for _, path in saved)
    stalls = [
        record.get("speed/checkpoint_stall") for record in run_folder.read_jsonl(tmp_path / "run" / "metrics.jsonl")
    ]
    assert stalls[1] == 0 and all(0 < stall < 10 for stall in stalls[2:-1]), "those before the line"
    wrong = options("text.txt", "no", **chosen | {"checkpoint__every": 4}, checkpoint__keep_every=6)
    code, _, err = run_here(wrong, tmp_path, monkeypatch, capfd)
    assert code == 2 and "checkpoint.keep_every 6 is not a multiple of checkpoint.every 4" in err
