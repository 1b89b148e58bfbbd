"""Steps whose loss is not finite, in whole runs; tests/parity has them on several processes."""

import json

import pytest

from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.pretraining import loop, stability
from electra_accel.pretraining.stability import ENOUGH, jumped
from electra_accel.runs import checkpoint, run_folder
from tests.pretraining_runs import metrics, run_short, write_corpus

SHORT = dict(
    train__steps=6, train__batch_tokens=512, optim__warmup_steps=1, eval__every=3, eval__batches=1, checkpoint__every=1,
    checkpoint__keep=2, tracking__log_every=2,
)  # fmt: skip


@pytest.fixture
def train(tmp_path, monkeypatch, capfd):
    """``train("name", poisoned={step, …}, option=…)``: the second micro-batch of these steps, counted from 1, gives NaN."""
    write_corpus(tmp_path / "text.txt", most=300)
    run, real, at = run_short(SHORT, tmp_path, monkeypatch, capfd), loop.micro_steps, [0, 0]

    def micro_steps(engine, seed, step, micro_batches):
        for number, batch in enumerate(real(engine, seed, step, micro_batches)):
            at[:] = step + 1, number
            yield batch

    def begin(name, poisoned=(), **changed):
        class Poisoned(ReplacedTokenDetection):
            def forward(self, batch, replacements=None):
                output = super().forward(batch, replacements)
                wrong = float("nan") if self.training and at[0] in poisoned and at[1] == 1 else 1.0
                return output._replace(
                    generator_loss_sum=output.generator_loss_sum * wrong, counters=output.counters * wrong
                )

        monkeypatch.setattr(loop, "micro_steps", micro_steps)
        monkeypatch.setattr("electra_accel.pretraining.networks.ReplacedTokenDetection", Poisoned)
        return run(name, **changed)

    return begin


def test_a_step_that_is_not_finite_is_skipped_counted_and_its_examples_are_named(train, tmp_path):
    run = tmp_path / "run"
    code, out, err = train("run", {2, 5}, checkpoint__every=2, eval__every=2, checkpoint__keep=9)
    assert code == 0, err
    assert "step 2: the loss or its gradient is not finite; no weight was changed (1 so far" in out + err
    logged = [record for record in metrics(run) if "train/loss" in record]
    assert [(each["step"], each["health/skipped_steps"]) for each in logged] == [(2, 1), (4, 1), (6, 2)]
    assert logged[0]["train/gradient_norm"] is None, "of the last step of the line"
    # The figures of the line are those of its other step.
    assert train("calm", tracking__log_every=1)[0] == 0
    first = next(record for record in metrics(tmp_path / "calm") if "train/loss" in record)
    for name in ("train/loss", "train/auc", "train/generator_accuracy", "train/replaced_fraction"):
        assert logged[0][name] == first[name], name

    records = [json.loads(line) for line in (run / run_folder.SKIPPED).read_text("utf-8").splitlines()]
    assert [record["step"] for record in records] == [2, 5]
    corpus = "".join((tmp_path / "text.txt").read_text("utf-8").lower().split())
    for record in records:
        assert len(record["texts"]) == len(record["examples"]) > 5
        assert "".join(record["texts"][0].lower().split()) in corpus

    # In two parts, one of which ends right after the first skipped step.
    for steps in (2, 6):
        part = dict(checkpoint__every=2, eval__every=2, optim__schedule="constant", train__steps=steps)
        assert train("parts", {2, 5}, **part, tracking__samples="none")[0] == 0
    assert train("whole", {2, 5}, **part)[0] == 0
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    parts, whole = (run_folder.read_jsonl(tmp_path / name / run_folder.SKIPPED) for name in ("parts", "whole"))
    assert [(each["step"], each["examples"]) for each in parts] == [(each["step"], each["examples"]) for each in whole]
    assert not any("texts" in each for each in parts), "tracking.samples none"


def test_too_many_in_a_row_end_the_run_and_the_checkpoint_from_before_stays(train, tmp_path):
    code, out, err = train("run", {3, 4, 5})
    assert code == 2 and "not finite at steps 3 to 5" in err and "--optim.learning_rate" in err
    saved = checkpoint.existing(tmp_path / "run" / run_folder.CHECKPOINTS)
    assert [step for step, _ in saved] == [2, 3, 4], "keep 2, and the last before the first skipped step"
    names = ("model.safetensors", "optimizer.safetensors")
    assert len({tuple((path / name).read_bytes() for name in names) for _, path in saved}) == 1
    assert run_folder.read_status(tmp_path / "run")["state"] == "failed"
    # The cause is gone: it goes on from the newest.
    code, out, err = train("run")
    assert code == 0 and "from step 4" in out, err
    logged = [record for record in metrics(tmp_path / "run") if "train/loss" in record]
    assert [each["step"] for each in logged] == [1, 2, 3, 4, 5, 6]
    assert logged[-1]["health/skipped_steps"] == 2
    code, _, err = train("strict", {3}, train__max_skipped_steps=1)
    assert code == 2 and "not finite at step 3," in err


def test_a_loss_that_jumps_lies_far_above_those_before_it():
    calm = [5 + 0.01 * (-1) ** step for step in range(ENOUGH)]
    assert jumped(5.6, calm)
    assert not jumped(5.4, calm), "less than a tenth"
    assert not jumped(1.0, calm)
    assert not jumped(9.0, calm[1:]), "too few to judge by"
    assert not jumped(5.6, [*calm[::2], *(3 + 0.2 * step for step in range(ENOUGH // 2))]), (
        "they are far apart themselves"
    )


def test_jumps_are_counted_and_told_once_each(train, tmp_path, monkeypatch):
    monkeypatch.setattr(stability, "ENOUGH", 2)
    # The first steps after a jump of the learning rate.
    code, out, err = train("run", train__steps=5, optim__learning_rate=1.0, optim__schedule="constant")
    assert code == 0, err
    last = [record for record in metrics(tmp_path / "run") if "train/loss" in record][-1]
    assert last["health/loss_spikes"] == (out + err).count("the loss jumped to") > 0
