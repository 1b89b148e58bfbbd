"""Steps whose loss or gradient is not finite, and losses that jump.

Such a step changes no weight, on any process: the engine sees to that without waiting for the device (``Engine.step``). Here it
is counted, told, and recorded with its examples, when a line is due. A run that skips too many in a row ends.
"""

import math
from collections.abc import Callable, Sequence
from statistics import median

import torch

from electra_accel.engines.engine import Engine
from electra_accel.errors import UserError
from electra_accel.pretraining.planned import Planned
from electra_accel.pretraining.progress import Progress
from electra_accel.runs import run_folder

MOST_RECORDED = 100  # skipped steps whose examples are written down
REMEMBERED, ENOUGH = 100, 20  # losses of earlier steps that a jump is measured by, at most and at least
REMEDY = (
    "lower --optim.learning_rate (with muon also --optim.matrix_learning_rate) or --optim.max_grad_norm in another "
    "--run.dir, or use --train.precision no; --run.resume goes on from a checkpoint from before"
)


class Stability:
    """Judges the steps since the last line. Used on every process.

    Args:
        warn: prints one line.
    """

    def __init__(self, planned: Planned, engine: Engine, warn: Callable[[str], None]):
        self.config, self.folder, self.engine, self.warn = planned.config, planned.folder, engine, warn
        self.loader, self.tokenizer = planned.loader, planned.prepared.tokenizer

    def begin(self, progress: Progress) -> None:
        """The steps to be judged begin here."""
        self.cursor, self.step = progress.cursor, progress.step

    def judge(self, losses: Sequence[torch.Tensor], norms: Sequence[torch.Tensor], progress: Progress) -> None:
        """Take in the steps that were made since the last call.

        Args:
            losses: this process's share of the loss of each step, 0-d.
            norms: of the gradient of each step, 0-d, the same on every process.

        Raises:
            UserError: on every process alike, where the weights are not finite, or as many steps in a row were skipped as
                ``train.max_skipped_steps`` says.
        """
        if not losses:
            return
        values = self.engine.sum(torch.stack(list(losses)))
        # The norm decides in the engine, too. With a loss scale gradients overflow now and then, and the scale is lowered.
        finite = (values if self.engine.has_loss_scale else torch.stack(list(norms))).isfinite()
        skipped = []
        for step, (value, fine) in enumerate(zip(values.tolist(), finite.tolist(), strict=True), self.step + 1):
            if fine:
                progress.skipped_in_a_row = 0
                if math.isfinite(value):
                    self._compare(step, value, progress)
                continue
            skipped.append(step)
            progress.skipped_steps += 1
            progress.skipped_in_a_row += 1
            if progress.skipped_in_a_row >= self.config.train.max_skipped_steps:
                break
        if skipped:
            self.engine.on_main(lambda: self._record(skipped, progress))
            self._stop(skipped[-1], progress)
        self.begin(progress)

    def _stop(self, last: int, progress: Progress) -> None:
        number = progress.skipped_in_a_row
        if number >= self.config.train.max_skipped_steps:
            where = f"at step {last}" if number == 1 else f"at steps {last - number + 1} to {last}"
            raise UserError(
                f"the loss or its gradient is not finite {where}, which changed no weight: {REMEDY}; "
                f"{run_folder.SKIPPED} names the examples"
            )
        if number and not self.engine.has_finite_weights():
            raise UserError(f"weights are not finite at step {progress.step}: {REMEDY}")

    def _compare(self, step: int, loss: float, progress: Progress) -> None:
        """Count a loss that jumped."""
        earlier = progress.recent_losses
        if jumped(loss, earlier):
            progress.loss_spikes += 1
            self.warn(
                f"step {step}: the loss jumped to {loss:.3f}; its median over {len(earlier)} steps was {median(earlier):.3f}"
            )
        progress.recent_losses = [*earlier, loss][-REMEMBERED:]

    def _record(self, skipped: Sequence[int], progress: Progress) -> None:
        """Write the examples of the skipped steps down; the plan knows them."""
        steps = f"step {skipped[0]}" if len(skipped) == 1 else f"steps {', '.join(map(str, skipped))}"
        path = self.folder / run_folder.SKIPPED
        self.warn(
            f"{steps}: the loss or its gradient is not finite; no weight was changed ({progress.skipped_steps} so far; "
            f"{path} names the examples)"
        )
        wanted = skipped[: max(0, MOST_RECORDED - progress.skipped_steps + len(skipped))]
        for planned in self.loader.plan.steps(self.cursor, self.step):
            if planned.step >= max(wanted, default=0):
                break
            if planned.step + 1 in wanted:
                examples = planned.bins.examples
                record = {"step": planned.step + 1, "examples": examples.tolist()}
                if self.config.tracking.samples != "none":
                    tokens, lengths = self.loader.collator.store.read(examples)
                    pieces = torch.from_numpy(tokens.astype("int64")).split(lengths.tolist())
                    record["texts"] = [self.tokenizer.decode(each, skip_special_tokens=True) for each in pieces]
                run_folder.append_jsonl(path, record)


def jumped(loss: float, earlier: Sequence[float]) -> bool:
    """Whether a loss lies far above those before it: by ten times their median deviation from their median, and by a tenth."""
    if len(earlier) < ENOUGH:
        return False
    middle = median(earlier)
    deviation = median(abs(value - middle) for value in earlier)
    return loss > middle + max(10 * deviation, 0.1 * abs(middle))
