"""Whole examples into bins of a fixed size, under three limits: tokens, selected slots, segments.

Packing is shuffled best-fit: examples come in keyed random order, each goes into the fullest bin that still takes it.
Sorting by length first would pack no better here and would put examples of one length together.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from electra_accel.randomness import permute

_SAMPLE = 16_384  # examples packed to try out a limit: about 20 ms a trial
_LOSS = 0.002  # share of the bins that a limit on slots or on segments may cost


@dataclass(frozen=True)
class BinLimits:
    """What one bin holds at most. Part of a run's identity: chosen from data and objective, never from hardware."""

    tokens: int  # token slots of a row, T in RTDBatch
    slots: int  # selected positions, S
    segments: int  # examples, G


def pack(lengths: np.ndarray, slots: np.ndarray, limits: BinLimits) -> np.ndarray:
    """Best-fit in the given order: the bin of each example, numbered from 0 as they were opened, int64 [n].

    Args:
        lengths, slots: int64 [n], tokens of each example, at least 1, and positions selected in it at most.

    Raises:
        ValueError: an example that does not fit into an empty bin.
    """
    if not len(lengths):
        return np.zeros(0, np.int64)
    if lengths.max() > limits.tokens or slots.max() > limits.slots or limits.segments < 1:
        raise ValueError(f"an example of {lengths.max()} tokens and {slots.max()} slots does not fit into {limits}")
    # A bin's room is the length of the longest example that it may still take: its free tokens, or less where its free
    # slots are fewer than such an example needs. Where slots depend on length alone, room says all there is to know.
    longest = np.zeros(limits.slots + 1, np.int64)
    np.maximum.at(longest, slots, lengths)
    longest = np.maximum.accumulate(longest).tolist()
    shortest = int(lengths.min())

    bins_with_room: list[list[int]] = [[] for _ in range(limits.tokens + 1)]
    rooms = 0  # bit r is set where bins_with_room[r] is not empty
    free_tokens: list[int] = []
    free_slots: list[int] = []
    free_segments: list[int] = []
    bin_of: list[int] = []
    for length, need in zip(lengths.tolist(), slots.tolist(), strict=True):
        large_enough = rooms >> length
        while large_enough:
            room = length + (large_enough & -large_enough).bit_length() - 1  # the lowest set bit: the fullest bin
            stack = bins_with_room[room]
            if free_slots[stack[-1]] >= need:
                chosen = stack.pop()
                if not stack:
                    rooms ^= 1 << room
                break
            large_enough &= large_enough - 1
        else:
            chosen = len(free_tokens)
            free_tokens.append(limits.tokens)
            free_slots.append(limits.slots)
            free_segments.append(limits.segments)
        bin_of.append(chosen)
        free_tokens[chosen] -= length
        free_slots[chosen] -= need
        free_segments[chosen] -= 1
        room = min(free_tokens[chosen], longest[free_slots[chosen]])
        if room >= shortest and free_segments[chosen]:
            bins_with_room[room].append(chosen)
            rooms |= 1 << room
    return np.array(bin_of, np.int64)


def lengths_like(histogram: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Lengths of a made-up corpus with exactly this histogram (``histogram[length]`` examples, the shortest first)."""
    ends = np.cumsum(histogram)
    return lambda examples: np.searchsorted(ends, examples, side="right")


def choose_limits(
    histogram: np.ndarray, bin_tokens: int, slots_of_length: Callable[[np.ndarray], np.ndarray]
) -> BinLimits:
    """The fewest slots and segments per bin that cost hardly any token fill: each of the two at most 0.2% more bins.

    Found by packing a sample. Slots are what the generator's output layer computes on, used or not, so there are as few
    as possible; segments are only table entries, so twice as many as necessary. ValueError: an example longer than a bin.

    Args:
        histogram: int [longest + 1], number of examples of each length.
        slots_of_length: most slots that an example of a given length needs, vectorised.
    """
    lengths_of = lengths_like(histogram)
    total = int(np.sum(histogram))
    quantiles = permute(np.arange(_SAMPLE), _SAMPLE, stream=0) * total // _SAMPLE  # in random order
    lengths = lengths_of(quantiles)
    present = np.flatnonzero(histogram)
    most_slots = int(slots_of_length(present).max())

    def bins(slots: int, segments: int) -> int:
        return int(pack(lengths, slots_of_length(lengths), BinLimits(bin_tokens, slots, segments)).max()) + 1

    def smallest(lowest: int, highest: int, count: Callable[[int], int], allowed: float) -> int:
        while lowest < highest:
            middle = (lowest + highest) // 2
            lowest, highest = (lowest, middle) if count(middle) <= allowed else (middle + 1, highest)
        return lowest

    best = bins(bin_tokens, bin_tokens)
    slots = smallest(max(1, most_slots), bin_tokens, lambda slots: bins(slots, bin_tokens), best * (1 + _LOSS))
    segments = smallest(1, bin_tokens, lambda segments: bins(slots, segments), best * (1 + 2 * _LOSS))
    return BinLimits(bin_tokens, slots, min(2 * segments, bin_tokens))
