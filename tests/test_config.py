"""Defaults that depend on the size, the pair or other options."""

import pytest

from electra_accel.pretraining.config import resolve
from electra_accel.pretraining.config_checks import check
from electra_accel.pretraining.config_parser import dump, parse
from tests.config_examples import PAIR, SCRATCH, config_of


@pytest.mark.parametrize(
    ("size", "learning_rate", "mask_prob", "batch_tokens", "warmup"),
    [
        ("tiny", 1e-3, 0.15, 8192, 100),
        ("small", 5e-4, 0.15, 16384, 10_000),
        ("base", 2e-4, 0.15, 131_072, 10_000),
        ("large", 2e-4, 0.25, 1_048_576, 10_000),
    ],
)
def test_published_settings_by_size(size: str, learning_rate: float, mask_prob: float, batch_tokens: int, warmup: int):
    """Which ``--config published`` gives, whatever the defaults of the size are."""
    start = f"--model.size={size}", "--train.steps=1000000"
    config = resolve(parse([*SCRATCH, *start, "--config", "published"], "").config)
    assert (config.optim.learning_rate, config.objective.mask_prob) == (learning_rate, mask_prob)
    assert (config.optim.kind, config.optim.matrix_learning_rate) == ("adamw", None)
    assert (config.objective.discriminator_weight, config.objective.corrective_weight) == (50, 0)
    assert (config.train.batch_tokens, config.optim.warmup_steps) == (batch_tokens, warmup)
    assert check(config) == []
    default = resolve(config_of(*SCRATCH[:2], *start))
    if size != "tiny":
        assert dump(default) == dump(resolve(parse([*SCRATCH[:2], *start, "--config", "published"], "").config))


def test_muon_and_the_corrective_loss_with_networks_apart_are_the_defaults_of_tiny():
    """With one network there is nothing to correct or to share. A pair that is given keeps AdamW and its shared tables."""
    tiny = resolve(config_of(*SCRATCH))
    assert (tiny.optim.kind, tiny.optim.learning_rate, tiny.optim.matrix_learning_rate) == ("muon", 2e-3, 4e-3)
    assert (tiny.objective.discriminator_weight, tiny.objective.corrective_weight) == (10, 10)
    assert (tiny.model.sharing, tiny.model.generator_width) == ("none", 0.25) and check(tiny) == []
    alone = resolve(config_of(*SCRATCH, "--objective.kind=mlm"))
    assert (alone.optim.kind, alone.objective.corrective_weight) == ("muon", 0)
    assert (alone.model.sharing, alone.model.generator_width) == ("tied", None) and check(alone) == []
    given = resolve(config_of(*PAIR))
    assert (given.optim.kind, given.objective.corrective_weight) == ("adamw", 0)
    assert (given.model.sharing, given.model.generator_width, given.objective.discriminator_weight) == (
        "tied",
        None,
        50,
    )
    rate = resolve(config_of(*SCRATCH, "--optim.learning_rate=5e-4"))
    assert (rate.optim.learning_rate, rate.optim.matrix_learning_rate) == (5e-4, 1e-3)


def test_the_default_warmup_fits_a_short_run():
    assert resolve(config_of(*SCRATCH[:2], "--model.size=base", "--train.steps=700")).optim.warmup_steps == 70
    epochs = resolve(config_of(*SCRATCH[:2], "--model.size=tiny", "--train.epochs=2"))
    assert epochs.optim.warmup_steps is None and resolve(epochs, steps=52).optim.warmup_steps == 5


def test_defaults_of_a_pair():
    config = resolve(config_of(*PAIR))
    assert (config.train.epochs, config.train.steps, config.optim.learning_rate) == (3, None, 5e-5)
    assert config.optim.warmup_steps is None  # a share of steps that are not known yet
    assert check(config) == []
    assert resolve(config, steps=5000).optim.warmup_steps == 300
    assert resolve(config_of(*PAIR, "--train.steps=200")).optim.warmup_steps == 12
    assert resolve(config_of(*PAIR, "--train.steps=200")).train.epochs is None


def test_resolve_keeps_what_was_asked_and_is_idempotent():
    asked = config_of(*SCRATCH, "--optim.learning_rate=3e-4", "--objective.mask_prob=.2", "--data.max_length=100",
                      "--optim.warmup_steps=0")  # fmt: skip
    before = dump(asked)
    config = resolve(asked)
    assert (config.optim.learning_rate, config.objective.mask_prob, config.optim.warmup_steps) == (3e-4, 0.2, 0)
    assert config.train.bin_tokens == 100
    assert config.train.batch_tokens == 8100  # the published batch, cut to whole bins
    assert dump(asked) == before
    assert resolve(config) == config
