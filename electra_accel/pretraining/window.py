"""Figures between two log lines. They stay on the device until the line is due (invariant 8)."""

import time

import torch

from electra_accel.engines.engine import Engine
from electra_accel.engines.hardware import peak_memory
from electra_accel.errors import UserError
from electra_accel.model.metrics import SCALARS, summarise
from electra_accel.pretraining.config import Objective
from electra_accel.pretraining.progress import Progress


class Window:
    """Sums of losses and counters since the last log line.

    Args:
        objective: for its kind and its two weights.
        slots_per_step: token slots that a global step computes, empty ones included.
        flops: forward and backward, per real token and per selected position (``model.metrics.training_flops``).
    """

    def __init__(
        self,
        engine: Engine,
        objective: Objective,
        slots_per_step: int,
        flops: tuple[float, float],
    ):
        self.engine, self.objective, self.one_network = engine, objective, objective.kind == "mlm"
        self.slots_per_step, self.flops, self.peak_flops = slots_per_step, flops, engine.peak_flops()
        self.restart()

    def restart(self) -> None:
        self.counters: torch.Tensor | None = None
        self.losses: list[torch.Tensor] = []  # of each step, this process's share
        self.norms: list[torch.Tensor] = []  # of the gradient of each step
        self.step_loss: torch.Tensor | float = 0.0
        self.excluded = self.data_wait = self.earlier_seconds = 0.0
        self.earlier_steps = 0
        self.began = time.monotonic()

    def unfinished(self, step: int) -> dict:
        """What a run that stops after ``step`` steps, between two log lines, must remember, as JSON. Called on every process.

        Raises:
            UserError: as of :meth:`require_finite`.
        """
        self.require_finite(step)
        if self.counters is None:
            return {}
        return {
            "counters": self.engine.sum(self.counters).tolist(),
            "steps": self.earlier_steps + len(self.losses),
            "seconds": self.seconds,
            "data_wait": self.data_wait,
        }

    def go_on(self, unfinished: dict) -> None:
        """Begin with what :meth:`unfinished` gave, so that the next log line is that of an undisturbed run."""
        self.restart()
        if unfinished:
            counters = torch.tensor(unfinished["counters"], dtype=torch.float64, device=self.engine.device)
            self.counters = counters if self.engine.is_main else torch.zeros_like(counters)
            self.earlier_steps, self.earlier_seconds = unfinished["steps"], unfinished["seconds"]
            self.data_wait = unfinished["data_wait"]

    def add(self, loss: torch.Tensor, counters: torch.Tensor) -> None:
        """Take in a micro-step."""
        self.step_loss = self.step_loss + loss.detach()
        self.counters = counters if self.counters is None else self.counters + counters

    def end_step(self, gradient_norm: torch.Tensor) -> None:
        """Take in the end of a step; ``gradient_norm`` is the same on every process."""
        self.losses.append(self.step_loss)
        self.norms.append(gradient_norm)
        self.step_loss = 0.0

    def require_finite(self, step: int) -> None:
        """Stop and name the step if loss or gradient of a step since the last log line was not finite. ``step``: steps done.

        With a loss scale (fp16) the gradient may overflow now and then: such a step is skipped, the scale lowered.

        Raises:
            UserError: on every process alike.
        """
        if not self.losses:
            return
        finite = self.engine.sum(torch.stack(self.losses)).isfinite()
        if not self.engine.has_loss_scale:
            finite &= torch.stack(self.norms).isfinite()
        finite = finite.tolist()
        if not all(finite):
            first = step - len(finite) + finite.index(False) + 1
            raise UserError(
                f"the loss or its gradient is not finite at step {first}: lower --optim.learning_rate or "
                "--optim.max_grad_norm, or use --train.precision no; start again from the last checkpoint, which is untouched"
            )

    @property
    def seconds(self) -> float:
        """Spent on training, without evaluation, samples and checkpoints."""
        return self.earlier_seconds + time.monotonic() - self.began - self.excluded

    def figures(self, progress: Progress) -> dict[str, float]:
        """train/… over the tokens of all processes since the last line, and speed/…. Called on every process.

        ``progress`` takes up the time and the floating point operations.
        """
        counters = self.engine.sum(self.counters).cpu()
        metrics = summarise(counters)
        if self.one_network:
            metrics = {name: value for name, value in metrics.items() if name.startswith("generator_")}
        tokens, selected = (counters[SCALARS.index(name)].item() for name in ("tokens", "selected"))
        seconds, steps = self.seconds, self.earlier_steps + len(self.losses)
        flops = self.flops[0] * tokens + self.flops[1] * selected
        progress.seconds += seconds
        progress.device_seconds += seconds * self.engine.world_size
        progress.flops += flops
        figures = {
            "train/loss": self.objective.generator_weight * metrics["generator_loss"]
            + self.objective.discriminator_weight * metrics.get("discriminator_loss", 0.0),
            **{f"train/{name}": value for name, value in metrics.items()},
            "speed/tokens_per_second": tokens / seconds,
            "speed/slots_per_second": steps * self.slots_per_step / seconds,
            "speed/seconds_per_step": seconds / steps,
            "speed/data_wait": self.data_wait / seconds,
        }
        if self.peak_flops:
            figures["speed/mfu"] = flops / seconds / self.peak_flops
        figures["speed/peak_memory_gb"] = peak_memory(self.engine.device) / 1e9
        return figures
