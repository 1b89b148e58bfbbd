"""Documents -> examples of token ids: which tokens, and where a long document is cut; in one process or several.

Worker processes import this file, so it needs nothing but NumPy and `tokenizers`.
"""

import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from electra_accel.text.writing import normalise

MANY_UNKNOWN = 0.02  # share of a text's tokens; a vocabulary that was made for such text leaves a few thousandths
_WORST, _SHOWN = 20, 2000  # documents of a batch, characters of each
_SHORTEST_REST = 6  # tokens; the shortest data.max_length allows this many between [CLS] and [SEP]


class Examples(NamedTuple):
    """What became of a batch of documents."""

    tokens: np.ndarray  # int32: ids of all examples one after another, [CLS] and [SEP] included
    lengths: np.ndarray  # int64 [examples]
    documents: int  # that gave at least one example
    unknown: int  # tokens that are [UNK]
    skipped: Counter[str]  # documents that gave none, by reason
    unknown_skipped: int  # tokens of these, all of them [UNK]
    worst: list[str]  # those with the most [UNK], their beginnings


class Encoder:
    """Turns documents into examples of at most ``max_length`` tokens, [CLS] and [SEP] included; no token is dropped.

    A document that is too long is cut into full pieces and a rest, at a word's start where one is near: full pieces fill a
    bin and rests share one, while the halves of an even cut would leave bins of ``max_length`` half empty. With
    ``join_lines`` its lines are kept whole instead: each example takes as many of them as fit, and only a line that is too
    long by itself is cut.

    Special tokens written out in a text ("[MASK]") are plain characters: they never become special ids.

    Args:
        tokenizer_json: what ``backend_tokenizer.to_str()`` gives (a string travels to any process).
        special_ids: of [CLS], [SEP], [UNK].
    """

    def __init__(self, tokenizer_json: str, special_ids: tuple[int, int, int], max_length: int, join_lines: bool):
        self._tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True
        self._cls, self._sep, self._unk = special_ids
        self._capacity = max_length - 2
        self._join_lines = join_lines
        prefix = getattr(self._tokenizer.model, "continuing_subword_prefix", None)
        self._starts_word = np.ones(self._tokenizer.get_vocab_size(), bool)
        for token, number in self._tokenizer.get_vocab().items() if prefix else ():
            self._starts_word[number] = not token.startswith(prefix)

    def __call__(self, documents: list[str]) -> Examples:
        """Examples of a batch of documents, in order."""
        texts = [normalise(text) for text in documents]
        groups = [text.split("\n") for text in texts] if self._join_lines else [[text] for text in texts]
        encodings = self._tokenizer.encode_batch_fast(list(chain.from_iterable(groups)), add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        line_lengths = np.array([len(line) for line in ids], np.int64)
        tokens = np.fromiter(chain.from_iterable(ids), np.int64, line_lengths.sum())

        first_line = np.cumsum([0] + [len(lines) for lines in groups])
        starts = np.concatenate([[0], np.cumsum(line_lengths)])[first_line]
        lengths = np.diff(starts)
        document = np.repeat(np.arange(len(groups)), lengths)  # of each token
        unknown = np.bincount(document[tokens == self._unk], minlength=len(groups))
        used = unknown < lengths
        empty, unreadable = int((lengths == 0).sum()), int((~used & (lengths > 0)).sum())

        pieces = []
        for number in np.flatnonzero(used):
            if lengths[number] <= self._capacity:
                pieces.append(lengths[number])
                continue
            lines = line_lengths[first_line[number] : first_line[number + 1]]
            ends = self._ends(tokens[starts[number] : starts[number + 1]], lines)
            pieces.extend(np.diff(ends, prepend=0))
        return Examples(
            *self._framed(tokens[used[document]], np.array(pieces, np.int64)),
            documents=int(used.sum()),
            unknown=int(unknown[used].sum()),
            skipped=+Counter({"no text": empty, "only unknown tokens": unreadable}),
            unknown_skipped=int(unknown[~used].sum()),
            worst=[texts[number][:_SHOWN] for number in np.argsort(-unknown)[:_WORST] if unknown[number]],
        )

    def _framed(self, tokens: np.ndarray, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Puts [CLS] and [SEP] around each piece; returns the longer buffer and the lengths in it."""
        lengths = pieces + 2
        ends = np.cumsum(lengths)
        framed = np.empty(lengths.sum(), np.int32)
        inside = np.ones(len(framed), bool)
        inside[ends - lengths] = inside[ends - 1] = False
        framed[ends - lengths], framed[ends - 1], framed[inside] = self._cls, self._sep, tokens
        return framed, lengths

    def _ends(self, tokens: np.ndarray, lines: np.ndarray) -> list[int]:
        """Where the pieces of a long document end; ``lines``: tokens in each of its lines."""
        line_ends = np.cumsum(lines)
        ends, start = [], 0
        while start < len(tokens):
            fitting = np.searchsorted(line_ends, start + self._capacity, side="right")  # lines that end in reach
            if fitting and line_ends[fitting - 1] > start:
                ends.append(int(line_ends[fitting - 1]))
            else:  # the next line alone is too long
                ends += self._cut(tokens, start, int(line_ends[fitting]))
            start = ends[-1]
        return ends

    def _cut(self, tokens: np.ndarray, start: int, end: int) -> list[int]:
        """Ends of the pieces of tokens[start:end]; the rest keeps at least ``_SHORTEST_REST`` tokens, for their context."""
        ends = []
        while end - start > self._capacity:
            cut = min(start + self._capacity, max(end - _SHORTEST_REST, start + 1))
            low = max(start + 1, cut - 16)
            words = np.flatnonzero(self._starts_word[tokens[low : cut + 1]])
            start = low + int(words[-1]) if len(words) else cut
            ends.append(start)
        return [*ends, end]


def encode_all(
    jobs: Iterable[tuple[Any, list[str]]], processes: int, *encoder_arguments: Any
) -> Iterator[tuple[Any, Examples]]:
    """Encodes (tag, documents) one after another, in order, in ``processes`` processes; few are in flight at any time.

    One process uses the tokenizer library's own threads. Several are started afresh, not forked, because the caller may
    have threads and a GPU; each uses one thread.
    """
    if processes == 1:
        encoder = Encoder(*encoder_arguments)
        for tag, documents in jobs:
            yield tag, encoder(documents)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start_worker, encoder_arguments) as pool:
        in_flight = deque()
        for tag, documents in jobs:
            in_flight.append((tag, pool.submit(_work, documents)))
            if len(in_flight) > 3 * processes:
                tag, result = in_flight.popleft()
                yield tag, result.result()
        for tag, result in in_flight:
            yield tag, result.result()


def _start_worker(*encoder_arguments: Any) -> None:
    global _encoder
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _encoder = Encoder(*encoder_arguments)


def _work(documents: list[str]) -> Examples:
    return _encoder(documents)
