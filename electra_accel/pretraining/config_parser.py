"""Command line and YAML -> Config, and back; see ``options/parser.py``."""

from dataclasses import asdict, dataclass
from pathlib import Path

from electra_accel.options import parser
from electra_accel.pretraining.config import CHOICES, Config, resolve


@dataclass
class Arguments(parser.Arguments):
    """``config`` is not resolved and not checked yet; ``recipe`` names the last ``--config`` file, or is "run"."""

    config: Config
    recipe: str


def parse(argv: list[str], description: str) -> Arguments:
    """See ``parser.parse``."""
    return parser.parse(Config, argv, description, _arguments, lambda asked: dump(resolve(asked.config)))


def _arguments(files: list[parser.Layer], line: parser.Layer) -> Arguments:
    config, given = parser.read(Config, [*files, line], CHOICES), line[0]
    if "train.steps" in given and "optim.warmup_steps" not in given:
        # A recipe's warmup was chosen for its own length: where the command line's is shorter, the default goes with it.
        if config.train.steps and (config.optim.warmup_steps or 0) > config.train.steps:
            config.optim.warmup_steps = None
    return Arguments(config, Path(files[-1][1]).stem if files else "run")


def load(path: Path) -> Config:
    """The configuration in a YAML file, such as config.yaml of a run; errors as in :func:`parse`."""
    return parser.read(Config, [parser.read_layer(Config, path)])


def dump(config: Config) -> str:
    """YAML of every option, in the order of the groups; :func:`load` reads it back."""
    return parser.dump(asdict(config))
