"""A run as it was recorded, read from its folder for a comparison."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from electra_accel.errors import UserError
from electra_accel.model.figures import METRICS, Figure
from electra_accel.options.declare import flatten, plain
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.config_parser import UNRECORDED
from electra_accel.reports import settings
from electra_accel.reports.judgements import Judgement, best, exported, finite
from electra_accel.runs import run_folder

# Of what a run did not record: eval.metric, because one that did not know of it trained a pair.
DEFAULTS = plain(flatten(Config()) | UNRECORDED) | {"eval.metric": "discriminator_loss"}
GROUPS = {name.partition(".")[0] for name in DEFAULTS}


@dataclass
class Experiment:
    """One run. What is no finite number in its records of metrics.jsonl, which are in order of the steps, is None."""

    name: str  # unique among the runs that are compared
    source: str  # where it was read: a folder, or wandb:entity/project/id
    folder: Path | None  # None for a run read from W&B
    state: str  # "done", or where it stands: "running at step 40"
    options: dict[str, Any]  # {"group.option": value} of the resolved configuration; lists and None as text
    held_out: dict[str, Any]  # as in Judgement
    content: dict[str, str] = field(default_factory=dict)  # fingerprints of what options name, see READ_BY_CONTENT
    environment: dict[str, Any] = field(default_factory=dict)  # commit, engine, world_size where they are known
    training: list[dict] = field(default_factory=list)
    evaluations: list[dict] = field(default_factory=list)
    rescored: Judgement | None = None  # judged again on a text and corruption that are the same for all runs

    @property
    def done(self) -> bool:
        """Whether it ended as it was meant to."""
        return self.state == "done"

    @property
    def seed(self) -> str:
        return str(self.options["run.seed"])

    @property
    def is_mlm(self) -> bool:
        """Whether one network was trained, not a pair."""
        return self.options["objective.kind"] == "mlm"

    @property
    def final(self) -> Judgement | None:
        """The figures that the run is judged by: where it was scored again those, else :attr:`trained`; None without any."""
        return self.rescored or self.trained

    @property
    def trained(self) -> Judgement | None:
        """What training said of the exported weights: its last evaluation, or the best one where eval.patience is set."""
        return self._judged(exported(self.evaluations, self.options) if self.evaluations else None)

    @property
    def replaced_share(self) -> float | None:
        """Mean share of replaced tokens that the discriminator was trained on; None where no record says it."""
        known = [share for record in self.training if (share := record.get("train/replaced_fraction")) is not None]
        return sum(known) / len(known) if known else None

    @property
    def tokens_per_second(self) -> float | None:
        """The median over the log lines, which a slow start or a busy minute does not move."""
        speeds = [speed for record in self.training if (speed := record.get("speed/tokens_per_second"))]
        return float(np.median(speeds)) if speeds else None

    def best(self, figure: Figure) -> Judgement | None:
        """The evaluation with the best value, the first of equals."""
        return self._judged(best(self.evaluations, figure))

    def last(self, key: str) -> float | None:
        """The newest known value of ``key`` in any record, such as train/hours."""
        records = sorted([*self.training, *self.evaluations], key=lambda record: record["step"])
        return next((record[key] for record in reversed(records) if record.get(key) is not None), None)

    def _judged(self, record: dict | None) -> Judgement | None:
        return record and Judgement.of(record, "eval", self.held_out)


def read_run_folder(folder: Path) -> Experiment:
    """The run in a folder, of which only config.yaml must be there; UserError where a file is damaged."""
    options = plain_options(settings.read(folder))
    if options["eval.metric"] not in METRICS:
        wrong = f"eval.metric is one of {', '.join(METRICS)}, not {str(options['eval.metric'])[:40]}"
        raise UserError(f"{folder / run_folder.CONFIG} is damaged ({wrong}); restore it or leave this run out")
    status = run_folder.read_status(folder)
    training, evaluations = split_records(run_folder.read_jsonl(folder / run_folder.METRICS))
    # While a run goes on, status.json has only its start.
    step = max([status["step"], *(record["step"] for record in [*training, *evaluations])])
    files = (run_folder.ENVIRONMENT, Path(run_folder.HELD_OUT, run_folder.HELD_OUT_IDENTITY), run_folder.CONTENT)
    environment, held_out, content = (run_folder.read_json(folder / name) for name in files)
    state = "done" if status["state"] == "done" else f"{status['state']} at step {step}"
    facts = folder.resolve().name, str(folder), folder, state, options
    return Experiment(*facts, held_out, content, environment, training, evaluations)


def plain_options(config: dict) -> dict[str, Any]:
    """Nested or dotted options as ``{"group.option": value}``, without what is no option (``held_out.corruption`` in W&B's
    configuration); one that an older run did not know has today's default."""
    known = {name: value for name, value in settings.flat(config).items() if name.partition(".")[0] in GROUPS}
    return DEFAULTS | plain(known)


def split_records(records: list[dict]) -> tuple[list[dict], list[dict]]:
    """Training records and evaluation records, each step once (the later record), in order of the steps."""
    training, evaluations = {}, {}
    for record in records:
        kind = evaluations if "eval/generator_loss" in record else training if "train/loss" in record else None
        if kind is not None:
            kind[record["step"]] = {key: finite(value) for key, value in record.items()}
    return tuple([kind[step] for step in sorted(kind)] for kind in (training, evaluations))
