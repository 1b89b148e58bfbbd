"""Which documents are held out, and which held-out documents train has too. Decided by the text, in flat memory."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import compress

import numpy as np

from electra_accel.data.corpus import Batch, Corpus, read_documents
from electra_accel.data.encode import normalise
from electra_accel.randomness import Purpose, key, uniform

_STREAM = key(Purpose.SPLIT)

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


def split_off(train: Corpus, fraction: float, join_lines: bool) -> Iterator[Job]:
    """The documents of ``train``, each for the split ``train`` or ``held_out``."""
    for batch in read_documents(train, join_lines):
        held = numbers(train, batch) < fraction
        for name, chosen in (("train", ~held), ("held_out", held)):
            if chosen.any():
                yield (name, batch.source), list(compress(batch.documents, chosen))


def given_sets(train: Corpus, held_out: Mapping[str, Corpus], join_lines: bool, in_both: Counter[str]) -> Iterator[Job]:
    """The documents of ``train``, then those of the held-out sets that are not in train too; ``in_both`` counts the others.

    Memory: 8 bytes for each held-out document, nothing for those of train.
    """
    sets = [
        text_hashes(batch.documents) for corpus in held_out.values() for batch in read_documents(corpus, join_lines)
    ]
    hashes = np.unique(np.concatenate([np.empty(0, np.uint64), *sets]))
    in_train = np.zeros(len(hashes), bool)
    for batch in read_documents(train, join_lines):
        in_train |= np.isin(hashes, text_hashes(batch.documents))
        yield ("train", batch.source), batch.documents
    for name, corpus in held_out.items():
        for batch in read_documents(corpus, join_lines):
            new = ~np.isin(text_hashes(batch.documents), hashes[in_train])
            in_both[name] += int((~new).sum())
            yield (name, batch.source), list(compress(batch.documents, new))
