"""A run as it was recorded, read from its folder for a comparison."""

import math
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, get_args, get_type_hints

from electra_accel.errors import UserError
from electra_accel.options.declare import flatten
from electra_accel.options.yaml_file import read_yaml
from electra_accel.pretraining.config import Config, Eval
from electra_accel.runs import run_folder

# As W&B holds them: lists and None are text. A run that did not know eval.metric trained a pair.
DEFAULTS = {
    name: value if isinstance(value, int | float | str) else str(value) for name, value in flatten(Config()).items()
} | {"eval.metric": "discriminator_loss"}
KNOWN_METRICS = get_args(get_args(get_type_hints(Eval)["metric"])[0])  # of "one of these, or None"


@dataclass
class Judgement:
    """Held-out figures, and on what they were taken.

    Attributes:
        step: after which the pair was judged; None where that is not known.
        figures: by name without prefix (``auc``); None where there is no value.
        held_out: identity and counts of the held-out set and its corruption (held_out/held_out.json); {} where unknown.
    """

    step: int | None
    figures: dict[str, float | None]
    held_out: dict[str, Any]


@dataclass
class Experiment:
    """One run.

    Attributes:
        name: short, unique among the runs that are compared.
        source: where it was read: a folder, or ``wandb:entity/project/id``.
        folder: the run folder; None for a run that was read from W&B.
        state: "done", or how it stands: "running at step 40".
        done: it ended as it was meant to.
        options: ``{"group.option": value}`` of the resolved configuration; lists and None as text.
        held_out: as in :class:`Judgement`.
        environment: commit, engine, world_size where they are known.
        training, evaluations: records of metrics.jsonl in order of the steps; what is no finite number is None.
        rescored: what ``scripts/evaluate.py`` says of it on a text and corruption that are the same for all runs.
    """

    name: str
    source: str
    folder: Path | None
    state: str
    done: bool
    options: dict[str, Any]
    held_out: dict[str, Any]
    content: dict[str, str] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    training: list[dict] = field(default_factory=list)
    evaluations: list[dict] = field(default_factory=list)
    rescored: Judgement | None = None

    @property
    def final(self) -> Judgement | None:
        """The figures that the run is judged by: where it was scored again those, else :attr:`trained`; None without any."""
        return self.rescored or self.trained

    @property
    def trained(self) -> Judgement | None:
        """What training said of the exported weights: its last evaluation, or the best one where eval.patience is set."""
        if not self.evaluations:
            return None
        metric = self.options["eval.metric"]
        best = self.best(metric, higher=metric == "auc") if self.options["eval.patience"] else None
        return best or self.judged(self.evaluations[-1])

    @property
    def replaced_share(self) -> float | None:
        """Mean share of replaced tokens that the discriminator was trained on; None where no record says it."""
        known = [share for record in self.training if (share := record.get("train/replaced_fraction")) is not None]
        return sum(known) / len(known) if known else None

    def judged(self, record: dict) -> Judgement:
        """An evaluation record as a judgement."""
        figures = {name.removeprefix("eval/"): value for name, value in record.items() if name.startswith("eval/")}
        return Judgement(record["step"], figures, self.held_out)

    def best(self, metric: str, higher: bool) -> Judgement | None:
        """The evaluation with the best ``metric``, the first of equals."""
        known = [record for record in self.evaluations if record.get(f"eval/{metric}") is not None]
        choose = max if higher else min
        return self.judged(choose(known, key=lambda record: record[f"eval/{metric}"])) if known else None

    def last(self, key: str) -> float | None:
        """The newest known value of ``key`` in any record, such as train/hours."""
        records = sorted([*self.training, *self.evaluations], key=lambda record: record["step"])
        return next((record[key] for record in reversed(records) if record.get(key) is not None), None)


def read_run_folder(folder: Path) -> Experiment:
    """Read config.yaml, status.json, metrics.jsonl, environment.json and held_out.json; only the first must be there.

    Raises:
        UserError: a file is damaged.
    """
    options = _read(folder / run_folder.CONFIG, _options)
    state, step = _read(
        folder / run_folder.STATUS, lambda _: itemgetter("state", "step")(run_folder.read_status(folder))
    )
    training, evaluations = _read(folder / run_folder.METRICS, lambda path: split_records(run_folder.read_jsonl(path)))
    steps = (
        record["step"] for record in [*training, *evaluations]
    )  # a run that goes on has only its start in status.json
    files = (run_folder.ENVIRONMENT, Path(run_folder.HELD_OUT, run_folder.HELD_OUT_IDENTITY), run_folder.CONTENT)
    environment, held_out, content = (_read(folder / name, run_folder.read_json) for name in files)
    return Experiment(
        name=folder.resolve().name,
        source=str(folder),
        folder=folder,
        state="done" if state == "done" else f"{state} at step {max([step, *steps])}",
        done=state == "done",
        options=options,
        held_out=held_out,
        content=content,
        environment=environment,
        training=training,
        evaluations=evaluations,
    )


def _mapping(path: Path) -> dict:
    value = read_yaml(path, typed=True)
    if not isinstance(value, dict):
        raise ValueError(f"it should hold names and values, not {str(value)[:40]}")
    return value


def _options(path: Path) -> dict[str, Any]:
    options = plain_options(_mapping(path))
    if options["eval.metric"] not in KNOWN_METRICS:
        raise ValueError(f"eval.metric is one of {', '.join(KNOWN_METRICS)}, not {str(options['eval.metric'])[:40]}")
    return options


def plain_options(config: dict) -> dict[str, Any]:
    """Nested or dotted options as ``{"group.option": value}``; one that an older run did not know has today's default.

    What stands beside the options, such as ``held_out.corruption`` in W&B's configuration, is left out.
    """
    groups = {name.partition(".")[0] for name in DEFAULTS}
    return DEFAULTS | {
        name: value if isinstance(value, int | float | str) else str(value)
        for name, value in flat(config).items()
        if name.partition(".")[0] in groups
    }


def flat(nested: dict, prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``."""
    found = {}
    for name, value in nested.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def split_records(records: list[dict]) -> tuple[list[dict], list[dict]]:
    """Training records and evaluation records, each step once (the later record), in order of the steps."""
    training, evaluations = {}, {}
    for record in records:
        kind = evaluations if "eval/generator_loss" in record else training if "train/loss" in record else None
        if kind is not None:
            kind[record["step"]] = {key: _finite(value) for key, value in record.items()}
    return tuple([kind[step] for step in sorted(kind)] for kind in (training, evaluations))


def _finite(value: Any) -> Any:
    """NaN and infinity, also as W&B writes them ("NaN"), become None; lists stay."""
    if isinstance(value, list):
        return value
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _read(path: Path, read) -> Any:
    try:
        return read(path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # a list where names belong too
        raise UserError(
            f"{path} is damaged ({' '.join(str(error).split())}); restore it or leave this run out"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
