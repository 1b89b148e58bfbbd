"""Keyed, stateless random numbers: every draw is a pure function of integers, never of what was drawn before.

A *key* names a stream: ``key(seed, corpus, pass, Purpose.SELECT)``. A stream is read at any *counter* (an example, a
position), in any order, by any process, and always gives the same number. Nothing here keeps state, which is what
makes resume exact and data order independent of the number of processes.

The mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), applied once per word.
All arithmetic is modulo 2**64 on uint64 arrays.
"""

import math
from enum import IntEnum

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15
_MASK64 = (1 << 64) - 1
_FEISTEL_ROUNDS = 6


class Purpose(IntEnum):
    """What a stream is used for; two purposes never share numbers. Values are part of a run's identity: append only."""

    ORDER = 1  # order of the examples in a pass
    BIN_ORDER = 2  # order of the packed bins in a window
    SELECT = 3  # which positions the generator is trained on
    CORRUPT = 4  # [MASK], keep or random token at a selected position
    RANDOM_TOKEN = 5  # the random token itself
    REPLACE = 6  # the number that picks the generator's sample
    DROPOUT = 7  # seed of a micro-step
    INITIALISE = 8  # initial weights
    SPLIT = 9  # which documents are held out
    SHOW = 10  # which held-out sentences are shown beside the fixed ones
    REPLAY = 11  # order of the replay examples in a cycle


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser on a uint64 array, in place; returns the same array."""
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def _mix_int(x: int) -> int:
    """The same function on one Python integer."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    return x ^ (x >> 31)


def key(*parts: int) -> int:
    """Key of a stream from any number of integers (only their low 64 bits count); order matters."""
    state = 0
    for part in parts:
        state = _mix_int((state + _GOLDEN + _mix_int((int(part) + _GOLDEN) & _MASK64)) & _MASK64)
    return state


def bits(stream: int | np.ndarray, counter: np.ndarray) -> np.ndarray:
    """64 random bits per counter.

    Args:
        stream: one key, or an array of keys (uint64) that broadcasts against ``counter``: ``bits(bits(k, example),
            position)`` gives every position of every example a stream of its own.
        counter: non-negative integers.

    Returns:
        uint64 array of the broadcast shape.
    """
    state = np.asarray(counter).astype(np.uint64)  # astype copies: the caller's array is never changed
    with np.errstate(over="ignore"):
        state += np.uint64(1)
        state *= np.uint64(_GOLDEN)
        state = state + (np.uint64(stream) if isinstance(stream, int) else stream)
        return _mix(np.atleast_1d(state)).reshape(state.shape)


def uniform(stream: int | np.ndarray, counter: np.ndarray) -> np.ndarray:
    """Uniform float64 in [0, 1) with 53 random bits, arguments as in :func:`bits`."""
    return (bits(stream, counter) >> np.uint64(11)) * 2.0**-53


def normal(stream: int, size: int) -> np.ndarray:
    """``size`` standard normal float64 numbers (Box-Muller) of one stream, independent of NumPy's and torch's generators."""
    pairs = np.arange((size + 1) // 2, dtype=np.uint64)
    radius = np.sqrt(-2.0 * np.log1p(-uniform(stream, 2 * pairs)))
    angle = (2.0 * math.pi) * uniform(stream, 2 * pairs + 1)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]


def permute(index: np.ndarray, size: int, stream: int) -> np.ndarray:
    """Where a keyed permutation of ``range(size)`` sends ``index``: no table, O(1) memory per index.

    A Feistel network over the smallest even-or-odd number of bits that holds ``size``, with cycle walking (numbers
    outside the range are sent on until they fall inside: at most half of the domain lies outside).

    Args:
        index: int64 array of numbers in [0, size).

    Returns:
        int64 array of the same shape; as ``index`` runs over range(size), the results are exactly range(size).
    """
    width = max(2, int(size - 1).bit_length())
    low_bits = width // 2
    high_bits = width - low_bits

    def walk(x: np.ndarray) -> np.ndarray:
        high, low = x >> np.uint64(low_bits), x & np.uint64((1 << low_bits) - 1)
        for round_ in range(_FEISTEL_ROUNDS):
            if round_ % 2 == 0:
                high = high ^ (bits(key(stream, round_), low) >> np.uint64(64 - high_bits))
            else:
                low = low ^ (bits(key(stream, round_), high) >> np.uint64(64 - low_bits))
        return (high << np.uint64(low_bits)) | low

    result = walk(np.asarray(index).astype(np.uint64))
    outside = np.flatnonzero(result >= size)
    while outside.size:
        result[outside] = walk(result[outside])
        outside = outside[result[outside] >= size]
    return result.astype(np.int64)


def torch_seed(*parts: int) -> int:
    """A seed for ``torch.manual_seed`` (63 bits) from the same parts as :func:`key`."""
    return key(*parts) >> 1
