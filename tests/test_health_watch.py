"""A run whose discriminator calls nothing replaced says so: once, in all places, and not again when it is resumed."""

import pytest

from electra_accel.pretraining import log
from tests.pretraining_runs import metrics, run_short, wandb_rows, wandb_segments, write_corpus

# A tiny pair of eight steps calls nothing replaced as soon as it has learnt that most tokens are original.
SHORT = {
    "train__steps": 8,
    "train__batch_tokens": 512,
    "tokenizer__train_vocab_size": 600,
    "model__sharing": "tied",
    "objective__discriminator_weight": 50,
    "optim__learning_rate": 3e-3,
    "eval__every": 8,
    "eval__batches": 1,
    "checkpoint__every": 8,
    "tracking__samples": "none",
}
WARNING = "warning: step {step}: the discriminator calls almost no token replaced"


@pytest.mark.timeout(200)
def test_a_collapse_is_told_of_once(tmp_path, monkeypatch, capfd):
    write_corpus(tmp_path / "text.txt", most=200)
    train = run_short(SHORT, tmp_path, monkeypatch, capfd)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(log, "watched_from", lambda warmup_steps, total_steps: 3)
    code, out, err = train("run")
    assert code == 0, out + err
    watched = {r["step"]: r["health/calls_nothing"] for r in metrics(tmp_path / "run") if "health/calls_nothing" in r}
    assert list(watched) == list(range(3, 9)), "each log line from the step that watched_from gives"
    first = next(step for step, holds in watched.items() if holds)
    assert watched[8] == 1
    assert out.count("warning: step ") == 1 and WARNING.format(step=first) in out
    assert out.count("advice: the discriminator calls almost no token replaced") == 1, "and once more in the story"
    (records,) = wandb_segments(tmp_path / "run")
    logged = {
        row["train/step"]: row["health/calls_nothing"]
        for row in wandb_rows(records)
        if "train/loss" in row and row["train/step"] > 2
    }
    assert logged == watched
    assert "calls almost no token replaced" in (tmp_path / "run" / "report.html").read_text()

    code, out, err = train("run", train__steps=10)
    assert code == 0, out + err
    assert [r["health/calls_nothing"] for r in metrics(tmp_path / "run") if r["step"] > 8 and "train/loss" in r] == [
        1,
        1,
    ]
    assert "warning: step " not in out, "it was told before"
