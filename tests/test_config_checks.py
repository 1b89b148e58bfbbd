"""Impossible settings, all at once; and which changes make another run."""

from pathlib import Path

import pytest

from electra_accel.errors import UserError
from electra_accel.options.declare import flatten
from electra_accel.pretraining.config import Config, resolve
from electra_accel.pretraining.config_checks import check, check_warmup, difference, identity
from electra_accel.pretraining.config_parser import load, parse
from tests.config_examples import PAIR, SCRATCH, config_of, error_of
from tests.helpers import ROOT


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--objective.mask_prob=1.5"], "objective.mask_prob must lie in (0, 1], not 1.5"),
        (["--objective.mask_prob=0"], "objective.mask_prob must lie in (0, 1], not 0.0"),
        (["--objective.random_token_prob=.2"], "is more than 1"),
        (["--data.eval_fraction=1"], "data.eval_fraction must lie in [0, 1), not 1.0"),
        (["--data.eval_fraction=0"], "no held-out text"),
        (["--optim.betas", ".9", "1"], "optim.betas must lie in [0, 1)"),
        (["--optim.betas", ".9"], "optim.betas must be two numbers"),
        (["--optim.learning_rate=inf"], "optim.learning_rate must lie in (0, inf)"),
        (
            ["--train.cuda_graphs=auto", "--model.gradient_checkpointing"],
            "cuda_graphs auto cannot record model.gradient_ch",
        ),
        (["--data.max_length=7"], "data.max_length must lie in [8, 4096], not 7"),
        (["--data.max_length=4097"], "data.max_length must lie in [8, 4096], not 4097"),
        (["--train.steps=0"], "train.steps must lie in [1, inf), not 0"),
        (["--train.epochs=2"], "train.steps and train.epochs exclude each other"),
        (["--train.steps=null"], "give one of train.steps, train.epochs and train.flops"),
        (["--train.batch_tokens=300"], "train.batch_tokens 300 is not a multiple of train.bin_tokens 128: 256 or 384"),
        (["--train.batch_tokens=100"], "train.batch_tokens 100 is not a multiple of train.bin_tokens 128: 128"),
        (["--train.bin_tokens=64"], "train.bin_tokens 64 is less than data.max_length 128"),
        (["--train.bin_tokens=0"], "train.bin_tokens must lie in [1, inf)"),
        (["--train.micro_batch_tokens=64"], "train.micro_batch_tokens 64 does not hold a bin of 128"),
        (["--optim.warmup_steps=1001"], "optim.warmup_steps 1001 is more than the 1000 steps"),
        (["--model.size=null"], "no model: give model.size"),
        (["--model.size=null", "--model.generator=g"], "without the other network"),
        (["--model.generator=g", "--model.discriminator=d"], "model.size and model.generator exclude each other"),
        (["--model.revision=main"], "model.revision is for networks from the hub"),
        (["--data.train_files=a.txt"], "data.train_files and data.dataset exclude each other"),
        (["--data.dataset=null"], "no text: give one of"),
        (["--tokenizer.path=t"], "tokenizer.path and tokenizer.train_vocab_size exclude each other"),
        (["--tokenizer.train_vocab_size=null"], "give one of tokenizer.path and tokenizer.train_vocab_size"),
        (["--data.dataset=null", "--data.prepared=p"], "tokenizer.train_vocab_size is settled by data.prepared"),
        (["--checkpoint.keep=0"], "checkpoint.keep must lie in [1, inf), not 0"),
        (["--run.deadline=2020-01-01T00:00"], "run.deadline 2020-01-01T00:00 is past"),
        (["--run.deadline=tomorrow"], "run.deadline tomorrow is neither"),
        (["--run.deadline=99999999999:00"], "run.deadline 99999999999:00 is neither"),
        ([f"--objective.{name}_weight=0" for name in ("generator", "discriminator", "corrective")], "are all 0"),
        (["--tokenizer.add_tokens=f"], "tokenizer.add_tokens is for the vocabulary of given networks"),
        (["--data.dataset=null", "--data.prepared=p", "--data.replay_files=r"], "data.replay_files is settled by"),
        (["--data.replay_fraction=1"], "data.replay_fraction must lie in (0, 1), not 1.0"),
        (["--data.replay_fraction=.2"], "data.replay_fraction 0.2 needs data.replay_files"),
        (["--model.warm_start_steps=9"], "model.warm_start_steps 9 needs model.generator warm-start"),
        (
            ["--objective.kind=mlm", "--model.size=null", "--model.generator=g"],
            "trains one network: leave model.generator out",
        ),
        (["--objective.kind=mlm", "--model.generator_width=.5"], "there is none here; leave it out, or set it to null"),
        (["--objective.kind=mlm", "--model.sharing=gdes"], "or set it to tied"),
        (["--objective.kind=mlm", "--optim.generator_factor=2"], "leave it out, or set it to 1"),
        (
            ["--objective.kind=mlm", "--objective.corrective_weight=2"],
            "trains one; leave it out, or set it to 0",
        ),
        (
            ["--eval.metric=corrective_loss", "--objective.corrective_weight=0"],
            "eval.metric corrective_loss needs objective.corrective_weight above 0",
        ),
        (["--objective.corrective_weight=-1"], "objective.corrective_weight must lie in [0, inf), not -1.0"),
        (["--objective.kind=mlm", "--eval.metric=auc"], "eval.metric auc needs a discriminator"),
        (["--objective.kind=mlm", "--objective.generator_weight=0"], "nothing would be learnt"),
    ],
)
def test_impossible_settings(argv: list[str], part: str):
    assert part in error_of(*SCRATCH, *argv)


def test_the_corrective_loss_is_enough_to_learn_and_may_choose_the_best_step():
    weights = [f"--objective.{name}_weight={value}" for name, value in (("generator", 0), ("discriminator", 0))]
    config = resolve(config_of(*SCRATCH, *weights, "--objective.corrective_weight=2", "--eval.metric=corrective_loss"))
    assert check(config) == [] and config.is_corrective


def test_a_vocabulary_cannot_be_trained_for_a_pair():
    assert "tokenizer.train_vocab_size" in error_of(*PAIR, "--tokenizer.train_vocab_size=8000")


@pytest.mark.parametrize("spelling", ["warm_start", "warmstart"])
def test_a_warm_start_by_another_spelling(spelling: str):
    assert error_of(*PAIR, f"--model.generator={spelling}").startswith(f"model.generator {spelling}: ")


@pytest.mark.parametrize("generator", ["g", "warm-start"])
def test_a_discriminator_is_not_warm_started(generator: str):
    message = error_of(*PAIR, f"--model.generator={generator}", "--model.discriminator=warm-start")
    assert message.startswith("warm-start is for model.generator; ")


@pytest.mark.parametrize("option", ["data.eval_files", "data.eval_general_files", "data.replay_files"])
def test_a_file_given_twice(option: str):
    message = error_of(*PAIR, "--data.train_files", "a.txt", "b.txt", f"--{option}", "c.txt", "./b.txt")
    assert message.startswith("./b.txt ") and f"data.train_files and {option}" in message


@pytest.mark.parametrize("missing", ["generator", "discriminator"])
def test_a_forgotten_network_is_the_only_problem(missing: str):
    message = error_of(*PAIR, f"--model.{missing}=null", "--tokenizer.learn_tokens=9", "--train.steps=5")
    assert "is given without the other network" in message and ";" not in message


def test_no_model_is_told_first():
    assert error_of("--optim.eps=0").startswith("no model: ")


def test_a_later_start_keeps_the_method_that_was_chosen():
    """Numbers that were chosen for another start go, the optimizer and the objective stay."""
    argv = ["--config", "koelectra-base-domain", "--config", "published", *SCRATCH]
    config = resolve(parse(argv, "").config)
    assert config.model.size == "tiny" and not config.from_pair
    assert (config.optim.kind, config.objective.corrective_weight) == ("adamw", 0)


def test_a_user_cannot_ask_for_the_run_that_a_warm_start_is():
    message = error_of(*PAIR, "--model.generator=warm-start", "--objective.kind=mlm")
    assert "trains one network: leave model.generator out" in message
    assert check(resolve(config_of(*PAIR, "--model.generator=warm-start"))) == []


@pytest.mark.parametrize(
    "argv",
    [
        ["--objective.kind=mlm", "--model.generator=null"],
        ["--model.generator=warm-start", "--model.generator_width=.5", "--model.sharing=gdes"],
    ],
    ids=" ".join,
)
def test_one_network_can_be_enough(argv: list[str]):
    config = resolve(config_of(*PAIR, *argv))
    assert check(config) == []
    assert config.from_pair and config.optim.learning_rate == 5e-5
    assert config.eval.metric == ("generator_loss" if config.is_mlm else "discriminator_loss")


def test_all_problems_are_reported_at_once():
    message = error_of(
        *"--train.batch_tokens=300 --objective.mask_prob=2 --model.dropout=-1 --checkpoint.keep=0 --eval.seed=2".split()
    )
    for part in (
        "batch_tokens",
        "mask_prob",
        "dropout",
        "keep",
        "no text",
        "no model",
        "train.steps",
        "tokenizer.path",
    ):
        assert part in message
    assert "eval.seed" not in message


def test_a_long_warmup_is_a_warning():
    assert check(resolve(config_of(*SCRATCH))) == []
    (warning,) = check(resolve(config_of(*SCRATCH, "--optim.warmup_steps=501")))
    assert "more than half" in warning
    epochs = resolve(config_of(*SCRATCH, "--train.steps=null", "--train.epochs=1", "--optim.warmup_steps=100"))
    assert check(epochs) == []
    with pytest.raises(UserError, match="more than the 50 steps"):
        check_warmup(epochs, 50)


def test_difference_names_old_and_new():
    old = resolve(config_of(*SCRATCH))
    free = "--train.steps=2000 --run.dir=x --train.precision=bf16 --train.micro_batch_tokens=256 --eval.every=9".split()
    free += "--tracking.mode=offline --checkpoint.keep=9 --data.num_workers=3 --run.resume=never".split()
    assert difference(old, resolve(config_of(*SCRATCH, *free))) == []
    new = resolve(config_of(*SCRATCH, "--run.seed=2", "--optim.betas", ".9", ".98", "--data.text_column=sen"))
    assert difference(old, new) == [
        "run.seed: 1 -> 2",
        "data.text_column: text -> sen",
        "optim.betas: [0.9, 0.999] -> [0.9, 0.98]",
    ]


def test_more_steps_of_a_pair_are_the_same_run():
    old = resolve(config_of(*PAIR), steps=1000)
    assert difference(old, resolve(config_of(*PAIR, "--train.epochs=6"))) == []
    assert difference(old, resolve(config_of(*PAIR, "--optim.warmup_steps=7"))) == ["optim.warmup_steps: 60 -> 7"]


def test_identity_leaves_nothing_out_by_accident():
    """A new option is part of the identity unless someone says otherwise."""
    free = flatten(Config()).keys() - identity(Config()).keys()
    assert {name for name in free if name.split(".")[0] not in ("checkpoint", "tracking")} == {
        "run.dir", "run.resume", "run.deadline", "data.num_workers", "model.gradient_checkpointing", "train.steps",
        "train.epochs", "train.flops", "train.micro_batch_tokens", "train.precision", "train.compile", "train.cuda_graphs",
        "train.max_skipped_steps", "eval.every",
    }  # fmt: skip


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_possible(recipe: Path):
    config = load(recipe)
    if recipe.stem == "published":  # for another recipe
        config = parse(["--config", "tiny-own-text", "--config", "published"], "").config
    if not (config.data.dataset or config.data.train_files):
        config.data.train_files = ["text.txt"]  # for the user to give
    assert check(resolve(config)) == []
