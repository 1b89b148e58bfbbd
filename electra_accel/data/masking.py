"""Which positions the generator is trained on, and what it reads there.

Of an example with n candidates (real tokens except [CLS], [SEP], [PAD], [MASK]) k = :func:`selected_count` are selected
without replacement: those with the k smallest keyed hashes. Of the selected, ``mask_token_prob`` become [MASK],
``random_token_prob`` a random token, the others keep theirs (ELECTRA, Clark et al. 2020, masks 85% and keeps 15% as its
code does; BERT 80/10/10). Every draw is keyed by (seed, corpus, pass, purpose, example, position), so neither the other
examples of a batch nor the process that collates it can change it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from electra_accel.randomness import Purpose, bits, key, uniform

_POSITION_BITS = 10  # store.MAX_EXAMPLE_TOKENS < 2**10
_ROW_BITS = 20  # examples in a micro-batch
_POSITION_MASK = np.uint64((1 << _POSITION_BITS) - 1)


def selected_count(candidates: np.ndarray, mask_prob: float) -> np.ndarray:
    """k = max(1, mask_prob * n rounded half up), and 0 where n is 0: int64, same shape."""
    candidates = np.asarray(candidates)
    rounded = np.floor(mask_prob * candidates + 0.5).astype(np.int64)
    return np.minimum(np.maximum(rounded, 1), candidates)


def slots_of_length(lengths: np.ndarray, mask_prob: float) -> np.ndarray:
    """Most positions selected in an example of so many tokens, [CLS] and [SEP] included: int64, same shape."""
    return selected_count(np.maximum(lengths - 2, 0), mask_prob)


def within(counts: np.ndarray) -> np.ndarray:
    """0, 1, 2, … within each of consecutive groups of the given sizes: int64 [sum(counts)]."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def example_streams(seed: int, corpus: int, passes: np.ndarray, examples: np.ndarray, purpose: Purpose) -> np.ndarray:
    """The stream of each example for one purpose: uint64 [n]; ``bits(stream, position)`` is the draw at a position."""
    if not len(passes):
        return np.zeros(0, np.uint64)
    first, last = int(passes.min()), int(passes.max())  # a batch spans one or two passes, more only in a tiny corpus
    keys = np.array([key(seed, corpus, number, purpose) for number in range(first, last + 1)], np.uint64)
    return bits(keys[passes - first], examples)


@dataclass
class Masking:
    """The corruption of one objective and one tokenizer.

    Attributes:
        mask_prob: share of the candidates that is selected.
        mask_token_prob, random_token_prob: what becomes of the selected; the rest keep their token.
        vocab_size: of the tokenizer.
        mask_id: of [MASK].
        never_selected: ids of [CLS], [SEP], [PAD], [MASK].
        special_ids: ids that a random token never is.
    """

    mask_prob: float
    mask_token_prob: float
    random_token_prob: float
    vocab_size: int
    mask_id: int
    never_selected: Sequence[int]
    special_ids: Sequence[int]
    _is_candidate: np.ndarray = field(init=False, repr=False)  # bool [vocab_size]
    _random_ids: np.ndarray = field(init=False, repr=False)

    def __post_init__(self):
        self._is_candidate = np.ones(self.vocab_size, bool)
        self._is_candidate[list(self.never_selected)] = False
        self._random_ids = np.setdiff1d(np.arange(self.vocab_size), self.special_ids)

    def select(self, tokens: np.ndarray, lengths: np.ndarray, streams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Selected positions of a flat batch of n examples.

        Args:
            tokens: ids [sum(lengths)], one example after another.
            lengths: int64 [n].
            streams: uint64 [n], of Purpose.SELECT.

        Returns:
            rows: int64 [k], the example (0 … n-1) of each selected position, ascending.
            positions: int64 [k], the position within that example, ascending within an example.
        """
        if len(lengths) > 1 << _ROW_BITS or (len(lengths) and lengths.max() > 1 << _POSITION_BITS):
            raise ValueError("more examples, or longer ones, than a batch may hold")
        candidate = np.flatnonzero(self._is_candidate[tokens])
        rows = np.repeat(np.arange(len(lengths)), lengths)[candidate]
        positions = candidate - (np.cumsum(lengths) - lengths)[rows]
        # One integer that sorts by example, then by hash, then (hashes of 34 bits can be equal) by position.
        order = bits(streams[rows], positions)
        order >>= np.uint64(_ROW_BITS + _POSITION_BITS)
        order <<= np.uint64(_POSITION_BITS)
        order |= positions.astype(np.uint64)
        order |= rows.astype(np.uint64) << np.uint64(64 - _ROW_BITS)
        order.sort()

        candidates = np.bincount(rows, minlength=len(lengths))
        counts = selected_count(candidates, self.mask_prob)
        rows = np.repeat(np.arange(len(lengths)), counts)
        chosen = order[(np.cumsum(candidates) - candidates)[rows] + within(counts)] & _POSITION_MASK
        both = (rows << _POSITION_BITS) | chosen.astype(np.int64)
        both.sort()
        return rows, both & int(_POSITION_MASK)

    def corrupt(self, tokens: np.ndarray, positions: np.ndarray, corrupt: np.ndarray, random: np.ndarray) -> np.ndarray:
        """What the generator reads at selected positions: int64 [k].

        Args:
            tokens: ids [k], the originals.
            positions: int64 [k], within the example.
            corrupt, random: uint64 [k], streams of the examples for Purpose.CORRUPT and Purpose.RANDOM_TOKEN.
        """
        choice = uniform(corrupt, positions)
        result = tokens.astype(np.int64)
        result[choice < self.mask_token_prob] = self.mask_id
        is_random = (choice >= self.mask_token_prob) & (choice < self.mask_token_prob + self.random_token_prob)
        draw = uniform(random[is_random], positions[is_random])
        result[is_random] = self._random_ids[(draw * len(self._random_ids)).astype(np.int64)]
        return result
