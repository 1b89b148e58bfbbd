"""Which examples stand in which bin of which global step: a pure function of (seed, corpus, settings).

The examples of a pass stand in keyed random order (``randomness.permute``, which needs no table). That order is cut
into windows of 65,536 examples; a window is packed into bins and its bins are put in keyed random order; the bins of
one window after another fill the steps. A window never crosses passes: every example appears exactly once per pass.
Replay examples (replay.py) stand among them, at places that are shuffled together with the examples.

A place in the plan is a small :class:`Cursor`, kept in checkpoints. Going on from it packs one window again; nothing
costs time or memory in proportion to the corpus.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import NamedTuple

import numpy as np

from electra_accel.data.packing import BinLimits, lengths_like, pack
from electra_accel.data.replay import Replay
from electra_accel.errors import UserError
from electra_accel.randomness import Purpose, bits, key, permute

WINDOW = 65_536  # examples; part of a run's identity


@dataclass(frozen=True)
class Cursor:
    """A place in the plan: what has been emitted is everything before it."""

    pass_number: int = 0  # pass over the corpus
    window: int = 0  # of that pass
    bins: int = 0  # of the window already emitted
    carry: tuple[tuple[int, int], ...] = ()  # (pass, example), as in Bins: what earlier windows left over, in order

    def to_json(self) -> dict:
        """Plain numbers and lists, for the manifest of a checkpoint."""
        return {**asdict(self), "carry": [list(pair) for pair in self.carry]}

    @classmethod
    def from_json(cls, saved: dict) -> "Cursor":
        """The inverse of :meth:`to_json`."""
        return cls(**{**saved, "carry": tuple((int(p), int(e)) for p, e in saved["carry"])})


START = Cursor()


@dataclass(frozen=True)
class Bins:
    """A list of bins in flat form. ``bins[2:5]`` is a list of three of them; ``len(bins)`` counts bins."""

    examples: np.ndarray  # int64 [n], numbers in the store, bin after bin
    passes: np.ndarray  # int64 [n], in which each of them appears; of a replay example, the cycle over the replay text
    offsets: np.ndarray  # int64 [bins + 1], where each bin begins in the two arrays; the first need not be 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, which: slice) -> "Bins":
        first, last, _ = which.indices(len(self))
        offsets = self.offsets[first : max(first, last) + 1]
        inside = slice(offsets[0], offsets[-1])
        return Bins(self.examples[inside], self.passes[inside], offsets - offsets[0])

    @staticmethod
    def concatenate(parts: "list[Bins]") -> "Bins":
        """One list after another."""
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        return Bins(
            np.concatenate([part.examples for part in parts]),
            np.concatenate([part.passes for part in parts]),
            np.concatenate([[0], np.cumsum(sizes)]),
        )


class StepPlan(NamedTuple):
    """One global step, the same on every process."""

    step: int  # its number, from 0
    bins: Bins  # ``bins_per_step`` of them, fewer only in the last step of a plan that ends
    tokens: int  # real tokens in them, the denominator of the discriminator's loss
    epoch: float  # passes over the corpus finished with this step (2.5: half of the third)
    cursor: Cursor  # the place after this step


@dataclass
class Plan:
    """The sequence of global steps over one corpus."""

    examples: int  # that each pass holds once, at least 1
    lengths: Callable[[np.ndarray], np.ndarray]  # tokens of the given examples (``TokenStore.lengths``)
    slots: Callable[[np.ndarray, np.ndarray], np.ndarray]  # (examples, lengths) -> most positions selected in each
    limits: BinLimits
    bins_per_step: int
    seed: int  # of the run
    corpus: int  # names the content (``TokenStore.corpus``)
    passes: int | None = None  # the plan ends after so many; None: it never ends
    replay: Replay | None = None  # what each pass holds besides, with the numbers ``examples``, ``examples`` + 1, …

    def __post_init__(self):
        if self.examples < 1:
            raise ValueError("a plan needs at least one example")
        self.per_pass: int = self.examples + (self.replay.per_pass if self.replay else 0)  # with those of replay

    def steps(self, cursor: Cursor = START, step: int = 0) -> Iterator[StepPlan]:
        """The steps from a place on; the first of them gets the number ``step``."""
        parts: list[Bins] = []
        missing = self.bins_per_step
        for here, bins in self.windows(cursor):
            while here.bins < len(bins):
                parts.append(bins[here.bins : here.bins + missing])
                here = replace(here, bins=here.bins + len(parts[-1]))
                missing -= len(parts[-1])
                if missing == 0:
                    # Examples of passes and windows that are finished, less those that they left for this one.
                    before = here.pass_number * self.per_pass + here.window * WINDOW - len(here.carry)
                    yield self._step(step, parts, (before + int(bins.offsets[here.bins])) / self.per_pass, here)
                    step, parts, missing = step + 1, [], self.bins_per_step
        if parts:
            yield self._step(step, parts, float(self.passes), here)

    def windows(self, cursor: Cursor = START) -> Iterator[tuple[Cursor, Bins]]:
        """From the window of ``cursor`` on: the place, with how many of its bins were emitted, and all its bins."""
        while self.passes is None or cursor.pass_number < self.passes:
            is_last_of_pass = (cursor.window + 1) * WINDOW >= self.per_pass
            next_pass = cursor.pass_number + is_last_of_pass
            bins, carry = self._pack_window(cursor, is_end=next_pass == self.passes)
            yield cursor, bins
            cursor = Cursor(next_pass, 0 if is_last_of_pass else cursor.window + 1, 0, carry)

    def _step(self, step: int, parts: list[Bins], epoch: float, cursor: Cursor) -> StepPlan:
        bins = Bins.concatenate(parts)
        return StepPlan(step, bins, int(self.lengths(bins.examples).sum()), epoch, cursor)

    def _window(self, number: int, pass_number: int) -> tuple[np.ndarray, np.ndarray]:
        """Pass and number of each example of a window of a pass, in keyed order."""
        places = np.arange(number * WINDOW, min((number + 1) * WINDOW, self.per_pass))
        examples = permute(places, self.per_pass, key(self.seed, self.corpus, pass_number, Purpose.ORDER))
        passes = np.full(len(places), pass_number)
        if self.replay:
            is_replay = examples >= self.examples
            replayed = pass_number * self.replay.per_pass + examples[is_replay] - self.examples
            passes[is_replay], examples[is_replay] = self.replay.at(replayed, self.seed, self.corpus)
            examples[is_replay] += self.examples
        return passes, examples

    def _pack_window(self, cursor: Cursor, is_end: bool) -> tuple[Bins, tuple[tuple[int, int], ...]]:
        """A window's bins in their final order, and what it leaves to the next (nothing at the end of the plan)."""
        carried = np.array(cursor.carry, np.int64).reshape(-1, 2)
        passes, examples = self._window(cursor.window, cursor.pass_number)
        passes, examples = np.append(carried[:, 0], passes), np.append(carried[:, 1], examples)
        lengths = self.lengths(examples)
        slots = self.slots(examples, lengths)

        bin_of = pack(lengths, slots, self.limits)
        sizes = np.bincount(bin_of)
        # A bin that is less than half full by every limit waits for the next window: at most one, as two would be one.
        tokens_used = np.bincount(bin_of, lengths) / self.limits.tokens
        slots_used = np.bincount(bin_of, slots) / self.limits.slots
        fullest = np.maximum(np.maximum(tokens_used, slots_used), sizes / self.limits.segments)
        waits = (fullest < 0.5) & (not is_end)
        left = np.flatnonzero(waits[bin_of])
        carry = tuple(zip(passes[left].tolist(), examples[left].tolist(), strict=True))

        stream = key(self.seed, self.corpus, cursor.pass_number, Purpose.BIN_ORDER, cursor.window)
        order = np.argsort(bits(stream, np.arange(len(sizes))), kind="stable")
        order = order[~waits[order]]
        rank = np.full(len(sizes), len(sizes))  # waiting bins go last and are cut off
        rank[order] = np.arange(len(order))
        by_bin = np.argsort(rank[bin_of], kind="stable")[: len(bin_of) - len(left)]
        offsets = np.concatenate([[0], np.cumsum(sizes[order])])
        return Bins(examples[by_bin], passes[by_bin], offsets), carry


def steps_in_passes(
    histogram: np.ndarray,
    slots_of_length: Callable[[np.ndarray], np.ndarray],
    limits: BinLimits,
    bins_per_step: int,
    passes: float,
) -> int:
    """Steps that ``passes`` passes take, rounded up: within 1% or one step on real data.

    Two windows of a made-up corpus with the same histogram of lengths are packed, at most.
    """
    examples = int(np.sum(histogram))
    lengths = lengths_like(histogram)
    plan = Plan(examples, lengths, lambda _, n: slots_of_length(n), limits, bins_per_step, seed=0, corpus=0)
    wanted = examples * passes
    done = bins_done = 0
    for _, bins in islice(plan.windows(), 64):  # a corpus of a few examples has windows of a few examples
        done += len(bins.examples)
        bins_done += len(bins)
        if done >= min(wanted, 2 * WINDOW):
            break
    return max(1, math.ceil(bins_done * wanted / max(1, done) / bins_per_step))


@dataclass(frozen=True)
class Layout:
    """How the bins of a global step lie on the hardware; nothing about the data depends on it.

    Bin b of a step stands in row b % rows of global micro-batch g = b // rows; global micro-batch
    g = a * world_size + p is the a-th of process p. Rows beyond the last bin are empty bins with zero weight.
    """

    world_size: int
    rows: int  # bins in a micro-batch
    accumulation: int  # micro-batches per process and step
    empty_bins: int  # computed in vain in every step

    @classmethod
    def derive(cls, bins_per_step: int, bin_tokens: int, micro_batch_tokens: int, world_size: int) -> "Layout":
        """The fewest micro-batches of at most ``micro_batch_tokens`` slots per process, and the fewest rows in them.

        Raises:
            UserError: ``micro_batch_tokens`` holds no bin.
        """
        most_rows = micro_batch_tokens // bin_tokens
        if most_rows < 1:
            raise UserError(
                f"train.micro_batch_tokens {micro_batch_tokens} is less than one bin: "
                f"set it to train.bin_tokens ({bin_tokens}) or more"
            )
        accumulation = math.ceil(bins_per_step / (world_size * most_rows))
        rows = math.ceil(bins_per_step / (world_size * accumulation))
        return cls(world_size, rows, accumulation, world_size * accumulation * rows - bins_per_step)

    def slots(self, bin_tokens: int) -> int:
        """Token slots that a global step computes on all processes, those of empty bins included."""
        return self.world_size * self.accumulation * self.rows * bin_tokens

    def micro_batches(self, bins: Bins, rank: int) -> list[Bins]:
        """The bins of each micro-batch of one process; those short of ``rows`` bins are filled up when collated."""
        micro_batches = range(rank, self.accumulation * self.world_size, self.world_size)
        return [bins[g * self.rows : (g + 1) * self.rows] for g in micro_batches]
