"""Command line and YAML -> Config, and back; see ``options/parser.py``."""

import datetime
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from electra_accel.errors import UserError
from electra_accel.model.sizes import SIZES
from electra_accel.names import short_name
from electra_accel.options import parser
from electra_accel.options.declare import value_of
from electra_accel.pretraining.config import CHOICES, Config, resolve
from electra_accel.runs.run_folder import CONFIG

_LENGTHS = ("train.steps", "optim.warmup_steps")
# What earlier versions did, where a configuration does not say.
UNRECORDED = {
    "model.sharing": "tied",
    "objective.discriminator_weight": 50.0,
    "objective.corrective_weight": 0.0,
    "optim.kind": "adamw",
}
# Values that earlier versions recorded, and what they are called now.
_RENAMED = {"train.compile": {"false": "off", "true": "model"}}
_UNRECORDED_WIDTH = {"tiny": 1 / 2}  # of the generator, by size; the other sizes have the width that they had
# Defaults that a run keeps when it goes on.
_KEPT = (
    *UNRECORDED, "model.generator_width", "objective.mask_prob", "optim.learning_rate", "optim.matrix_learning_rate",
    "optim.warmup_steps", "train.batch_tokens",
)  # fmt: skip


@dataclass
class Arguments(parser.Arguments):
    """``config`` is not resolved and not checked yet; ``recipe`` names the last ``--config`` file, or is "run"."""

    config: Config
    recipe: str


def parse(argv: list[str], description: str) -> Arguments:
    """See ``parser.parse``."""
    return parser.parse(Config, argv, description, _arguments, lambda asked: dump(resolve(asked.config)))


def _arguments(files: list[parser.Layer], line: parser.Layer) -> Arguments:
    layers = [*map(_renamed, files), line]
    config = parser.read(Config, layers, CHOICES)
    last = {name: max((n for n, (given, _) in enumerate(layers) if name in given), default=-1) for name in _LENGTHS}
    if last["train.steps"] > last["optim.warmup_steps"]:
        # A recipe's warmup was chosen for its own length: where a later layer's is shorter, the default takes its place.
        if config.train.steps and (config.optim.warmup_steps or 0) > config.train.steps:
            config.optim.warmup_steps = None
    return Arguments(config, Path(files[-1][1]).stem if files else "run")


def default_folder(recipe: str) -> str:
    """runs/<recipe>-<UTC time>; -<job id> under Slurm, which keeps its name when the job is requeued; in a W&B sweep, whose
    trials may start in the same second, runs/sweep-<run id>."""
    if os.environ.get("WANDB_SWEEP_ID") and (trial := os.environ.get("WANDB_RUN_ID")):
        return f"runs/sweep-{trial}"
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    return f"runs/{short_name(recipe)}-{os.environ.get('SLURM_JOB_ID', now)}"


def keep_recorded(config: Config, folder: Path) -> None:
    """Give ``config`` what the run in ``folder``, which it goes on with, recorded of ``_KEPT``, unless it has its own.

    A default warmup would follow more steps; other defaults may have been others in an earlier version.
    """
    folders = [folder]
    if config.run.resume not in ("auto", "never"):
        folders.append(Path(config.run.resume).resolve().parent.parent)  # the run of a checkpoint
    for folder in (folder for folder in folders if (folder / CONFIG).is_file()):
        with suppress(UserError):  # what is no pre-training run, or is damaged, is refused when it is opened
            before = recorded(folder)
            for name in _KEPT:
                group, _, option = name.partition(".")
                # Where another optimizer or objective was asked for, that is the mistake to name.
                other = option == "matrix_learning_rate" and config.optim.kind != "muon"
                other |= option in ("corrective_weight", "sharing", "generator_width") and config.is_mlm
                other |= option == "generator_width" and config.from_pair
                if getattr(getattr(config, group), option) is None and not other:
                    setattr(getattr(config, group), option, value_of(before, name))


def load(path: Path) -> Config:
    """The configuration in a YAML file; errors as in :func:`parse`."""
    return parser.read(Config, [_renamed(parser.read_layer(Config, path))])


def _renamed(layer: parser.Layer) -> parser.Layer:
    """The options of a file that an earlier version may have written."""
    given, source = layer
    for name in _RENAMED.keys() & given.keys():
        given[name] = [_RENAMED[name].get(value, value) for value in given[name]]
    return given, source


def recorded(folder: Path) -> Config:
    """The configuration of the run in ``folder``, what an earlier version did not record filled in."""
    config = load(folder / CONFIG)
    for name, earlier in UNRECORDED.items():
        group, _, option = name.partition(".")
        if getattr(getattr(config, group), option) is None:
            setattr(getattr(config, group), option, earlier)
    model = config.model
    if model.size and model.generator_width is None and not config.is_mlm:
        model.generator_width = _UNRECORDED_WIDTH.get(model.size, SIZES[model.size].generator_width)
    return config


def dump(config: Config) -> str:
    """YAML of every option, in the order of the groups; :func:`load` reads it back."""
    return parser.dump(asdict(config))
