"""The processes of a run: who this one is, sums over all of them, and doing things together."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.distributed.distributed_c10d import _get_default_store  # torch has no public way to it

from electra_accel.errors import UserError


class Processes:
    """This process among the others of the run: its number ``rank``, their number ``world_size``, the ``device`` it uses."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.rank, self.world_size = accelerator.process_index, accelerator.num_processes
        self.is_main, self.device = accelerator.is_main_process, accelerator.device

    def read_later(self, value: torch.Tensor) -> Callable[[], float]:
        """Ask for a 0-d tensor now and fetch it later: fetching waits for what was queued before, not after, the asking."""
        if self.device.type != "cuda":
            return value.item
        on_host = torch.empty_like(value, device="cpu", pin_memory=True).copy_(value, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def fetch() -> float:
            copied.synchronize()
            return on_host.item()

        return fetch

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over processes; the result stays on the device and the same process count gives the same bits."""
        return self.accelerator.reduce(tensor, "sum") if self.world_size > 1 else tensor

    def everywhere(self, value: Any) -> list:
        """One picklable value per process, in rank order, on every process."""
        return gather_object([value]) if self.world_size > 1 else [value]

    def together(self, function: Callable[[], Any]) -> Any:
        """Call on every process, however long it takes; where one raises UserError, all do, so that nobody waits for it."""
        result, problem = None, None
        try:
            result = function()
        except UserError as error:
            problem = str(error)
        self._wait_for_all()
        problems = [found for found in self.everywhere(problem) if found is not None]
        if problems:
            raise UserError(problems[0])
        return result

    def on_main(self, function: Callable[[], Any]) -> Any:
        """Call on the main process; every process gets its (picklable) result, or its UserError."""
        result = self.together(lambda: function() if self.is_main else None)
        return self.everywhere(result)[0]

    def leave(self, patience: float = math.inf) -> None:
        """The end of a run that went well or was asked to stop. Twice is once.

        No process leaves while another may still be talking to it. One that leaves first breaks the connections of the
        others; a process that then fails at its exit leaves the launcher of its host waiting five minutes for the rest. And
        where the exit code is not 0, the launcher ends the other processes of a host with the first one. So all of them go
        at the same moment. ``cli.exit_with_one_line`` does this.

        Args:
            patience: seconds to wait for the others, also for one that is gone. Without a limit the launcher ends those that
                wait for one that has failed.
        """
        if not torch.distributed.is_initialized():
            return
        store, end = _get_default_store(), time.monotonic() + patience
        with suppress(*[torch.distributed.DistError] * (patience < math.inf)):
            self._wait_for_all(end)
        torch.distributed.destroy_process_group()
        left = [f"electra_accel/left/{rank}" for rank in range(self.world_size)]
        # The store may live in the first process. Whoever finds it gone knows that all have left.
        with suppress(torch.distributed.DistError):
            if not self.is_main:
                store.set(left[self.rank], "")
            while not store.check(left[1:] if self.is_main else left[:1]) and time.monotonic() < end:
                time.sleep(0.02)
            if self.is_main:
                store.set(left[0], "")

    def _wait_for_all(self, end: float = math.inf) -> None:
        """Until every process has come here or ``time.monotonic`` is at ``end``.

        It may take hours, where hosts share no disk and prepare the data one by one.
        A collective would time out (NCCL after ten minutes), so arrivals are counted in the process group's key-value store. If
        a process dies, the launcher stops the others.
        """
        if self.world_size == 1:
            return
        store, name = _get_default_store(), "electra_accel/arrivals"
        arrivals = store.add(name, 1)
        everybody = math.ceil(arrivals / self.world_size) * self.world_size  # nobody comes twice before all came once
        pause = 0.02
        while store.add(name, 0) < everybody and time.monotonic() < end:
            time.sleep(pause)
            pause = min(1.5 * pause, 1.0)
