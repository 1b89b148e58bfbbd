"""Where a run stands, and saving and restoring it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from electra_accel.data.loader import Step
from electra_accel.data.plan import Cursor
from electra_accel.engines.state import Snapshot
from electra_accel.errors import UserError
from electra_accel.model.figures import FIGURES
from electra_accel.pretraining.config import Config
from electra_accel.runs import checkpoint, run_folder
from electra_accel.runs.saver import Saver


@dataclass
class Progress:
    """With the weights and the optimizer this is all that a resume needs; kept in checkpoints as JSON."""

    data: str  # what the plan depends on: content of the prepared data, limits of bins
    corruption: str = ""  # fingerprint of the fixed held-out corruption
    step: int = 0  # optimizer steps done
    cursor: Cursor = Cursor()  # where the plan goes on
    tokens: int = 0  # real ones seen
    epoch: float = 0.0  # passes over the corpus
    seconds: float = 0.0  # of training so far, over all resumes
    device_seconds: float = 0.0  # times the number of processes
    flops: float = 0.0  # so far (``model.flops.training_flops``)
    run_id: str = ""  # by which trackers know the run; empty where it begins at another run's checkpoint
    warned: dict[str, int] = field(default_factory=dict)  # health checks that were told of, and when each held last
    skipped_steps: int = 0  # whose loss or gradient was not finite
    skipped_in_a_row: int = 0  # of them: the last steps
    sound_step: int = -1  # of the newest checkpoint before those
    loss_spikes: int = 0  # steps whose loss jumped
    recent_losses: list[float] = field(default_factory=list)  # that jumps are measured by
    window: dict = field(default_factory=dict)  # ``Log.unfinished``, where the run stopped between two log lines
    first: dict[str, float] = field(default_factory=dict)  # held-out figures of the untouched model
    last: dict[str, float] = field(default_factory=dict)  # and of the present one
    judged_step: int = -1  # when these were taken
    best: float | None = None  # the best ``eval.metric`` so far
    best_step: int = 0
    best_figures: dict[str, float] = field(default_factory=dict)  # all figures of that step
    bad_evaluations: int = 0  # how many evaluations ago that was
    records: dict[str, list] = field(default_factory=dict)  # ``run_folder.records``, as of the last checkpoint
    stopped_because: str = ""  # why the run ended before its last step

    def to_json(self) -> dict:
        return asdict(self) | {"cursor": self.cursor.to_json()}

    @classmethod
    def from_json(cls, value: dict) -> "Progress":
        judged = {"judged_step": value["step"]}  # where an earlier version did not say it
        return cls(**judged | value | {"cursor": Cursor.from_json(value["cursor"])})

    def axes(self) -> dict[str, float]:
        """What curves are drawn over: steps, real tokens, passes, floating point operations, hours, hours of all processes."""
        return {
            "train/step": self.step,
            "train/tokens": self.tokens,
            "train/epoch": self.epoch,
            "train/flops": self.flops,
            "train/hours": self.seconds / 3600,
            "train/device_hours": self.device_seconds / 3600,
        }

    def advance(self, done: Step) -> None:
        """Take in a step of the plan that has just been trained on."""
        self.step, self.cursor, self.epoch = self.step + 1, done.cursor, done.epoch
        self.tokens += done.tokens

    def judge(self, figures: dict[str, float], metric: str) -> bool:
        """Take in held-out figures; True if ``metric`` is the best so far."""
        if not self.first:
            self.first = figures
        self.last, self.judged_step = figures, self.step
        value = figures[f"eval/{metric}"]
        better = self.best is None or FIGURES[metric].is_better(value, self.best)
        if better:
            self.best, self.best_step, self.best_figures, self.bad_evaluations = value, self.step, figures, 0
        else:
            self.bad_evaluations += 1
        return better


def save(folder: Path, saver: Saver, progress: Progress, config: Config, warn: Callable[[str], None]) -> None:
    """Begin to write a checkpoint of the run in ``folder``, and to prune. On every process; errors as of ``Saver.save``.

    Beside the newest stay those of ``checkpoint.keep_every``, the best where patience is set, and while steps are skipped the
    one from before.
    """
    if not progress.skipped_in_a_row:
        progress.sound_step = progress.step
    progress.records = run_folder.records(folder)
    step, state, every = progress.step, progress.to_json(), config.checkpoint.keep_every
    protect = {progress.sound_step, *(range(0, step + 1, every) if every else ())}
    if config.eval.patience:
        protect.add(progress.best_step)

    def write(snapshot: Snapshot) -> None:
        checkpoint.write(folder, snapshot, step, state, warn, keep=config.checkpoint.keep, protect=protect)

    saver.save(write, lambda: run_folder.write_status(folder, "running", step))


def read(path: Path, folder: Path, data: str, total_steps: int) -> Progress:
    """Where the run in ``folder`` stood at a verified checkpoint, its own or another run's.

    Raises:
        UserError: the run was on other data (see ``Progress.data``), or is beyond its last step.
    """
    progress = Progress.from_json(checkpoint.read_state(path))
    if progress.data != data:
        raise UserError(
            f"{path} was trained on other data ({progress.data}; now {data}): the text or its preparation has changed; "
            "restore it, or use another --run.dir"
        )
    if progress.step > total_steps:
        raise UserError(f"{path} is at step {progress.step} already, beyond train.steps {total_steps}; raise it")
    if path.resolve().parent.parent != folder.resolve():
        progress.run_id, progress.warned, progress.judged_step = "", {}, -1
        # The origin's best checkpoint is not in this folder: what is best here begins anew.
        progress.best, progress.best_step, progress.best_figures, progress.bad_evaluations = None, 0, {}, 0
        progress.skipped_steps, progress.skipped_in_a_row, progress.sound_step, progress.loss_spikes = 0, 0, -1, 0
    return progress
