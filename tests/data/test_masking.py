import numpy as np
import pytest
from scipy import stats

from electra_accel.data.masking import example_streams, selected_count, slots_of_length, within
from electra_accel.randomness import Purpose, bits, key
from tests.data.synthetic import CLS, MASK, PAD, SEP, SPECIAL, UNK, VOCAB, masking, random_lengths


def flat_batch(lengths, first_example=0):
    """[CLS] … [SEP] examples with ordinary tokens, their numbers, all of pass 0."""
    tokens = 5 + np.arange(lengths.sum()) % (VOCAB - 5)
    ends = np.cumsum(lengths)
    tokens[ends - lengths], tokens[ends - 1] = CLS, SEP
    examples = first_example + np.arange(len(lengths))
    return tokens, examples, np.zeros_like(examples)


def test_selected_count_rounds_half_up_and_never_exceeds_the_candidates():
    n = np.array([0, 1, 3, 9, 10, 11, 20, 30, 126, 510])
    assert selected_count(n, 0.15).tolist() == [0, 1, 1, 1, 2, 2, 3, 5, 19, 77]
    assert selected_count(np.array([0, 1, 2, 3]), 0.5).tolist() == [0, 1, 1, 2]
    assert selected_count(np.arange(5), 1.0).tolist() == [0, 1, 2, 3, 4]
    assert slots_of_length(np.array([1, 2, 3, 128]), 0.15).tolist() == [0, 0, 1, 19]


def test_within():
    assert within(np.array([2, 0, 3])).tolist() == [0, 1, 0, 1, 2]


def test_select_is_the_definition():
    """One example at a time in plain Python: the k candidates with the smallest hashes."""
    lengths = np.array([2, 3, 12, 40, 128, 1])
    tokens, examples, passes = flat_batch(lengths, first_example=1000)
    tokens[5:9] = [MASK, UNK, PAD, 9]  # inside the example of 12: [UNK] and 9 are candidates, the others not
    passes[3] = 4
    rows, positions = masking().select(tokens, lengths, example_streams(1, 77, passes, examples, Purpose.SELECT))
    first = 0
    for row, length in enumerate(lengths.tolist()):
        stream = bits(key(1, 77, int(passes[row]), Purpose.SELECT), examples[row : row + 1])
        ids = tokens[first : first + length].tolist()
        candidates = [p for p in range(length) if ids[p] not in (CLS, SEP, PAD, MASK)]
        hashes = {p: int(bits(stream, np.array([p]))[0]) >> 30 for p in candidates}
        k = selected_count(len(candidates), 0.15)
        expected = sorted(sorted(candidates, key=lambda p: (hashes[p], p))[:k])  # noqa: B023
        assert positions[rows == row].tolist() == expected
        first += length


def test_selected_share_no_duplicates_never_special():
    lengths = random_lengths(20_000, 2, 60)
    tokens, examples, passes = flat_batch(lengths)
    where = bits(3, np.arange(len(tokens))) % np.uint64(10) == 0
    tokens[where] = np.array(SPECIAL)[np.arange(where.sum()) % 5]  # sprinkle specials into the texts
    rows, positions = masking().select(tokens, lengths, example_streams(1, 2, passes, examples, Purpose.SELECT))
    flat = (np.cumsum(lengths) - lengths)[rows] + positions
    assert len(np.unique(flat)) == len(flat)
    assert (positions < lengths[rows]).all()
    assert not np.isin(tokens[flat], [CLS, SEP, PAD, MASK]).any()
    assert (tokens[flat] == UNK).any()
    candidates = np.add.reduceat(~np.isin(tokens, [CLS, SEP, PAD, MASK]), np.cumsum(lengths) - lengths)
    assert np.array_equal(np.bincount(rows, minlength=len(lengths)), selected_count(candidates, 0.15))
    assert len(flat) / candidates.sum() == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize("mask_prob", [0.15, 0.5])
def test_selection_is_uniform_over_positions_and_pairs(mask_prob):
    examples, n = 20_000, 20
    tokens, numbers, passes = flat_batch(np.full(examples, n + 2))
    streams = example_streams(1, 2, passes, numbers, Purpose.SELECT)
    rows, positions = masking(mask_prob).select(tokens, np.full(examples, n + 2), streams)
    chosen = np.zeros((examples, n), bool)
    chosen[rows, positions - 1] = True
    k = int(selected_count(n, mask_prob))
    # k of n without replacement: the counts vary less than independent draws by (n - k) / (n - 1)
    counts = chosen.sum(0)
    statistic = ((counts - counts.mean()) ** 2 / counts.mean()).sum() * (n - 1) / (n - k)
    assert 1e-4 < stats.chi2.sf(statistic, n - 1) < 1 - 1e-4
    together = (chosen.T.astype(float) @ chosen)[np.triu_indices(n, 1)]
    expected = examples * k * (k - 1) / (n * (n - 1))
    assert np.abs(together - expected).max() < 5.5 * np.sqrt(expected)


def test_passes_seeds_and_corpora_select_differently():
    lengths = np.full(5000, 22)
    tokens, examples, passes = flat_batch(lengths)

    def selection(seed, corpus, number):
        streams = example_streams(seed, corpus, passes + number, examples, Purpose.SELECT)
        rows, positions = masking().select(tokens, lengths, streams)
        return set((22 * rows + positions).tolist())

    first = selection(1, 2, 0)
    for other in (selection(1, 2, 1), selection(2, 2, 0), selection(1, 3, 0)):
        assert len(first & other) / len(first) == pytest.approx(0.15, abs=0.02)


@pytest.mark.parametrize(("mask", "random"), [(0.85, 0.0), (0.8, 0.1), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_shares_of_what_becomes_of_the_selected(mask, random):
    lengths = np.full(20_000, 22)
    tokens, examples, passes = flat_batch(lengths)
    rule = masking(0.15, mask, random)
    rows, positions = rule.select(tokens, lengths, example_streams(1, 2, passes, examples, Purpose.SELECT))
    original = tokens[22 * rows + positions]
    streams = [example_streams(1, 2, passes, examples, p)[rows] for p in (Purpose.CORRUPT, Purpose.RANDOM_TOKEN)]
    result = rule.corrupt(original, positions, *streams)

    masked, kept = result == MASK, result == original
    is_random = ~masked & ~kept
    for share, wanted in ((masked.mean(), mask), (is_random.mean(), random), (kept.mean(), 1 - mask - random)):
        sd = np.sqrt(wanted * (1 - wanted) / len(result))
        assert abs(share - wanted) <= 4 * sd + 2 * random / VOCAB  # a random token is the original one time in VOCAB
    assert not np.isin(result[is_random], SPECIAL).any()
    if random:
        counts = np.bincount(result[is_random], minlength=VOCAB)[5:]
        assert stats.chisquare(counts).pvalue > 1e-4
    if 0 < mask < 1:  # a kept position is as likely anywhere in the text
        assert stats.chisquare(np.bincount(positions[masked])[1:]).pvalue > 1e-4


def test_more_than_a_batch_may_hold_is_refused():
    with pytest.raises(ValueError, match="batch"):
        masking().select(np.full(1025, 9), np.array([1025]), np.zeros(1, np.uint64))
