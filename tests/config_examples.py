"""Smallest configurations that pass all checks, for the tests of config*.py."""

import pytest

from electra_accel.config import Config, resolve
from electra_accel.config_checks import check
from electra_accel.config_parser import parse
from electra_accel.errors import UserError

SCRATCH = ["--data.dataset=python_docs", "--tokenizer.train_vocab_size=8000", "--model.size=tiny", "--train.steps=1000"]
PAIR = ["--data.train_files=a.txt", "--model.generator=g", "--model.discriminator=d"]


def config_of(*argv: str) -> Config:
    return parse(list(argv), "").config


def error_of(*argv: str) -> str:
    with pytest.raises(UserError) as caught:
        check(resolve(config_of(*argv)))
    assert "\n" not in str(caught.value)
    return str(caught.value)
