import pickle

import numpy as np
import pytest

from electra_accel.data.store import BLOCK, MAX_EXAMPLE_TOKENS, MixedStore, TokenStore, TokenWriter
from tests.data.synthetic import random_lengths, write_store


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 1000])
@pytest.mark.parametrize("vocab_size", [1000, 100_000])
def test_what_is_written_in_batches_is_read_in_any_order(tmp_path, count, vocab_size):
    examples = [np.arange(n) * 7 % vocab_size + i for i, n in enumerate(random_lengths(count, 1, 90))]
    writer = TokenWriter(tmp_path, vocab_size + count)
    for first in range(0, count, 37):
        batch = examples[first : first + 37]
        writer.append(np.concatenate(batch), np.array([len(example) for example in batch]))
    writer.close()
    assert (writer.count, writer.total) == (count, sum(map(len, examples)))

    store = TokenStore(tmp_path, vocab_size + count, corpus=3)
    assert len(store) == count
    which = np.array([count - 1, 0, count // 2, 0])
    tokens, lengths = store.read(which)
    assert np.array_equal(tokens, np.concatenate([examples[i] for i in which]))
    assert lengths.tolist() == [len(examples[i]) for i in which]
    assert store.lengths(np.arange(count)).tolist() == [len(example) for example in examples]


def test_longest_examples_do_not_overflow_the_offsets(tmp_path):
    store = write_store(tmp_path, np.full(3 * BLOCK, MAX_EXAMPLE_TOKENS))
    assert (store.lengths(np.arange(3 * BLOCK)) == MAX_EXAMPLE_TOKENS).all()
    for length in (0, MAX_EXAMPLE_TOKENS + 1):
        with pytest.raises(ValueError, match="tokens"):
            TokenWriter(tmp_path / "other", 100).append(np.zeros(length, int), np.array([length]))


def test_nothing_is_read_from_nothing(tmp_path):
    store = write_store(tmp_path, np.array([5]))
    tokens, lengths = store.read(np.zeros(0, np.int64))
    assert len(tokens) == len(lengths) == 0
    TokenWriter(tmp_path / "empty", 100).close()
    assert len(TokenStore(tmp_path / "empty", 100, corpus=1)) == 0


def test_overhead_of_short_examples_is_about_two_bytes(tmp_path):
    lengths = np.full(6400, 20)
    write_store(tmp_path, lengths)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sum(sizes.values()) <= 1.1 * sizes["tokens.bin"]


def test_a_pickled_store_opens_the_same_files(tmp_path):
    store = write_store(tmp_path, random_lengths(2000, 5, 60))
    pickled = pickle.dumps(store)
    assert len(pickled) < 1000  # a path, not the tokens
    assert np.array_equal(pickle.loads(pickled).read(np.arange(9))[0], store.read(np.arange(9))[0])


def test_a_mixed_store_reads_train_and_then_replay(tmp_path):
    train = write_store(tmp_path / "train", random_lengths(300, 2, 60))
    replay = write_store(tmp_path / "replay", random_lengths(70, 2, 60, stream=5))
    both = pickle.loads(pickle.dumps(MixedStore(train, replay)))
    assert len(both) == 370
    for which in (np.array([299, 300, 0, 369, 301, 300]), np.arange(300), np.arange(300, 370), np.arange(0)):
        expected = [
            store.read(np.array([n]))[0] for e in which for store, n in [(train, e) if e < 300 else (replay, e - 300)]
        ]
        tokens, lengths = both.read(which)
        assert tokens.tolist() == [token for part in expected for token in part]
        assert lengths.tolist() == both.lengths(which).tolist() == [len(part) for part in expected]
        assert (tokens.dtype, lengths.dtype) == (train.tokens.dtype, np.int64)


def test_the_corpus_of_a_mixed_store_names_both(tmp_path):
    a, b = (write_store(tmp_path / name, np.array([5])) for name in "ab")
    b.corpus += 1
    corpora = {MixedStore(*pair).corpus for pair in ((a, b), (b, a), (a, a), (b, b))}
    assert len(corpora) == 4 and not corpora & {a.corpus, b.corpus}
