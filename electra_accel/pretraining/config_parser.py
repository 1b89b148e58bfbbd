"""Command line and YAML -> Config, and back; see ``options/parser.py``."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from electra_accel.options import parser
from electra_accel.pretraining.config import CHOICES, Config, resolve


@dataclass
class Arguments:
    """What was asked for: ``config`` is not resolved and not checked yet; ``recipe`` names the last ``--config`` file, or is
    "run"."""

    config: Config
    recipe: str
    dry_run: bool
    cpu: bool


def parse(argv: list[str], description: str) -> Arguments:
    """Read a command line, without the program's name. ``--help`` and ``--print_config`` print and exit with 0.

    Raises:
        UserError: unknown option, wrong type, missing or broken file; names the file and the key.
    """
    layers, flags = parser.layers(Config, argv, description)
    config = parser.read(Config, layers, CHOICES)
    if "train.steps" in layers[-1][0] and "optim.warmup_steps" not in layers[-1][0]:
        # A recipe's warmup was chosen for its own length: where the command line's is shorter, the default goes with it.
        if config.train.steps and (config.optim.warmup_steps or 0) > config.train.steps:
            config.optim.warmup_steps = None
    if "--print_config" in flags:
        print(dump(resolve(config)), end="")
        sys.exit(0)
    recipe = Path(layers[-2][1]).stem if len(layers) > 1 else "run"
    return Arguments(config, recipe, "--dry_run" in flags, "--cpu" in flags)


def load(path: Path) -> Config:
    """The configuration in a YAML file, such as config.yaml of a run; errors as in :func:`parse`."""
    return parser.read(Config, [parser.read_layer(Config, path)])


def dump(config: Config) -> str:
    """YAML of every option, in the order of the groups; :func:`load` reads it back."""
    return parser.dump(asdict(config))
