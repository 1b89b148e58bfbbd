"""Small stores and settings that the tests of data/ share."""

import csv
import lzma
from itertools import islice
from pathlib import Path

import numpy as np
from tokenizers.implementations import BertWordPieceTokenizer

from electra_accel.data.masking import Masking, slots_of_length
from electra_accel.data.packing import BinLimits
from electra_accel.data.plan import Plan
from electra_accel.data.store import TokenStore, TokenWriter
from electra_accel.randomness import bits
from tests.helpers import shared_data

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL = [PAD, UNK, CLS, SEP, MASK]
VOCAB = 1000
CORPUS = 77


def random_lengths(count: int, shortest: int, longest: int, stream: int = 1) -> np.ndarray:
    """int64 [count], each length equally likely."""
    return shortest + (bits(stream, np.arange(count)) % np.uint64(longest - shortest + 1)).astype(np.int64)


def write_store(folder: Path, lengths: np.ndarray) -> TokenStore:
    """Examples [CLS] … [SEP] of random ordinary tokens."""
    ends = np.cumsum(lengths)
    tokens = 5 + (bits(2, np.arange(ends[-1])) % np.uint64(VOCAB - 5)).astype(np.int64)
    tokens[ends - lengths] = CLS
    tokens[ends - 1] = SEP
    writer = TokenWriter(folder, VOCAB)
    writer.append(tokens, lengths)
    writer.close()
    return TokenStore(folder, VOCAB, CORPUS)


def masking(mask_prob: float = 0.15, mask_token_prob: float = 0.85, random_token_prob: float = 0.0) -> Masking:
    return Masking(mask_prob, mask_token_prob, random_token_prob, VOCAB, MASK, [PAD, CLS, SEP, MASK], SPECIAL)


def slots_15(lengths: np.ndarray) -> np.ndarray:
    return slots_of_length(lengths, 0.15)


def plan_of(store: TokenStore, limits: BinLimits, bins_per_step: int, seed: int = 1, passes: int | None = None) -> Plan:
    return Plan(
        len(store), store.lengths, lambda _, n: slots_15(n), limits, bins_per_step, seed, store.corpus, passes=passes
    )


def review_lengths(count: int) -> np.ndarray:
    """Tokens of real Korean movie reviews under a real vocabulary, cut at 128: int64 [count]."""
    tokenizer = BertWordPieceTokenizer(str(shared_data("vocab/koelectra_v1_vocab.txt")), lowercase=False)
    with lzma.open(shared_data("corpora/nsmc_reviews.csv.xz"), "rt", encoding="utf-8", newline="") as file:
        texts = [row["sen"] for row in islice(csv.DictReader(file), count)]
    return np.array([min(len(encoded.ids), 128) for encoded in tokenizer.encode_batch(texts)])
