"""What the loops of all jobs do in a step: ask whether to stop, seed dropout, exchange gradients once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NoReturn, TypeVar

import torch

from electra_accel.engines.engine import Engine
from electra_accel.errors import Preempted
from electra_accel.randomness import Purpose, torch_seed
from electra_accel.runs.stopping import StopRequests

Batch = TypeVar("Batch")


class StepSums:
    """One sum over all processes, asked for when a step begins. Made on every process.

    Args:
        counts: 1-d, this process's counts that the losses of the step are divided by.

    Attributes:
        counts: over all processes, on the device.
    """

    def __init__(self, engine: Engine, stop_requests: StopRequests, counts: Iterable[float] = ()):
        self.engine, self.asked = engine, stop_requests.reason()
        counts = torch.as_tensor(counts, dtype=torch.float64)
        totals = engine.sum(torch.cat([counts, counts.new_tensor([bool(self.asked)])]).to(engine.device))
        self.counts, self._votes = totals[:-1], engine.read_later(totals[-1])

    def asked_to_stop(self) -> bool:
        """Whether any process was asked to stop, the same on every process."""
        return self._votes() > 0

    def why(self) -> str:
        """Who asked to stop, the same on every process. Called on every process."""
        return next(filter(None, self.engine.everywhere(self.asked)))

    def stop(self, close: Callable[[], None]) -> NoReturn:
        """Leave the run, whose state is saved. Called on every process.

        Args:
            close: ends the trackers on the main process.
        """
        self.engine.on_main(close)
        raise Preempted(self.why())


def micro_steps(engine: Engine, seed: int, step: int, micro_batches: Sequence[Batch]) -> Iterator[Batch]:
    """Each of this process's micro-batches of a step, for a forward and a backward pass. The engine lets gradients meet in the
    last pass, or when it steps.

    Dropout depends on the micro-batch's number in the global step, not on the process that computes it (invariant 1).
    """
    for number, batch in enumerate(micro_batches):
        torch.manual_seed(torch_seed(seed, Purpose.DROPOUT, step, number * engine.world_size + engine.rank))
        with engine.micro_step(last=number == len(micro_batches) - 1):
            yield batch
