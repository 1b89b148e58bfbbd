"""Figures between two log lines. They stay on the device until a line is due (invariant 8); then they go to metrics.jsonl, to
the trackers and to the terminal."""

import time
from collections.abc import Callable

import torch

from electra_accel.engines.engine import Engine
from electra_accel.engines.hardware import peak_memory
from electra_accel.model.figures import in_words
from electra_accel.model.flops import Flops
from electra_accel.model.metrics import SCALARS, summarise
from electra_accel.pretraining.planned import Planned
from electra_accel.pretraining.progress import Progress
from electra_accel.pretraining.stability import Stability
from electra_accel.terminal import Terminal, duration
from electra_accel.tracking.health import CHECKS, REMIND_STEPS, diagnose, watched_from
from electra_accel.tracking.recorder import Recorder


class Log:
    """Sums of losses and counters since the last line. Used on every process.

    Args:
        flops: of this run's networks and optimizer.

    Attributes:
        data_wait, checkpoint_stall: seconds since the last line in which the loop waited for data, and for a checkpoint.
        excluded: seconds that are none of training: evaluation, samples, checkpoints. The loop adds to all three.
    """

    def __init__(self, planned: Planned, engine: Engine, flops: Flops, recorder: Recorder, terminal: Terminal):
        self.config, self.total_steps = planned.config, planned.total_steps
        self.slots_per_step = planned.loader.layout.slots(
            self.config.train.bin_tokens
        )  # of tokens, empty ones included
        self.engine, self.flops, self.recorder, self.terminal = engine, flops, recorder, terminal
        self.stability = Stability(planned, engine, terminal.warn)
        self._restart({})

    def begin(self, progress: Progress) -> None:
        """The first step comes next. Goes on with what :meth:`unfinished` gave: the next line is that of an undisturbed run."""
        self.terminal.start(progress.step, self.total_steps)
        self.stability.begin(progress)
        self._restart(progress.window)

    def _restart(self, unfinished: dict) -> None:
        self.counters: torch.Tensor | None = None
        self.counted: torch.Tensor | None = None  # the same, of finished steps
        if unfinished:
            counters = torch.tensor(unfinished["counters"], dtype=torch.float64, device=self.engine.device)
            self.counters = self.counted = counters if self.engine.is_main else torch.zeros_like(counters)
        self.losses: list[torch.Tensor] = []  # of each step, this process's share
        self.norms: list[torch.Tensor] = []  # of the gradient of each step
        self.step_loss: torch.Tensor | float = 0.0
        self.earlier_steps, self.earlier_seconds = unfinished.get("steps", 0), unfinished.get("seconds", 0.0)
        self.data_wait, self.checkpoint_stall = unfinished.get("data_wait", 0.0), 0.0
        self.excluded, self.began = 0.0, time.monotonic()

    @property
    def _seconds(self) -> float:
        """Spent on training, without evaluation, samples and checkpoints."""
        return self.earlier_seconds + time.monotonic() - self.began - self.excluded

    def unfinished(self, progress: Progress) -> dict:
        """What a run that stops between two lines must remember, as JSON. Errors as of :meth:`write`."""
        self.stability.judge(self.losses, self.norms, progress)
        if self.counters is None:
            return {}
        return {
            "counters": self.engine.sum(self.counters).tolist(),
            "steps": self.earlier_steps + len(self.losses),
            "seconds": self._seconds,
            "data_wait": self.data_wait,
        }

    def add(self, loss: torch.Tensor, counters: torch.Tensor) -> None:
        """Take in a micro-step; ``loss`` has no gradient."""
        self.step_loss = self.step_loss + loss
        self.counters = counters if self.counters is None else self.counters + counters

    def end_step(self, step: int, gradient_norm: torch.Tensor, rate: Callable[[float], float]) -> None:
        """Take in the end of a step: ``step`` are done now. ``gradient_norm`` is the same on every process; ``rate`` gives the
        learning rate that belongs to a peak."""
        # A step that was skipped has no figures, on any process.
        before = torch.zeros_like(self.counters) if self.counted is None else self.counted
        self.counters = self.counted = torch.where(gradient_norm.isfinite(), self.counters, before)
        self.losses.append(self.step_loss)
        self.norms.append(gradient_norm)
        self.step_loss, self.rate = 0.0, rate
        self.terminal.update(step)

    def write(self, progress: Progress) -> None:
        """Write a line of the steps since the last one; ``progress`` takes up the time and the floating point operations.

        Raises:
            UserError: as of ``Stability.judge``.
        """
        self.stability.judge(self.losses, self.norms, progress)
        figures = self._figures(progress)
        figures |= {"health/skipped_steps": progress.skipped_steps, "health/loss_spikes": progress.loss_spikes}
        if progress.step >= watched_from(self.config.optim.warmup_steps, self.total_steps):
            figures |= self._watch(figures, progress)
        self.recorder.metrics(figures)
        self._show(figures)
        self._restart({})

    def _figures(self, progress: Progress) -> dict[str, float]:
        """train/… over the tokens of all processes, and speed/…"""
        engine, objective, optim = self.engine, self.config.objective, self.config.optim
        counters = engine.sum(self.counters).cpu()
        metrics = summarise(counters)
        if self.config.is_mlm:
            metrics = {name: value for name, value in metrics.items() if name.startswith("generator_")}
        tokens, selected = (counters[SCALARS.index(name)].item() for name in ("tokens", "selected"))
        seconds, steps = self._seconds, self.earlier_steps + len(self.losses)
        of_model, peak_flops = self.flops.of_model(tokens, selected), engine.peak_flops()
        progress.seconds += seconds
        progress.device_seconds += seconds * engine.world_size
        progress.flops += of_model + steps * self.flops.step
        return {
            "train/loss": objective.generator_weight * metrics["generator_loss"]
            + objective.discriminator_weight * metrics.get("discriminator_loss", 0.0)
            + objective.corrective_weight * metrics.get("corrective_loss", 0.0),
            **{f"train/{name}": value for name, value in metrics.items()},
            "speed/tokens_per_second": tokens / seconds,
            "speed/slots_per_second": steps * self.slots_per_step / seconds,
            "speed/seconds_per_step": seconds / steps,
            "speed/data_wait": self.data_wait / seconds,
            "speed/checkpoint_stall": self.checkpoint_stall,
            **({"speed/mfu": of_model / seconds / peak_flops} if peak_flops else {}),
            "speed/peak_memory_gb": peak_memory(engine.device) / 1e9,
            "train/learning_rate": self.rate(optim.learning_rate),
            **({"train/matrix_learning_rate": self.rate(optim.matrix_learning_rate)} if optim.kind == "muon" else {}),
            "train/gradient_norm": self.norms[-1].item(),
            **progress.axes(),
        }

    def _watch(self, figures: dict[str, float], progress: Progress) -> dict[str, int]:
        """``health/…``. What looks like a collapse is told once, and again if it comes back much later."""
        found = diagnose(figures)
        for name in (name for name, holds in found.items() if holds):
            if name not in progress.warned or progress.step - progress.warned[name] > REMIND_STEPS:
                self.terminal.warn(f"step {progress.step}: {CHECKS[name]} (health/{name})")
            progress.warned[name] = progress.step
        return {f"health/{name}": holds for name, holds in found.items()}

    def _show(self, figures: dict[str, float]) -> None:
        """One line, and the figures beside the progress bar."""
        step, loss = figures["train/step"], figures["train/loss"]
        left = duration((self.total_steps - step) * figures["speed/seconds_per_step"]) + " left"
        speed = f"{figures['speed/tokens_per_second']:,.0f} tokens/s"
        mfu = f", MFU {figures['speed/mfu']:.1%}" if "speed/mfu" in figures else ""
        self.terminal.line(
            f"step {step}/{self.total_steps}  loss {loss:.3f}  {in_words(figures, 'train')}  "
            f"lr {figures['train/learning_rate']:.2e}  {speed} ({figures['speed/slots_per_second']:,.0f} slots/s{mfu})  {left}"
        )
        short = "  ".join(filter(None, [left, f"loss {loss:.2f}", in_words(figures, "train", "bar"), speed]))
        self.terminal.update(step, short, f"{mfu}  data wait {figures['speed/data_wait']:.0%}")
