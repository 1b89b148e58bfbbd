"""Which positions the generator is trained on, and what it reads there.

Of an example with n candidates (real tokens except [CLS], [SEP], [PAD], [MASK]) k = :func:`selected_count` are selected
without replacement, by one of the rules in ``MASK_UNITS``. Of the selected, ``mask_token_prob`` become [MASK],
``random_token_prob`` a random token, the others keep theirs (ELECTRA's code: 85%, 0, 15%; BERT: 80%, 10%, 10%). Every draw is
keyed by (seed, corpus, pass, purpose, example, position), so neither the other examples of a batch nor the process that
collates it can change it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from electra_accel.errors import UserError
from electra_accel.randomness import Purpose, bits, key, uniform

if TYPE_CHECKING:  # the options read MASK_UNITS, and --help is answered at once
    from transformers import PreTrainedTokenizerFast

_HASH_BITS = 34  # part of a run's identity: places whose hashes agree in so many bits are taken in their order


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
    numbers, which = np.unique(passes, return_inverse=True)  # one or two; a tiny corpus has more, and so has replay
    keys = np.array([key(seed, corpus, number, purpose) for number in numbers.tolist()], np.uint64)
    return bits(keys[which], examples)


class SingleTokens:
    """A rule, as all in ``MASK_UNITS``: the k candidates with the smallest keyed hashes."""

    order = "those with the lowest numbers"  # in words

    def __call__(
        self, tokens: np.ndarray, rows: np.ndarray, positions: np.ndarray, counts: np.ndarray, streams: np.ndarray
    ) -> np.ndarray:
        """Indices of the selected candidates: int64 [sum(counts)], ascending.

        Args:
            tokens, rows, positions: of each candidate its id, its example (0 … n-1) and its place in it; ascending by both.
            counts: int64 [n], how many to select in each example; exactly so many must be.
            streams: uint64 [n], of Purpose.SELECT.
        """
        order = _keyed_order(rows, positions, streams)
        return np.sort(order[within(np.bincount(rows)) < counts[rows]])


@dataclass
class WholeWords:
    """Whole words are selected (after the whole-word masking of BERT's code, 2019).

    A word is a token that does not continue one, with those that continue it. Words are taken in keyed order; one that does
    not fit into what is left of the k tokens is passed over. What no word fits into is filled by the first tokens of the
    first word that was not taken. So exactly as many tokens are selected as with single tokens, and at most one word of an
    example is broken. Long words in short texts are selected less often.

    Attributes:
        continues: bool [vocabulary], which ids go on with the word of the token before them.
    """

    continues: np.ndarray
    order = f"{SingleTokens.order}, whole words by their first token"

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerFast") -> "WholeWords":
        """By the "##" of WordPiece. UserError: the tokenizer is of another kind, which does not mark words so."""
        model = tokenizer.backend_tokenizer.model
        prefix = getattr(model, "continuing_subword_prefix", None)
        if type(model).__name__ != "WordPiece":
            raise UserError(
                f"objective.mask_unit word needs a WordPiece tokenizer, and {tokenizer.name_or_path or 'this one'} is of the "
                f"kind {type(model).__name__}: set objective.mask_unit token"
            )
        tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        return cls(np.array([token.startswith(prefix) for token in tokens]))

    def __call__(
        self, tokens: np.ndarray, rows: np.ndarray, positions: np.ndarray, counts: np.ndarray, streams: np.ndarray
    ) -> np.ndarray:
        """As of :class:`SingleTokens`."""
        begins_word = ~self.continues[tokens]
        # A long document was cut inside a word, or what is never selected stands in it.
        begins_word |= (np.diff(positions, prepend=-2) != 1) | (np.diff(rows, prepend=-1) > 0)
        first = np.flatnonzero(begins_word)
        order = _keyed_order(rows[first], positions[first], streams)
        sizes = np.diff(first, append=len(rows))
        taken = np.empty_like(sizes)
        taken[order] = _tokens_taken(sizes[order], rows[first], counts)
        return np.flatnonzero(within(sizes) < np.repeat(taken, sizes))


Rule = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
# The choices of objective.mask_unit: what makes a rule for a tokenizer. A new rule is one entry; it says its
# ``order`` in words, as SingleTokens does.
MASK_UNITS: dict[str, Callable[["PreTrainedTokenizerFast"], Rule]] = {
    "token": lambda tokenizer: SingleTokens(),
    "word": WholeWords.of,
}


@dataclass
class Masking:
    """The corruption of one objective and one tokenizer."""

    mask_prob: float  # share of the candidates that is selected
    mask_token_prob: float  # share of the selected that become [MASK]
    random_token_prob: float  # a random token; the rest keep theirs
    vocab_size: int
    mask_id: int
    never_selected: Sequence[int]  # [CLS], [SEP], [PAD], [MASK]
    special_ids: Sequence[int]  # which a random token never is
    rule: Rule = field(default_factory=SingleTokens)

    def __post_init__(self):
        self._is_candidate = np.ones(self.vocab_size, bool)
        self._is_candidate[list(self.never_selected)] = False
        self._random_ids = np.setdiff1d(np.arange(self.vocab_size), self.special_ids)

    def select(self, tokens: np.ndarray, lengths: np.ndarray, streams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Selected positions of a flat batch of n examples.

        Args:
            tokens: ids [sum(lengths)], one example after another, each from [CLS] to [SEP].
            lengths: int64 [n]; streams: uint64 [n], of Purpose.SELECT.

        Returns:
            The example (0 … n-1) of each selected position, and the position in it: int64 [k], ascending by both.
        """
        candidate = np.flatnonzero(self._is_candidate[tokens])
        rows = np.repeat(np.arange(len(lengths)), lengths)[candidate]
        positions = candidate - (np.cumsum(lengths) - lengths)[rows]
        counts = selected_count(np.bincount(rows, minlength=len(lengths)), self.mask_prob)
        chosen = self.rule(tokens[candidate], rows, positions, counts, streams)
        return rows[chosen], positions[chosen]

    def corrupt(self, tokens: np.ndarray, positions: np.ndarray, corrupt: np.ndarray, random: np.ndarray) -> np.ndarray:
        """What the generator reads at selected positions, where ``tokens`` are the original ids: int64 [k].

        Args:
            corrupt, random: uint64 [k], streams of the examples for Purpose.CORRUPT and Purpose.RANDOM_TOKEN.
        """
        choice = uniform(corrupt, positions)
        result = tokens.astype(np.int64)
        result[choice < self.mask_token_prob] = self.mask_id
        is_random = (choice >= self.mask_token_prob) & (choice < self.mask_token_prob + self.random_token_prob)
        draw = uniform(random[is_random], positions[is_random])
        result[is_random] = self._random_ids[(draw * len(self._random_ids)).astype(np.int64)]
        return result


def _keyed_order(rows: np.ndarray, positions: np.ndarray, streams: np.ndarray) -> np.ndarray:
    """Indices of the given places, example after example, those of one example by the hashes of their positions: int64 [n]."""
    number = within(np.bincount(rows))  # of the place in its example
    # One integer that sorts by example, then by hash, then (hashes of 34 bits can be equal) by position.
    position_bits = int(number.max(initial=0)).bit_length()
    if int(rows.max(initial=0)).bit_length() > 64 - _HASH_BITS - position_bits:
        raise ValueError(
            f"{rows.max() + 1} examples of up to {number.max() + 1} tokens are more than a batch may hold (30 bits for both)"
        )
    order = bits(streams[rows], positions)
    order >>= np.uint64(64 - _HASH_BITS)
    order |= rows.astype(np.uint64) << np.uint64(_HASH_BITS)
    order <<= np.uint64(position_bits)
    order |= number.astype(np.uint64)
    order.sort()
    order &= np.uint64((1 << position_bits) - 1)
    return np.arange(len(rows)) - number + order.astype(np.int64)


def _tokens_taken(sizes: np.ndarray, rows: np.ndarray, room: np.ndarray) -> np.ndarray:
    """How many of its tokens each word gives: all, none or, at most one word of an example, some. int64 [words].

    Args:
        sizes, rows: of the words, example after example, in the order in which an example takes them.
        room: tokens that each example takes in all; no more than it has.
    """
    taken = np.zeros_like(sizes)
    waiting = np.arange(len(sizes))
    while True:
        # Room only shrinks: what does not fit now never will. Of the others, those up to the first that does not fit
        # after its predecessors are what one word after another would take.
        waiting = waiting[sizes[waiting] <= room[rows[waiting]]]
        if not len(waiting):
            break
        row, size = rows[waiting], sizes[waiting]
        before = np.cumsum(size) - size
        begins_row = np.diff(row, prepend=-1) > 0
        before -= before[begins_row][np.cumsum(begins_row) - 1]
        fits = before + size <= room[row]
        taken[waiting[fits]] = size[fits]
        room = room - np.bincount(row[fits], size[fits], minlength=len(room)).astype(np.int64)
        waiting = waiting[~fits]
    passed_over = np.flatnonzero(taken == 0)
    row, which = np.unique(rows[passed_over], return_index=True)
    taken[passed_over[which]] = room[row]
    return taken
