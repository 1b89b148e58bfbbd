"""The log line of a run: figures since the last one go to metrics.jsonl, to the trackers and to the terminal."""

import torch

from electra_accel.pretraining.config import Config
from electra_accel.pretraining.progress import Progress
from electra_accel.pretraining.window import Window
from electra_accel.terminal import Terminal, duration
from electra_accel.tracking.health import CHECKS, REMIND_STEPS, diagnose, watched_from
from electra_accel.tracking.recorder import Recorder


class Log:
    """Collects the figures of each step and writes them when a line is due. Used on every process."""

    def __init__(self, config: Config, total_steps: int, window: Window, recorder: Recorder, terminal: Terminal):
        self.config, self.total_steps, self.window = config, total_steps, window
        self.recorder, self.terminal = recorder, terminal
        self.learning_rate = 0.0

    def begin(self, progress: Progress) -> None:
        """The first step comes next."""
        self.terminal.start(progress.step, self.total_steps)
        self.window.go_on(progress.window)

    def end_step(self, step: int, gradient_norm: torch.Tensor, learning_rate: float) -> None:
        """Take in a step: ``step`` are done now."""
        self.window.end_step(gradient_norm)
        self.learning_rate = learning_rate
        self.terminal.update(step)

    def write(self, progress: Progress) -> None:
        """Write a line of the steps since the last one.

        Raises:
            UserError: the loss or its gradient was not finite in one of them.
        """
        self.window.require_finite(progress.step)
        figures = self.window.figures(progress) | {
            "train/learning_rate": self.learning_rate,
            "train/gradient_norm": self.window.norms[-1].item(),
            **progress.axes(),
        }
        if progress.step >= watched_from(self.config.optim.warmup_steps, self.total_steps):
            figures |= self._watch(figures, progress)
        self.recorder.metrics(figures)
        self._show(figures)
        self.window.restart()

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
        step = figures["train/step"]
        left = duration((self.total_steps - step) * figures["speed/seconds_per_step"])
        speed = f"{figures['speed/tokens_per_second']:,.0f} tokens/s"
        mfu = f", MFU {figures['speed/mfu']:.1%}" if "speed/mfu" in figures else ""
        loss, accuracy = f"loss {figures['train/loss']:.3f}", f"accuracy {figures['train/generator_accuracy']:.3f}"
        short = f"loss {figures['train/loss']:.2f}"
        if "train/auc" in figures:
            loss += f" (generator {figures['train/generator_loss']:.3f}"
            loss += f", discriminator {figures['train/discriminator_loss']:.4f})"
            accuracy = (
                f"accuracy: generator {figures['train/generator_accuracy']:.3f}, discriminator "
                f"{figures['train/discriminator_accuracy']:.3f}, AUC {figures['train/auc']:.3f}"
            )
            short += f"  AUC {figures['train/auc']:.3f}"
        self.terminal.line(
            f"step {step}/{self.total_steps}  {loss}  {accuracy}  lr {figures['train/learning_rate']:.2e}  {speed} "
            f"({figures['speed/slots_per_second']:,.0f} slots/s{mfu})  {left} left"
        )
        self.terminal.update(
            step, f"{left} left  {short}  {speed}", f"{mfu}  data wait {figures['speed/data_wait']:.0%}"
        )
