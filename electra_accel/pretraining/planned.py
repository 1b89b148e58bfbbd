"""A run that is about to begin: all that is settled before its networks are made, for any hardware."""

from dataclasses import dataclass
from pathlib import Path

from electra_accel.data.loader import StepLoader
from electra_accel.data.prepare import Prepared
from electra_accel.engines.engine import Engine
from electra_accel.pretraining import assemble, opening
from electra_accel.pretraining.config import Config, resolve
from electra_accel.pretraining.config_checks import check_warmup
from electra_accel.pretraining.progress import Progress, read
from electra_accel.runs.environment import require_equal_data
from electra_accel.terminal import Terminal


@dataclass(frozen=True)
class Planned:
    """Text -> tokens -> plan, and what the run goes on from."""

    config: Config  # resolved, with the defaults that depend on the number of steps
    folder: Path
    checkpoint: Path | None  # that the run goes on from; None for step 0
    prepared: Prepared
    content: dict[str, str]  # digests of what it reads, see ``opening.content_of``
    place: dict  # world size, rank and type of device of this process
    loader: StepLoader
    one_pass: assemble.OnePass  # over the training text
    total_steps: int  # optimizer steps of the run

    def held_out_loaders(self) -> dict[str, StepLoader]:
        """By split, the domain's first."""
        return {
            split: assemble.step_loader(self.config, self.prepared, held_out=True, split=split, **self.place)
            for split in ("held_out", "general")
            if split in self.prepared.held_out
        }

    def progress(self) -> Progress:
        """Where the run stands. UserError where its checkpoint is of other data, or beyond the last step."""
        limits = self.loader.plan.limits  # that bins are packed under
        data = f"{self.prepared.fingerprint[:16]}, bins of {limits.tokens} tokens, {limits.slots} slots, "
        data += f"{limits.segments} examples"
        return read(self.checkpoint, self.folder, data, self.total_steps) if self.checkpoint else Progress(data)

    def lines(self) -> list[str]:
        """Data, plan and waste, as a person wants to know them before a long run."""
        plan, layout, manifest = self.loader.plan, self.loader.layout, self.prepared.manifest
        limits, split = plan.limits, manifest["splits"]["train"]
        slots, replayed, waste = plan.bins_per_step * limits.tokens, "", ""
        if plan.replay:
            general = manifest["splits"]["replay"]
            replayed = f"; replay: {plan.replay.per_pass:,} of {general['examples']:,} general examples in each pass"
        if layout.empty_bins:
            waste = f", {layout.empty_bins} of them empty"
        return [
            f"data      {split['documents']:,} documents, {split['examples']:,} examples, {split['tokens']:,} tokens "
            f"({manifest['fingerprint'][:12]}){replayed}",
            f"plan      bins of {limits.tokens} tokens, {limits.slots} selected slots, {limits.segments} examples at most; "
            f"{self.one_pass.tokens / (self.one_pass.steps * slots):.1%} filled",
            f"step      {plan.bins_per_step} bins = {slots:,} token slots: {layout.world_size} processes x "
            f"{layout.accumulation} micro-batches x {layout.rows} bins{waste}",
            f"length    {self.total_steps:,} steps, {self.total_steps / self.one_pass.steps:.2f} passes over the text",
            f"learning  {self._learning()}",
        ]

    def _learning(self) -> str:
        """Optimizer and objective in words: their defaults depend on the start."""
        objective, optim = self.config.objective, self.config.optim
        rate = f"{optim.learning_rate:g}"
        if optim.kind == "muon":
            rate = f"{optim.matrix_learning_rate:g} for matrices, {rate} for the rest"
        if optim.generator_factor != 1:
            rate += f", the generator's times {optim.generator_factor:g}"
        name = {"adamw": "AdamW", "muon": "Muon"}[optim.kind]
        how = f"{name}, learning rate {rate}; {optim.warmup_steps:,} steps of warmup"
        if self.config.is_mlm:
            return f"{how}; masked language modelling"
        weights = [(objective.generator_weight, "generator"), (objective.discriminator_weight, "discriminator")]
        weights += [(objective.corrective_weight, "corrective")] * bool(objective.corrective_weight)
        loss = " + ".join(f"{weight:g} x {name}" for weight, name in weights)
        return f"{how}; loss {loss}; model.sharing {self.config.model.sharing}"

    def opening_lines(self, engine: str, held_out: str, records: str, step: int) -> list[str]:
        """What the run is about to do from ``step`` on, where it is written to and how to watch it; the others in words."""
        return [
            f"engine    {engine}",
            *self.lines(),
            f"held out  {held_out}",
            f"records   {records}",
            f"run       {self.folder}, from step {step}",
            f"watch     {self.folder}/report.html in a browser: brought up to date at each evaluation",
        ]


def plan(config: Config, folder: Path, engine: Engine, terminal: Terminal) -> Planned:
    """Settle all that is random about the data, and open the folder; nothing in it is changed. Called on every process.

    Raises:
        UserError: the folder is another run's, or text or configuration cannot be used, here or on another host.
    """
    checkpoint = engine.on_main(lambda: opening.open_run(folder, config, terminal.warn))
    prepared = engine.together(lambda: assemble.prepared_data(config, terminal.line))
    require_equal_data(engine, prepared.fingerprint)
    content = engine.on_main(lambda: opening.content_of(config, prepared))
    engine.on_main(lambda: opening.require_same_content(folder, checkpoint, config, content, terminal.line))
    place = {"world_size": engine.world_size, "rank": engine.rank, "device": engine.device.type}
    loader = assemble.step_loader(config, prepared, held_out=False, **place)
    one_pass = assemble.OnePass(config, loader, prepared)
    total_steps = assemble.total_steps(config, one_pass, prepared.tokenizer)
    steps_were_known, config = config.train.steps is not None, resolve(config, total_steps)
    for warning in () if steps_were_known else check_warmup(config, total_steps):
        terminal.warn(warning)
    return Planned(config, folder, checkpoint, prepared, content, place, loader, one_pass, total_steps)
