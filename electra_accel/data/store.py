"""The prepared tokens on disk: one flat memory-mapped buffer and where each example starts in it.

``tokens.bin``  uint16 (uint32 where the vocabulary does not fit), the examples one after another, [CLS] … [SEP] included
``offsets.bin`` uint16, start of each example within its block of 16 examples, plus one entry for the end
``blocks.bin``  int64, start of each block in ``tokens.bin``

Two bytes an example and eight bytes a block, instead of eight bytes an example: with 20-token reviews the offsets are 6%
of the buffer. Block-relative offsets fit in 16 bits because an example has at most ``MAX_EXAMPLE_TOKENS`` tokens.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from electra_accel.randomness import key

BLOCK = 16
MAX_EXAMPLE_TOKENS = 4096  # the last example of a block begins at 15 * 4096 = 61440 at the latest


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of uint16 and uint32 that holds every id."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


class TokenStore:
    """Read access to the examples of one prepared split; memory-mapped, so that processes of one host share the pages.

    Args:
        folder: as written by :class:`TokenWriter`.
        corpus: names the content (from the manifest's fingerprint); every random draw about these examples is keyed by it.

    Raises:
        OSError, ValueError: its files cannot be read, or do not belong together.
    """

    def __init__(self, folder: Path, vocab_size: int, corpus: int):
        self._arguments = (folder, vocab_size, corpus)
        self.corpus = corpus
        self.tokens = _map(folder / "tokens.bin", token_dtype(vocab_size))
        self._offsets = _map(folder / "offsets.bin", np.dtype(np.uint16))
        self._blocks = _map(folder / "blocks.bin", np.dtype(np.int64))
        if len(self._blocks) != -(-len(self._offsets) // BLOCK):
            raise ValueError("blocks.bin and offsets.bin do not belong together")

    def __reduce__(self):
        return TokenStore, self._arguments  # pickled as a path: a pickled memory map would carry all its bytes

    def __len__(self) -> int:
        return max(0, len(self._offsets) - 1)

    def starts(self, examples: np.ndarray) -> np.ndarray:
        """Position of the first token of each example in the buffer: int64, same shape. ``len(self)`` gives the end."""
        return self._blocks[examples // BLOCK] + self._offsets[examples]

    def lengths(self, examples: np.ndarray) -> np.ndarray:
        """Number of tokens of each example, [CLS] and [SEP] included: int64, same shape."""
        return self.starts(examples + 1) - self.starts(examples)

    def read(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The examples' tokens one after another (1-D, token dtype) and their lengths (int64 [n])."""
        starts, lengths = self.starts(examples), self.lengths(examples)
        ends = np.cumsum(lengths)
        position = np.arange(ends[-1] if len(ends) else 0)
        position += np.repeat(starts - (ends - lengths), lengths)
        return self.tokens[position], lengths


class MixedStore:
    """The training examples and after them the replay examples, under one numbering; reads as a :class:`TokenStore` does."""

    def __init__(self, train: TokenStore, replay: TokenStore):
        self.train, self.replay = train, replay
        self.corpus = key(train.corpus, replay.corpus)  # names the content of both

    def __len__(self) -> int:
        return len(self.train) + len(self.replay)

    def lengths(self, examples: np.ndarray) -> np.ndarray:
        result = np.empty(examples.shape, np.int64)
        for store, here, numbers in self._parts(examples):
            result[here] = store.lengths(numbers)
        return result

    def read(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lengths = self.lengths(examples)
        tokens = np.empty(lengths.sum(), self.train.tokens.dtype)
        for store, here, numbers in self._parts(examples):
            tokens[np.repeat(here, lengths)] = store.read(numbers)[0]
        return tokens, lengths

    def _parts(self, examples: np.ndarray) -> Iterator[tuple[TokenStore, np.ndarray, np.ndarray]]:
        """Each store, which of the examples it has (bool), and their numbers in it."""
        is_replay = examples >= len(self.train)
        yield self.train, ~is_replay, examples[~is_replay]
        yield self.replay, is_replay, examples[is_replay] - len(self.train)


class TokenWriter:
    """Appends batches of examples to the three files of a store; ``close`` writes the end offset."""

    def __init__(self, folder: Path, vocab_size: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.dtype = token_dtype(vocab_size)
        self.total = self.count = self._block_start = 0  # tokens and examples written so far
        self._files = {name: open(folder / f"{name}.bin", "wb") for name in ("tokens", "offsets", "blocks")}

    def append(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Args: tokens: flat ids of a batch of examples; lengths: tokens per example, each in [1, MAX_EXAMPLE_TOKENS]."""
        if len(lengths) and not 0 < lengths.min() <= lengths.max() <= MAX_EXAMPLE_TOKENS:
            raise ValueError(f"an example must have 1 to {MAX_EXAMPLE_TOKENS} tokens")
        starts = self.total + np.cumsum(lengths) - lengths
        self._files["tokens"].write(np.ascontiguousarray(tokens, self.dtype).tobytes())
        self._write_offsets(starts)
        self.total += int(lengths.sum())

    def _write_offsets(self, starts: np.ndarray) -> None:
        numbers = self.count + np.arange(len(starts))
        block_starts = starts[numbers % BLOCK == 0]
        in_block = np.concatenate([[self._block_start], block_starts])[np.cumsum(numbers % BLOCK == 0)]
        self._files["blocks"].write(block_starts.astype(np.int64).tobytes())
        self._files["offsets"].write((starts - in_block).astype(np.uint16).tobytes())
        self.count += len(starts)
        if len(block_starts):
            self._block_start = int(block_starts[-1])

    def close(self) -> None:
        self._write_offsets(np.array([self.total]))  # the entry that gives the last example its length
        self.count -= 1
        for file in self._files.values():
            file.close()


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    """Read-only memory map; an empty file (which mmap refuses) gives an empty array."""
    if path.stat().st_size == 0:
        return np.empty(0, dtype)
    return np.memmap(path, dtype, mode="r")
