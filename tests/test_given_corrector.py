"""``model.corrector``: a run goes on with the corrective head that an earlier run exported."""

import shutil

import pytest
import safetensors.torch
import torch

from electra_accel.engines.state import MODEL_FILE
from electra_accel.runs import run_folder
from tests.helpers import run_in_process
from tests.pretraining_runs import options, run_short, write_corpus

SHORT = {"train.steps": 6, "eval.every": 3, "checkpoint.every": 3, "tracking.log_every": 3, "eval.batches": 1}
PAIR = {"tokenizer.train_vocab_size": None, "model.size": None, "model.generator_width": None}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A text, and the run ``scratch`` with a corrective head."""
    folder = tmp_path_factory.mktemp("corrector")
    write_corpus(folder / "text.txt", most=600)
    arguments = options(
        "text.txt", "scratch", **SHORT | {"train.steps": 3, "optim.warmup_steps": 1, "tracking.samples": "none"}
    )
    done = run_in_process("pretrain.py", *arguments, cwd=folder, WANDB_MODE="disabled")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def run(place, monkeypatch, capfd):
    """``run("name", option=…)``: goes on from ``scratch``."""
    return run_short(SHORT | PAIR, place, monkeypatch, capfd)


@pytest.mark.slow
def test_a_corrective_head_goes_on_from_the_corrector_that_was_exported_with_the_discriminator(run, place):
    """Also with another sharing, and with tokens added to the vocabulary."""
    given = {
        "model.generator": "scratch/generator",
        "model.discriminator": "scratch/discriminator",
        "model.corrector": "scratch/corrector",
        "objective.corrective_weight": 10,
        "eval.patience": 5,  # writes a checkpoint of the start
        "checkpoint.keep": 9,
    }
    code, out, err = run("headed", **given, model__sharing="gdes", tokenizer__learn_tokens=20)
    assert code == 0 and "corrector scratch/corrector: its head was taken" in out, out + err
    head = safetensors.torch.load_file(place / "scratch" / "corrector" / "model.safetensors")
    begun = safetensors.torch.load_file(place / "headed" / "checkpoints" / "step-00000000" / MODEL_FILE)
    for name in ("dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias"):
        assert torch.equal(begun[f"corrector.transform.{name}"], head[f"generator_predictions.{name}"])
    bias, before = begun["corrector.lm_head.bias"], head["generator_lm_head.bias"]
    assert len(bias) == len(before) + 20 and torch.equal(bias[: len(before)], before)

    shutil.copytree(place / "scratch", place / "moved", ignore=shutil.ignore_patterns("checkpoints"))
    run_folder.write_status(place / "headed", "running", 6)
    again = given | {"model.corrector": "moved/corrector", "model.sharing": "gdes", "tokenizer.learn_tokens": 20}
    code, out, err = run("headed", **again, train__steps=7)
    assert code == 0 and "model.corrector: scratch/corrector -> moved/corrector: the same content" in out, out + err
    changed = place / "moved" / "corrector" / "model.safetensors"
    head["generator_lm_head.bias"] += 1
    safetensors.torch.save_file(head, changed, metadata={"format": "pt"})
    run_folder.write_status(place / "headed", "running", 7)
    code, _, err = run("headed", **again, train__steps=8)
    assert code == 2 and "the given corrector has other content" in err and err.count("\n") == 1

    for options_, why in (
        ({"model.corrector": "headed/corrector"}, "model.corrector: headed/corrector has another encoder than"),
        (
            {"model.corrector": "scratch/discriminator"},
            "model.corrector: scratch/discriminator is no ElectraForMaskedLM",
        ),
        ({"model.corrector": "missing"}, "model.corrector"),
        ({"objective.corrective_weight": 0}, "model.corrector needs a given discriminator and objective.corrective"),
    ):
        code, _, err = run("refused", **given | options_)
        assert code == 2 and why in err and err.count("\n") == 1, err
        assert not (place / "refused").exists()
