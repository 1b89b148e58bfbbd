"""Documents -> examples of token ids: which side of the held-out split, which tokens, where a long document is cut.

Worker processes import this file alone, so it needs nothing but NumPy and `tokenizers`.
"""

import hashlib
import unicodedata
from collections import Counter
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from electra_accel.randomness import Purpose, key, uniform

_SPLIT = key(Purpose.SPLIT)


def normalise(text: str) -> str:
    """Composed Unicode (NFC): macOS writes Hangul as single letters, which no vocabulary holds."""
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def text_hashes(documents: list[str]) -> np.ndarray:
    """uint64 [n]: equal for documents that differ in case, white space or Unicode composition only."""
    digests = [
        hashlib.blake2b(" ".join(normalise(text).casefold().split()).encode(), digest_size=8).digest() for text in documents
    ]
    return np.frombuffer(b"".join(digests), np.uint64)


def held_out(hashes: np.ndarray, fraction: float) -> np.ndarray:
    """bool [n]: whether a document with this hash is held out. Depends on its text alone, so duplicates stay together."""
    return uniform(_SPLIT, hashes) < fraction


@dataclass
class Examples:
    """What became of a batch of documents."""

    tokens: np.ndarray  # ids of all examples one after another, [CLS] and [SEP] included
    lengths: np.ndarray  # int64 [examples]
    documents: int  # that gave at least one example
    unknown: int  # tokens that are [UNK]
    skipped: Counter[str]  # documents that gave none, by reason


class Encoder:
    """Turns documents into examples of at most ``max_length`` tokens, [CLS] and [SEP] included; no token is dropped.

    A document that is too long is cut into pieces of nearly equal length, at a word's start where one is near. With ``join_lines``
    the lines of a document are kept whole instead: each example takes as many of them as fit, and only a line that is too
    long by itself is cut.

    Special tokens written out in a text ("[MASK]") are plain characters: they never become special ids.

    Args:
        tokenizer_json: the fast tokenizer, as ``backend_tokenizer.to_str()`` gives it (a string travels to any process).
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
        encodings = self._tokenizer.encode_batch_fast([line for lines in groups for line in lines], add_special_tokens=False)
        ids = [np.array(encoding.ids, np.int64) for encoding in encodings]
        skipped: Counter[str] = Counter()
        pieces: list[np.ndarray] = []
        position = used = unknown = 0
        for lines in groups:
            document = ids[position : position + len(lines)]
            position += len(lines)
            tokens = np.concatenate(document)
            count = int((tokens == self._unk).sum())
            if not len(tokens):
                skipped["no text"] += 1
            elif count == len(tokens):
                skipped["only unknown tokens"] += 1
            else:
                ends = self._line_ends(document, tokens) if len(lines) > 1 else self._even_ends(tokens, 0, len(tokens))
                pieces.extend(np.split(tokens, ends[:-1]))
                used += 1
                unknown += count
        lengths = np.array([len(piece) + 2 for piece in pieces], np.int64)
        flat = np.empty(lengths.sum(), np.int64)
        ends = np.cumsum(lengths)
        inside = np.ones(len(flat), bool)
        inside[ends - lengths] = inside[ends - 1] = False
        flat[ends - lengths], flat[ends - 1] = self._cls, self._sep
        if pieces:
            flat[inside] = np.concatenate(pieces)
        return Examples(flat, lengths, used, unknown, skipped)

    def _even_ends(self, tokens: np.ndarray, start: int, end: int) -> list[int]:
        """Where the pieces of tokens[start:end] end: as few as possible, nearly equal, cut at a word's start if one is near."""
        ends = []
        while end - start > self._capacity:
            count = -(-(end - start) // self._capacity)
            cut = start + -(-(end - start) // count)
            near = np.flatnonzero(self._starts_word[tokens[max(start + 1, cut - 16) : cut + 1]])
            cut = cut + 1 - min(cut - start, 17) + int(near[-1]) if len(near) else cut
            ends.append(cut)
            start = cut
        return [*ends, end]

    def _line_ends(self, document: list[np.ndarray], tokens: np.ndarray) -> list[int]:
        """Where examples end that are filled with whole lines."""
        line_ends = np.cumsum([len(line) for line in document])
        ends, start = [], 0
        while start < len(tokens):
            fitting = line_ends[np.searchsorted(line_ends, start + self._capacity, side="right") - 1]
            if fitting > start:
                ends.append(int(fitting))
            else:  # the next line alone is too long
                ends.extend(self._even_ends(tokens, start, int(line_ends[np.searchsorted(line_ends, start, side="right")])))
            start = ends[-1]
        return ends
