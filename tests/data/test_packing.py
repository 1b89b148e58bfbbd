import numpy as np
import pytest

from electra_accel.data.packing import BinLimits, choose_limits, lengths_like, pack
from electra_accel.randomness import bits
from tests.data.synthetic import random_lengths, review_lengths, slots_15


def best_fit_by_the_book(lengths, slots, limits):
    """For each example look at every bin; of those that take it, one with the fewest free tokens wins."""
    free, bin_of = [], []
    for length, need in zip(lengths.tolist(), slots.tolist(), strict=True):
        fits = [b for b, (t, s, g) in enumerate(free) if t >= length and s >= need and g >= 1]
        chosen = min(fits, key=lambda b: free[b][0]) if fits else len(free)
        if not fits:
            free.append((limits.tokens, limits.slots, limits.segments))
        tokens, selected, segments = free[chosen]
        free[chosen] = (tokens - length, selected - need, segments - 1)
        bin_of.append(chosen)
    return np.array(bin_of)


@pytest.mark.parametrize("limits", [BinLimits(128, 19, 18), BinLimits(128, 128, 4), BinLimits(128, 17, 128)])
def test_no_limit_is_exceeded_and_no_bin_could_have_been_spared(limits):
    lengths = random_lengths(4000, 3, 90)
    slots = slots_15(lengths)
    bin_of = pack(lengths, slots, limits)
    used = np.stack([np.bincount(bin_of), np.bincount(bin_of, lengths), np.bincount(bin_of, slots)])
    assert (used.max(1) <= [limits.segments, limits.tokens, limits.slots]).all()
    assert used[0].min() >= 1
    by_the_book = best_fit_by_the_book(lengths, slots, limits).max() + 1
    assert abs(bin_of.max() + 1 - by_the_book) <= 0.005 * by_the_book


def test_slots_that_do_not_follow_from_the_length():
    lengths = random_lengths(4000, 3, 90)
    slots = (bits(5, np.arange(4000)) % np.uint64(12)).astype(np.int64)
    bin_of = pack(lengths, slots, BinLimits(128, 20, 10))
    assert np.bincount(bin_of, slots).max() <= 20
    assert np.bincount(bin_of, lengths).max() <= 128
    assert bin_of.max() + 1 < 1.15 * max(lengths.sum() / 128, slots.sum() / 20)


def test_examples_that_fill_a_bin_and_none_at_all():
    limits = BinLimits(64, 10, 4)
    assert pack(np.full(5, 64), slots_15(np.full(5, 64)), limits).tolist() == [0, 1, 2, 3, 4]
    assert pack(np.zeros(0, np.int64), np.zeros(0, np.int64), limits).tolist() == []
    assert pack(np.array([2, 2]), np.array([0, 0]), limits).tolist() == [0, 0]  # nothing to select


@pytest.mark.parametrize(("length", "slots"), [(65, 1), (10, 11)])
def test_an_example_that_fits_nowhere_is_refused(length, slots):
    with pytest.raises(ValueError, match="does not fit"):
        pack(np.array([length]), np.array([slots]), BinLimits(64, 10, 4))


def test_lengths_like_has_the_histogram():
    histogram = np.array([0, 0, 3, 0, 2, 1])
    assert np.array_equal(np.bincount(lengths_like(histogram)(np.arange(6))), histogram)


@pytest.mark.parametrize(
    "shortest,longest,bin_tokens", [(3, 40, 128), (20, 128, 128), (100, 512, 512), (512, 512, 512)]
)
def test_chosen_limits_are_tight_and_cost_little(shortest, longest, bin_tokens):
    lengths = random_lengths(20_000, shortest, longest)
    limits = choose_limits(np.bincount(lengths), bin_tokens, slots_15)
    bins = pack(lengths, slots_15(lengths), limits).max() + 1
    unlimited = pack(lengths, slots_15(lengths), BinLimits(bin_tokens, bin_tokens, bin_tokens)).max() + 1
    assert bins <= 1.01 * unlimited
    assert limits.tokens == bin_tokens
    # As few slots as the longest example allows, or nearly all of them in use.
    assert limits.slots == slots_15(np.array([longest]))[0] or slots_15(lengths).sum() / (bins * limits.slots) >= 0.85


@pytest.mark.parametrize("examples", [1, 3])
def test_limits_of_a_tiny_corpus_let_bins_fill(examples):
    histogram = np.bincount(np.full(examples, 20))
    limits = choose_limits(histogram, 128, slots_15)
    lengths = np.full(600, 20)
    assert pack(lengths, slots_15(lengths), limits).max() + 1 == 100  # six of 20 tokens in each


def test_fill_on_real_reviews():
    lengths = review_lengths(40_000)
    limits = choose_limits(np.bincount(lengths), 128, slots_15)
    slots = slots_15(lengths)
    bins = pack(lengths, slots, limits).max() + 1
    assert lengths.sum() / (bins * limits.tokens) >= 0.99
    assert slots.sum() / (bins * limits.slots) >= 0.85
