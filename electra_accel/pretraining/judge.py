"""Judges a run on its held-out text and shows sentences of it."""

import torch

from electra_accel.engines.engine import Engine
from electra_accel.model.figures import BAR, in_words
from electra_accel.pretraining.evaluate import HeldOut, evaluate, judging
from electra_accel.pretraining.planned import Planned
from electra_accel.pretraining.progress import Progress
from electra_accel.randomness import Purpose, torch_seed
from electra_accel.terminal import Terminal
from electra_accel.tracking.recorder import Recorder
from electra_accel.tracking.samples import CORRECTED_LEGEND, LEGEND, reconstruct

FIXED_SHOWN, RANDOM_SHOWN = 3, 2  # sentences each time


class Judge:
    """Held-out figures and reconstructions of a run. Called on every process; the first one reports."""

    def __init__(
        self, planned: Planned, engine: Engine, held_out: list[HeldOut], recorder: Recorder, terminal: Terminal
    ):
        self.config, self.tokenizer = planned.config, planned.prepared.tokenizer
        self.engine, self.held_out, self.recorder, self.terminal = engine, held_out, recorder, terminal
        for each in held_out if self.config.train.cuda_graphs == "auto" else ():
            each.judge = engine.record(judging(engine), terminal.warn, trains=False)

    def judge(self, progress: Progress) -> bool:
        """Held-out figures into progress, files and the terminal; True if ``eval.metric`` is the best so far."""
        figures, calibration = evaluate(self.held_out, self.engine, one_network=self.config.is_mlm)
        self.recorder.metrics(figures | progress.axes(), calibration)
        for name in (each.name for each in self.held_out):
            text = "held out" if name == "eval" else f"{name} text"
            own = in_words(figures, f"{name}_own", BAR)
            own = f"; on its own generator's replacements {own}" if own else ""
            self.terminal.line(f"{text} at step {progress.step}: {in_words(figures, name)}{own}")
        return progress.judge(figures, self.config.eval.metric)

    @torch.no_grad()
    def show(self, progress: Progress) -> None:
        """Reconstructions of the same sentences of the domain's held-out text each time, then of some random ones."""
        if self.recorder.samples == "none":
            return
        # Which random ones depends on the step alone, so that a resumed run shows the same. The last batches may be empty.
        batches = self.held_out[0].batches
        sizes = [int((batch.examples >= 0).sum()) for batch in batches]
        chance = torch_seed(self.config.eval.seed, Purpose.SHOW, progress.step)
        number = chance % max(1, sum(size > 0 for size in sizes))
        last = max(0, sizes[number] - RANDOM_SHOWN)
        first = min(FIXED_SHOWN if number == 0 else 0, last)
        first += chance // len(sizes) % (last - first + 1)
        engine, found = self.engine, []
        engine.model.eval()
        for which, start, count, fixed in ((0, 0, FIXED_SHOWN, True), (number, first, RANDOM_SHOWN, False)):
            batch = batches[which].to(engine.device)
            output = engine.model(batch)
            if engine.is_main:
                found += reconstruct(batch, output, self.tokenizer, wanted=range(start, start + count), fixed=fixed)
        engine.model.train()
        if not engine.is_main:
            return
        self.recorder.reconstructions(found, progress.axes())
        legend = LEGEND + CORRECTED_LEGEND * self.config.is_corrective
        self.terminal.line(f"epoch {progress.epoch:.2f}, step {progress.step}    {legend}")
        for sample in found:
            lines = {"input": sample.input_pieces(), "output": sample.output_pieces()}
            if self.config.is_corrective:
                lines["corrected"] = sample.corrected_pieces()
            for name, pieces in lines.items():
                self.terminal.pieces(f"  {name:<{max(map(len, lines))}}: ", pieces)
