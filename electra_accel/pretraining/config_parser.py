"""Command line and YAML -> Config, and back; see ``options/parser.py``."""

from dataclasses import asdict, dataclass
from pathlib import Path

from electra_accel.options import parser
from electra_accel.options.yaml_file import read_yaml
from electra_accel.pretraining.config import CHOICES, Config, resolve
from electra_accel.runs.run_folder import CONFIG

_LENGTHS = ("train.steps", "optim.warmup_steps")
# What a run that goes on keeps, with the value that it had where earlier versions did not record it.
_KEPT = {
    "objective.mask_prob": None,
    "objective.corrective_weight": 0.0,
    "optim.kind": "adamw",
    "optim.learning_rate": None,
    "optim.matrix_learning_rate": None,
    "optim.warmup_steps": None,
    "train.batch_tokens": None,
}


@dataclass
class Arguments(parser.Arguments):
    """``config`` is not resolved and not checked yet; ``recipe`` names the last ``--config`` file, or is "run"."""

    config: Config
    recipe: str


def parse(argv: list[str], description: str) -> Arguments:
    """See ``parser.parse``."""
    return parser.parse(Config, argv, description, _arguments, lambda asked: dump(resolve(asked.config)))


def _arguments(files: list[parser.Layer], line: parser.Layer) -> Arguments:
    config, layers = parser.read(Config, [*files, line], CHOICES), [*files, line]
    last = {name: max((n for n, (given, _) in enumerate(layers) if name in given), default=-1) for name in _LENGTHS}
    if last["train.steps"] > last["optim.warmup_steps"]:
        # A recipe's warmup was chosen for its own length: where a later layer's is shorter, the default takes its place.
        if config.train.steps and (config.optim.warmup_steps or 0) > config.train.steps:
            config.optim.warmup_steps = None
    return Arguments(config, Path(files[-1][1]).stem if files else "run")


def keep_recorded(config: Config) -> None:
    """Give ``config`` what the run that it goes on with recorded of ``_KEPT``, unless it has its own.

    A default warmup would follow more steps; other defaults may have been others in an earlier version. A folder that is no
    pre-training run is left for ``opening`` to refuse.
    """
    folders = [Path(config.run.dir)] if config.run.dir else []
    if config.run.resume not in ("auto", "never"):
        folders.append(Path(config.run.resume).resolve().parent.parent)  # the run of a checkpoint
    for folder in folders:
        recorded = read_yaml(folder / CONFIG, typed=True) if (folder / CONFIG).is_file() else None
        for name, earlier in _KEPT.items() if isinstance(recorded, dict) else ():
            group, _, option = name.partition(".")
            if option == "matrix_learning_rate" and config.optim.kind != "muon":
                continue  # it was asked for another kind, which is the mistake to name
            if getattr(getattr(config, group), option) is None:
                known = recorded.get(group)
                value = known.get(option, earlier) if isinstance(known, dict) else None
                setattr(getattr(config, group), option, value if isinstance(value, int | float | str) else None)


def load(path: Path) -> Config:
    """The configuration in a YAML file; errors as in :func:`parse`."""
    return parser.read(Config, [parser.read_layer(Config, path)])


def recorded(folder: Path) -> Config:
    """The configuration of the run in ``folder``, what an earlier version did not record filled in."""
    config = load(folder / CONFIG)
    for name, earlier in _KEPT.items():
        group, _, option = name.partition(".")
        if getattr(getattr(config, group), option) is None:
            setattr(getattr(config, group), option, earlier)
    return config


def dump(config: Config) -> str:
    """YAML of every option, in the order of the groups; :func:`load` reads it back."""
    return parser.dump(asdict(config))
