import numpy as np
import pytest
from scipy import stats
from tokenizers import Tokenizer, models
from transformers import BertTokenizer, PreTrainedTokenizerFast

from electra_accel.data.masking import (
    MASK_UNITS,
    Masking,
    WholeWords,
    example_streams,
    selected_count,
    slots_of_length,
    within,
)
from electra_accel.errors import UserError
from electra_accel.randomness import Purpose, bits, key
from tests.data.synthetic import CLS, MASK, PAD, SEP, SPECIAL, UNK, VOCAB, masking, random_lengths

CONTINUES = np.arange(VOCAB) >= VOCAB // 2


def word_masking(mask_prob=0.15, continues=CONTINUES):
    return Masking(mask_prob, 0.85, 0.0, VOCAB, MASK, [PAD, CLS, SEP, MASK], SPECIAL, WholeWords(continues))


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
    lengths = np.ones(2**18 + 1, np.int64)
    lengths[0] = 4096
    with pytest.raises(ValueError, match="batch"):
        masking().select(np.full(lengths.sum(), 9), lengths, np.zeros(len(lengths), np.uint64))


def test_an_example_is_masked_alike_beside_short_and_beside_long_ones():
    lengths = np.array([30, 4096, 7])
    tokens, streams = np.full(lengths.sum(), 9), np.arange(3, dtype=np.uint64)
    rows, positions = masking().select(tokens, lengths, streams)
    for number, length in enumerate(lengths.tolist()):
        alone = masking().select(tokens[:length], lengths[number : number + 1], streams[number : number + 1])[1]
        assert positions[rows == number].tolist() == alone.tolist()


def one_word_after_another(tokens, stream, mask_prob=0.15):
    """The rule in plain Python, for one example: its selected positions, and how many of its words are broken."""
    words, open_word = [], False
    for position, token in enumerate(tokens):
        if token in (CLS, SEP, PAD, MASK):
            open_word = False
        elif CONTINUES[token] and open_word:
            words[-1].append(position)
        else:
            words.append([position])
            open_word = True
    words.sort(key=lambda word: (int(bits(stream, np.array(word[:1]))[0]) >> 30, word[0]))
    left = int(selected_count(sum(map(len, words)), mask_prob))
    chosen, passed_over = [], []
    for word in words:
        if len(word) <= left:
            chosen += word
            left -= len(word)
        else:
            passed_over.append(word)
    return sorted(chosen + (passed_over[0][:left] if left else [])), int(left > 0)


@pytest.mark.parametrize("mask_prob", [0.05, 0.15, 0.6, 1.0])
def test_whole_words_are_the_definition(mask_prob):
    lengths = np.concatenate([[2, 3, 1], random_lengths(400, 1, 90), np.full(60, 12)])
    tokens, examples, passes = flat_batch(lengths)
    tokens = np.where(tokens < 5, tokens, 5 + bits(4, np.arange(len(tokens))) % np.uint64(VOCAB - 5)).astype(int)
    sprinkled = bits(3, np.arange(len(tokens))) % np.uint64(40) == 0  # ends a word wherever it falls
    sprinkled &= (tokens != CLS) & (tokens != SEP)
    tokens[sprinkled] = np.array(SPECIAL)[np.arange(sprinkled.sum()) % 5]
    streams = example_streams(1, 77, passes, examples, Purpose.SELECT)
    rows, positions = word_masking(mask_prob).select(tokens, lengths, streams)
    assert (np.diff(rows * 1024 + positions) > 0).all()
    plain, broken = [], 0
    for row, example in enumerate(np.split(tokens, np.cumsum(lengths)[:-1])):
        expected, is_broken = one_word_after_another(example.tolist(), streams[row : row + 1], mask_prob)
        assert positions[rows == row].tolist() == expected
        plain.append(len(expected))
        broken += is_broken
        alone = word_masking(mask_prob).select(example, lengths[row : row + 1], streams[row : row + 1])
        assert alone[1].tolist() == expected  # the other examples of a batch change nothing
    assert broken > 0 or mask_prob == 1.0
    as_tokens, _ = masking(mask_prob).select(tokens, lengths, streams)
    assert np.array_equal(as_tokens, rows)  # the same count in every example


def test_words_of_one_token_are_tokens():
    lengths = random_lengths(500, 1, 60)
    tokens, examples, passes = flat_batch(lengths)
    streams = example_streams(1, 2, passes, examples, Purpose.SELECT)
    words = word_masking(continues=np.zeros(VOCAB, bool)).select(tokens, lengths, streams)
    assert all(np.array_equal(a, b) for a, b in zip(words, masking().select(tokens, lengths, streams)))


def test_words_of_equal_length_are_equally_likely():
    examples, words, size = 20_000, 20, 3  # k = 9: exactly three of the 20 words
    text = np.tile([9, VOCAB - 1, VOCAB - 2], words)
    tokens = np.tile(np.concatenate([[CLS], text, [SEP]]), examples)
    lengths = np.full(examples, words * size + 2)
    streams = example_streams(1, 2, np.zeros(examples, np.int64), np.arange(examples), Purpose.SELECT)
    _, positions = word_masking().select(tokens, lengths, streams)
    counts = np.bincount(positions - 1, minlength=words * size).reshape(words, size)
    assert (counts == counts[:, :1]).all()  # whole words, no other
    statistic = ((counts[:, 0] - 3000) ** 2 / 3000).sum() * (words - 1) / (words - 3)
    assert 1e-4 < stats.chi2.sf(statistic, words - 1) < 1 - 1e-4


def test_continuations_of_wordpiece():
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "책", "##을", ",", "#", "읽"]
    tokenizer = BertTokenizer(vocab={token: number for number, token in enumerate(tokens)}, strip_accents=False)
    tokenizer.add_tokens(["블로그"])
    continues = MASK_UNITS["word"](tokenizer).continues
    assert [tokenizer.convert_ids_to_tokens(int(n)) for n in np.flatnonzero(continues)] == ["##을"]
    assert continues.dtype == bool and len(continues) == len(tokenizer) == 11


def test_other_tokenizers_have_no_whole_words():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    with pytest.raises(UserError, match="objective.mask_unit .*objective.mask_unit token"):
        MASK_UNITS["word"](tokenizer)


def test_passes_far_apart_have_the_streams_that_they_have_alone():
    """Those over a small replay corpus are far ahead of those over the training text."""
    passes, examples = np.array([3, 10**12, 3, 0]), np.array([5, 6, 7, 5])
    together = example_streams(1, 2, passes, examples, Purpose.SELECT)
    alone = [example_streams(1, 2, passes[i : i + 1], examples[i : i + 1], Purpose.SELECT)[0] for i in range(4)]
    assert together.tolist() == alone == [int(bits(key(1, 2, p, Purpose.SELECT), e)) for p, e in zip(passes, examples)]
    assert not len(example_streams(1, 2, passes[:0], examples[:0], Purpose.SELECT))
