"""The micro-batches of one process, made ahead of time by worker processes.

Every worker walks the whole plan (packing is cheap) and collates the micro-batches that fall to it; nothing is sent to
workers but the place to start from. A batch depends only on the plan, so the number of workers changes no number.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from electra_accel.batch import RTDBatch
from electra_accel.data.collate import Collator, as_batch
from electra_accel.data.plan import START, Cursor, Layout, Plan

_PREFETCH = 4  # micro-batches that each worker makes ahead


@dataclass
class Step:
    """What one process computes in one global step; the other attributes as of :class:`~electra_accel.data.plan.StepPlan`."""

    step: int
    micro_batches: list[RTDBatch]  # one per accumulation step, in order; global micro-batch a * world_size + rank
    tokens: int
    epoch: float
    cursor: Cursor


@dataclass
class StepLoader:
    """The steps of one process."""

    plan: Plan  # the same on every process
    layout: Layout
    rank: int  # of this process
    collator: Collator  # of as many rows as the layout
    num_workers: int = 0  # worker processes; 0 collates in this one
    pin_memory: bool = False  # for asynchronous copies to a GPU

    def steps(self, cursor: Cursor = START, step: int = 0) -> Iterator[Step]:
        """The steps from a place on, the first with the number ``step``; ends where the plan ends.

        Workers end with the iterator: when it is exhausted, closed or deleted, or when one of them fails.
        """
        micro_batches: list[RTDBatch] = []
        loader = DataLoader(
            _MicroBatches(self, cursor, step),
            batch_size=None,
            collate_fn=lambda item: item,  # arrays: tensors would need shared memory, which containers have little of
            num_workers=self.num_workers,
            prefetch_factor=_PREFETCH if self.num_workers else None,
            multiprocessing_context="fork" if self.num_workers else None,  # workers share the mapped tokens
            worker_init_fn=_leave_process_group,
        )
        made = iter(loader)
        try:
            for about, arrays in made:
                batch = as_batch(arrays)
                micro_batches.append(batch.pin_memory() if self.pin_memory else batch)
                if len(micro_batches) == self.layout.accumulation:
                    yield Step(micro_batches=micro_batches, **about)
                    micro_batches = []
        finally:
            if self.num_workers:
                # Not left to garbage collection: after an error that comes late, and then waits 5 s for every worker.
                made._shutdown_workers()


class _MicroBatches(IterableDataset):
    """Micro-batch i of this process comes from worker i % workers, the order in which DataLoader asks them."""

    def __init__(self, loader: StepLoader, cursor: Cursor, step: int):
        self.loader = loader
        self.cursor = cursor
        self.step = step

    def __iter__(self):
        worker = get_worker_info()
        worker_id, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        count = 0
        for plan in self.loader.plan.steps(self.cursor, self.step):
            about = plan._asdict()
            del about["bins"]
            for bins in self.loader.layout.micro_batches(plan.bins, self.loader.rank):
                if count % workers == worker_id:
                    yield about, self.loader.collator.arrays(bins)
                count += 1


def _leave_process_group(worker_id: int) -> None:
    """Signals to the run's process group (Ctrl-C, a scheduler's warning) are for the training process alone to judge.

    A worker whose parent has gone ends by itself within seconds.
    """
    os.setpgid(0, 0)
