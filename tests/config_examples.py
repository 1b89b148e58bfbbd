"""Smallest configurations that pass all checks, for the tests of config*.py."""

import pytest

from electra_accel.errors import UserError
from electra_accel.pretraining.config import Config, resolve
from electra_accel.pretraining.config_checks import check
from electra_accel.pretraining.config_parser import parse

SCRATCH = ["--data.dataset=python_docs", "--tokenizer.train_vocab_size=8000", "--model.size=tiny", "--train.steps=1000"]
PAIR = ["--data.train_files=a.txt", "--model.generator=g", "--model.discriminator=d"]


def config_of(*argv: str) -> Config:
    return parse(list(argv), "").config


def error_of(*argv: str) -> str:
    with pytest.raises(UserError) as caught:
        check(resolve(config_of(*argv)))
    assert "\n" not in str(caught.value)
    return str(caught.value)
