"""Command line and YAML -> Config, and back: defaults < ``--config`` files < command line, wherever ``--config`` is.

A YAML file is read as if its keys were written on the command line: ``train: {steps: 100}`` is ``--train.steps=100``. So
both accept the same values (``1e-3`` is a number, ``no`` is a word, ``null`` the default) and give the same errors. Only a
file can hold the text "null", in quotes.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from electra_accel.errors import UserError
from electra_accel.options import parser
from electra_accel.pretraining.config import Config, resolve

FLAGS = {
    "--config": "YAML file of options; may be repeated, later files win",
    "--print_config": "print the whole configuration as YAML and stop",
    "--dry_run": "check everything, prepare the data, print the plan and stop",
    "--cpu": "use the CPU although there is a GPU",
    "--help": "this page",
}


@dataclass
class Arguments:
    """What was asked for.

    Attributes:
        config: not resolved and not checked yet.
        recipe: name of the last ``--config`` file without its suffix, or "run".
    """

    config: Config
    recipe: str
    dry_run: bool
    cpu: bool


def parse(argv: list[str], description: str) -> Arguments:
    """Read a command line, without the program's name. ``--help`` and ``--print_config`` print and exit with 0.

    Args:
        description: opens the help page; printed as it is.

    Raises:
        UserError: unknown option, wrong type, missing or broken file; names the file and the key.
    """
    files, given, flags = parser.split(argv, FLAGS)
    if "--help" in flags:
        print(help_page(description))
        sys.exit(0)
    config = parser.read(Config, [*((_options_of(file), file) for file in files), (given, "command line")])
    if "--print_config" in flags:
        print(dump(resolve(config)), end="")
        sys.exit(0)
    return Arguments(config, Path(files[-1]).stem if files else "run", "--dry_run" in flags, "--cpu" in flags)


def load(path: Path) -> Config:
    """The configuration in a YAML file, such as config.yaml of a run; errors as in :func:`parse`."""
    return parser.read(Config, [(_options_of(str(path)), str(path))])


def dump(config: Config) -> str:
    """YAML of every option, in the order of the groups; :func:`load` reads it back."""
    return yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)


def _options_of(path: str) -> parser.Given:
    """The options in a YAML file."""
    groups = {
        group: _mapping(values, f"{path}: {group}")
        for group, values in _mapping(parser.read_yaml(path, "--config"), path).items()
    }
    return [
        parser.values_of(f"{group}.{name}", value, path)
        for group, values in groups.items()
        for name, value in values.items()
    ]


def _mapping(content: Any, where: str) -> dict:
    if not isinstance(content or {}, dict):
        raise UserError(f"{where}: must hold 'name: value' lines, not {str(content)[:40]!r}")
    return content or {}


def help_page(description: str) -> str:
    """Every option by group, with its default in brackets."""
    return parser.help_page(Config, FLAGS, description)
