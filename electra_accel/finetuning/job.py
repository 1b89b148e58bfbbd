"""One fine-tuning of a run: a task, a model and a seed, and its folder, in which it is known whether it is done.

RUN/<task>/<model>/seed-1/   identity.json  metrics.jsonl  run_id  predictions-{dev,test}.jsonl  result.json (last)
                             checkpoints/ (until it is done)  model/ (where run.save_models asks for it)
"""

import json
import re
import shutil
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from electra_accel.errors import UserError
from electra_accel.finetuning.config import Settings
from electra_accel.finetuning.heads import Encoder
from electra_accel.finetuning.tasks import Encoded, TaskData, encode
from electra_accel.runs import checkpoint, run_folder
from electra_accel.runs.opening import cut_back, require_unchanged

IDENTITY, RESULT = "identity.json", "result.json"
STOPPED = "stopped.json"  # among the checkpoints, with which it goes
SEED_FOLDER = re.compile(r"seed-(-?\d+)")
# Where data is from and what a task is called: the rows themselves say it better.
_PLACES = {"name", "train_file", "dev_file", "test_file", "dataset", "dev_fraction", "test_fraction"}


@dataclass(frozen=True)
class Job:
    """Everything that decides the numbers of one fine-tuning, and where they go."""

    settings: Settings
    data: TaskData
    encoder: Encoder
    seed: int
    run: Path

    @property
    def name(self) -> str:
        return f"{self.data.task.name}/{self.encoder.name}/seed-{self.seed}"

    @property
    def folder(self) -> Path:
        return self.run / self.name

    def encoded(self) -> dict[str, Encoded]:
        """The splits as tokens: made once for all seeds, unless each seed has its own rows."""
        own = {"train": self.seed} if self.data.task.train_rows else {}
        return {name: _encoded(self.data, self.encoder, name, own.get(name, 0)) for name in self.data.splits}

    def identity(self) -> dict[str, Any]:
        """What must be equal for figures in the folder to be this fine-tuning's."""
        return {"model": self.encoder.fingerprint} | shared_identity(self.settings, self.data)

    def result(self) -> dict[str, Any] | None:
        """Figures of a finished fine-tuning: ``{"best_epoch": 2, "dev": {"accuracy": …}, "test": {…}, …}``."""
        return run_folder.read_json(self.folder / RESULT) or None


@lru_cache(maxsize=3)  # the splits of one task and model
def _encoded(data: TaskData, encoder: Encoder, split: str, seed: int) -> Encoded:
    return encode(data.rows(split, seed), data, encoder.tokenizer)


def shared_identity(settings: Settings, data: TaskData) -> dict[str, Any]:
    """What must be equal for figures of two models to stand in one table."""
    task = {f"task.{name}": value for name, value in asdict(data.task).items() if name not in _PLACES}
    optim = {f"optim.{name}": value for name, value in asdict(settings.optim).items()}
    train = {f"train.{name}": getattr(settings.train, name) for name in ("epochs", "batch_size")}
    return {"data": data.fingerprint(), **task, **optim, **train}


def require_same(folder: Path, wanted: dict[str, Any]) -> None:
    """Raises UserError where a fine-tuning's ``folder`` was made with other values than ``wanted``; names each key."""
    known = run_folder.read_json(folder / IDENTITY)
    said = {"data": "other rows in its files", "model": "another network, or its weights or tokenizer have changed"}
    changed = {key: value for key, value in wanted.items() if known and known.get(key) != value}
    require_unchanged(folder, [said.get(key) or f"{key} {known.get(key)} -> {value}" for key, value in changed.items()])


def finished_seeds(folder: Path) -> dict[int, Path]:
    """The folders of the finished fine-tunings of a task and a model, by seed, in order."""
    places = [path.parent for path in folder.glob(f"seed-*/{RESULT}")]
    return dict(sorted((int(seed[1]), place) for place in places if (seed := SEED_FOLDER.fullmatch(place.name))))


def results_in(folder: Path) -> dict[str, dict[str, Any]]:
    """Their figures, as ``results.json`` has them."""
    return {str(seed): run_folder.read_json(place / RESULT) for seed, place in finished_seeds(folder).items()}


@dataclass
class State:
    """Where a fine-tuning stands between two epochs; with weights and optimizer all that a resume needs.

    Attributes:
        step: optimizer steps done.
        dev: figures of each epoch so far.
        best_epoch, best_step: of the best main metric; from 1, 0 before the first.
        seconds: of training and judging dev, over all resumes.
    """

    step: int = 0
    dev: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    best_step: int = 0
    seconds: float = 0.0

    def judge(self, figures: dict[str, float | None], metric: str) -> bool:
        """Take in the dev figures of an epoch that has just ended; True if it is the best. Of equal ones the first is."""
        self.dev.append(figures)
        best = self.dev[self.best_epoch - 1][metric] if self.best_epoch else None
        better = not self.best_epoch or (figures[metric] is not None and (best is None or figures[metric] > best))
        if better:
            self.best_epoch, self.best_step = len(self.dev), self.step
        return better


def read_state(path: Path | None) -> State:
    """Of a verified checkpoint; a new one of None."""
    saved = checkpoint.read_state(path) if path else {}
    return State(**{each.name: saved[each.name] for each in fields(State) if each.name in saved})


def begin(job: Job, state: State) -> None:
    """Make the folder, and cut its files back to what ``state`` knows. On the main process."""
    with run_folder.storage_errors(job.run):
        job.folder.mkdir(parents=True, exist_ok=True)
        run_folder.write_json(job.folder / IDENTITY, job.identity())
    cut_back(job.folder, state.step)


def best_checkpoint(job: Job, state: State) -> Path:
    """That of the epoch that dev chose.

    Raises:
        UserError: it is damaged.
    """
    path = checkpoint.path_of(job.folder / run_folder.CHECKPOINTS, state.best_step)
    try:
        checkpoint.verify(path)
    except checkpoint.Damaged as reason:
        raise UserError(
            f"the best epoch's checkpoint {path} is damaged ({reason}): remove {job.folder} to train it again"
        ) from None
    return path


def write_predictions(job: Job, split: str, records: list[dict]) -> None:
    """predictions-dev.jsonl or predictions-test.jsonl; no texts, rows are numbered. On the main process."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    run_folder.write_atomically(job.folder / f"predictions-{split}.jsonl", lines)


def finish(job: Job, result: dict[str, Any]) -> None:
    """Write the result, which says that the fine-tuning is done; the checkpoints go. On the main process."""
    with run_folder.storage_errors(job.run):
        run_folder.write_json(job.folder / RESULT, result)
    remove_checkpoints(job)


def remove_checkpoints(job: Job) -> None:
    """Of a finished fine-tuning; a kill may have come between its result and this."""
    shutil.rmtree(job.folder / run_folder.CHECKPOINTS, ignore_errors=True)


def stopped_here_before(job: Job, step: int) -> bool:
    """Whether a start before this one ran out of time inside the same epoch, which begins at ``step``; notes that this one did.

    On the main process.
    """
    path = job.folder / run_folder.CHECKPOINTS / STOPPED
    before = run_folder.read_json(path).get("step") == step
    with run_folder.storage_errors(job.run):
        path.parent.mkdir(exist_ok=True)
        run_folder.write_json(path, {"step": step})
    return before
