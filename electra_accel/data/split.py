"""Which split each document goes to, so that no text is trained on and held out. Decided by the text, in flat memory."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import compress

import numpy as np

from electra_accel.randomness import Purpose, key, uniform
from electra_accel.text.corpus import Batch, Corpus, read_documents
from electra_accel.text.writing import normalise

_STREAM = key(Purpose.SPLIT)
_NONE = np.empty(0, np.uint64)  # hashes

Job = tuple[tuple[str, str], list[str]]  # (split, source), documents


def text_hashes(documents: list[str]) -> np.ndarray:
    """uint64 [n]: equal for documents that differ in case, white space or Unicode composition only."""
    words = (" ".join(normalise(text).casefold().split()) for text in documents)
    return np.frombuffer(b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in words), np.uint64)


def numbers(corpus: Corpus, batch: Batch) -> np.ndarray:
    """float64 [n] in [0, 1): a document is held out if its number is below eval_fraction.

    The number depends on the text alone (built-in corpus: on the source file), so duplicates never stand on both sides.
    """
    if corpus.split_by_source:
        return np.repeat(uniform(_STREAM, text_hashes([batch.source])), len(batch.documents))
    return uniform(_STREAM, text_hashes(batch.documents))


def fraction_that_holds_one(train: Corpus, fraction: float, join_lines: bool, log: Callable[[str], None]) -> float:
    """``fraction``, or a little more where a small corpus has no document below it. Reads until it meets the first."""
    if not fraction:
        return 0.0
    lowest = 1.0
    for batch in read_documents(train, join_lines):
        lowest = min([lowest, *compress(numbers(train, batch).tolist(), batch.documents)])
        if lowest < fraction:
            return fraction
    log(f"data.eval_fraction {fraction} holds out none of these few documents: holding out one")
    return float(np.nextafter(lowest, 1))


def assign(
    train: Corpus,
    held_out: Mapping[str, Corpus],
    replay: Corpus | None,
    fraction: float,
    join_lines: bool,
    left_out: dict[str, Counter[str]],
) -> Iterator[Job]:
    """The documents of all corpora, each for its split, so that no held-out text is trained on.

    First those of ``train``, of which ``fraction`` goes to the split ``held_out``; then those of the given held-out sets that
    are not in train; then those of replay that are in no held-out split. ``left_out`` (of each split, by reason) counts the
    others as it goes. Memory: 8 bytes for each held-out document, nothing for those of train and replay.
    """
    batches = (batch for corpus in held_out.values() for batch in read_documents(corpus, join_lines))
    given = np.unique(np.concatenate([_NONE, *(text_hashes(batch.documents) for batch in batches)]))
    in_train = np.zeros(len(given), bool)
    split_off = [_NONE]
    for batch in read_documents(train, join_lines):
        held = numbers(train, batch) < fraction if fraction else np.zeros(len(batch.documents), bool)
        for name, chosen in (("train", ~held), ("held_out", held)):
            if chosen.any():
                yield (name, batch.source), list(compress(batch.documents, chosen))
        if held_out or replay:
            hashes = text_hashes(batch.documents)
            in_train |= np.isin(given, hashes[~held])
            split_off.append(hashes[held])
    for name, corpus in held_out.items():
        yield from _without(given[in_train], name, corpus, join_lines, left_out[name], "also in train")
    if replay:
        held = np.concatenate([given[~in_train], *split_off])
        yield from _without(held, "replay", replay, join_lines, left_out["replay"], "also held out")


def _without(
    hashes: np.ndarray, name: str, corpus: Corpus, join_lines: bool, left_out: Counter[str], reason: str
) -> Iterator[Job]:
    """The documents of a corpus but those with the given hashes, which are counted."""
    for batch in read_documents(corpus, join_lines):
        new = ~np.isin(text_hashes(batch.documents), hashes)
        left_out[reason] += int((~new).sum())
        yield (name, batch.source), list(compress(batch.documents, new))
