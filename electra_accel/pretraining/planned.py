"""A run that is about to begin: all that is settled before its networks are made, for any hardware."""

from dataclasses import dataclass
from pathlib import Path

from electra_accel.data.loader import StepLoader
from electra_accel.data.prepare import Prepared
from electra_accel.engines.engine import Engine
from electra_accel.pretraining import assemble, opening
from electra_accel.pretraining.config import Config, resolve
from electra_accel.pretraining.config_checks import check_warmup
from electra_accel.pretraining.content import content_of
from electra_accel.pretraining.progress import Progress, read
from electra_accel.runs.environment import require_equal_data
from electra_accel.terminal import Terminal


@dataclass(frozen=True)
class Planned:
    """Text -> tokens -> plan, and what the run goes on from.

    Attributes:
        config: resolved, with the defaults that depend on the number of steps.
        folder: of the run; ``checkpoint``: that it goes on from, None for step 0.
        content: digests of what it reads, see ``content.content_of``.
        place: world size, rank and type of device of this process.
        total_steps: optimizer steps of the run; ``one_pass``: of a pass over the training text.
    """

    config: Config
    folder: Path
    checkpoint: Path | None
    prepared: Prepared
    content: dict[str, str]
    place: dict
    loader: StepLoader
    total_steps: int
    one_pass: float

    def held_out_loaders(self) -> dict[str, StepLoader]:
        return assemble.held_out_loaders(self.config, self.prepared, **self.place)

    def progress(self) -> Progress:
        """Where the run stands. UserError where its checkpoint is of other data, or beyond the last step."""
        data = assemble.data_identity(self.loader, self.prepared)
        return read(self.checkpoint, self.folder, data, self.total_steps) if self.checkpoint else Progress(data)


def plan(config: Config, folder: Path, engine: Engine, terminal: Terminal) -> Planned:
    """Settle all that is random about the data, and open the folder; nothing in it is changed. Called on every process.

    Raises:
        UserError: the folder is not this run's; text or vocabulary cannot be used, or differ between hosts or from what the run
            read before; the configuration does not fit the number of steps.
    """
    checkpoint = engine.on_main(lambda: opening.open_run(folder, config, terminal.warn))
    prepared = engine.together(lambda: assemble.prepared_data(config, terminal.line))
    require_equal_data(engine, prepared.fingerprint)
    content = engine.on_main(lambda: content_of(config, prepared))
    engine.on_main(lambda: opening.require_same_content(folder, checkpoint, config, content, terminal.line))
    place = {"world_size": engine.world_size, "rank": engine.rank, "device": engine.device.type}
    loader = assemble.step_loader(config, prepared, held_out=False, **place)
    total_steps, one_pass = assemble.total_steps(config, loader, prepared)
    steps_were_known, config = config.train.steps is not None, resolve(config, total_steps)
    for warning in () if steps_were_known else check_warmup(config, total_steps):
        terminal.warn(warning)
    return Planned(config, folder, checkpoint, prepared, content, place, loader, total_steps, one_pass)
