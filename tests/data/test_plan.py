import json
import time
import tracemalloc
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from scipy import stats

from electra_accel.data import plan as plan_module
from electra_accel.data.packing import BinLimits, choose_limits, lengths_like
from electra_accel.data.plan import WINDOW, Bins, Cursor, Layout, Plan, steps_in_passes
from electra_accel.data.replay import Replay
from electra_accel.errors import UserError
from electra_accel.randomness import bits
from tests.data.synthetic import random_lengths, review_lengths, slots_15

LIMITS = BinLimits(128, 20, 16)


def plan_over(lengths, bins_per_step=8, limits=LIMITS, seed=1, corpus=77, passes=None, replay=None):
    """The examples of ``lengths`` that are not for replay, which stand last."""
    examples = len(lengths) - (replay.examples if replay else 0)
    return Plan(
        examples, lambda i: lengths[i], lambda _, n: slots_15(n), limits, bins_per_step, seed, corpus, passes, replay
    )


@pytest.fixture
def small_windows(monkeypatch):
    """Windows of 300 examples, so that a few thousand examples make many of them."""
    monkeypatch.setattr(plan_module, "WINDOW", 300)


def pairs(step):
    return list(zip(step.bins.passes.tolist(), step.bins.examples.tolist(), strict=True))


def equal(one, other):
    return (
        (one.step, one.tokens, one.epoch, one.cursor) == (other.step, other.tokens, other.epoch, other.cursor)
        and np.array_equal(one.bins.offsets, other.bins.offsets)
        and pairs(one) == pairs(other)
    )


@pytest.mark.parametrize("count", [1, 2, 7, 299, 300, 301, 2000])
def test_every_example_once_per_pass(small_windows, count):
    lengths = random_lengths(count, 3, 60)
    steps = list(plan_over(lengths, passes=3).steps())
    seen = Counter(pair for step in steps for pair in pairs(step))
    assert seen == Counter((number, example) for number in range(3) for example in range(count))
    assert [step.step for step in steps] == list(range(len(steps)))
    assert all(len(step.bins) == 8 for step in steps[:-1])
    assert 1 <= len(steps[-1].bins) <= 8
    assert steps[-1].epoch == 3


def test_a_plan_without_end_finishes_each_pass_before_the_next_but_one(small_windows):
    lengths = random_lengths(1000, 3, 60)
    order = [pair for step in islice(plan_over(lengths).steps(), 200) for pair in pairs(step)]
    assert len(set(order)) == len(order)
    passes = [number for number, _ in order]
    for number in range(3):
        last = len(passes) - 1 - passes[::-1].index(number)
        assert passes.count(number) == 1000
        assert number + 2 not in passes[:last]


def test_bins_keep_the_limits_and_steps_count_their_tokens(small_windows):
    lengths = random_lengths(3000, 3, 100)
    for step in islice(plan_over(lengths).steps(), 60):
        used = lengths[step.bins.examples]
        bin_of = np.repeat(np.arange(len(step.bins)), np.diff(step.bins.offsets))
        assert np.bincount(bin_of, used).max() <= LIMITS.tokens
        assert np.bincount(bin_of, slots_15(used)).max() <= LIMITS.slots
        assert 1 <= np.bincount(bin_of).min() <= np.bincount(bin_of).max() <= LIMITS.segments
        assert step.tokens == used.sum()


@pytest.mark.parametrize("count", [1, 5, 301, 1500])
def test_going_on_from_any_cursor_gives_the_same_steps(small_windows, count):
    lengths = random_lengths(count, 3, 60)
    steps = list(islice(plan_over(lengths).steps(), 40))
    for at in (0, 1, 17, 38):
        saved = json.loads(json.dumps(steps[at].cursor.to_json()))
        resumed = islice(plan_over(lengths).steps(Cursor.from_json(saved), at + 1), 39 - at)
        assert all(equal(step, again) for step, again in zip(steps[at + 1 :], resumed, strict=True))


def test_a_finished_plan_stays_finished(small_windows):
    lengths = random_lengths(400, 3, 60)
    last = list(plan_over(lengths, passes=2).steps())[-1]
    assert list(plan_over(lengths, passes=2).steps(last.cursor, last.step + 1)) == []


def test_steps_are_the_same_bins_whatever_their_size(small_windows):
    """The list of bins does not depend on how many make a step."""
    lengths = random_lengths(1000, 3, 60)
    small = [pair for step in islice(plan_over(lengths, bins_per_step=4).steps(), 90) for pair in pairs(step)]
    large = [pair for step in islice(plan_over(lengths, bins_per_step=360).steps(), 1) for pair in pairs(step)]
    assert small == large


def test_seed_corpus_and_pass_change_the_order():
    lengths = random_lengths(500, 3, 60)
    first = pairs(next(plan_over(lengths, bins_per_step=60).steps()))
    for other in (plan_over(lengths, 60, seed=2), plan_over(lengths, 60, corpus=78)):
        assert pairs(next(other.steps()))[:20] != first[:20]
    orders = {number: [] for number in range(2)}
    for step in plan_over(lengths, passes=2).steps():
        for number, example in pairs(step):
            orders[number].append(example)
    assert abs(stats.kendalltau(orders[0], orders[1]).statistic) < 0.2
    assert abs(stats.kendalltau(orders[0], range(500)).statistic) < 0.2


def test_epoch_counts_examples(small_windows):
    lengths = random_lengths(1000, 3, 60)
    done = 0
    for step in islice(plan_over(lengths).steps(), 100):
        done += len(step.bins.examples)
        assert step.epoch == pytest.approx(done / 1000)


@pytest.mark.parametrize(("replayed", "per_pass"), [(1, 1), (7, 100), (100, 7), (250, 250), (900, 400)])
def test_every_pass_holds_its_own_and_the_next_of_the_replay_order(small_windows, replayed, per_pass):
    count, passes, replay = 500, 4, Replay(replayed, per_pass)
    lengths = random_lengths(count + replayed, 3, 60)
    steps = list(plan_over(lengths, passes=passes, replay=replay).steps())
    order = [pair for step in steps for pair in pairs(step)]
    own = Counter(pair for pair in order if pair[1] < count)
    assert own == Counter((number, example) for number in range(passes) for example in range(count))
    cycles, examples = replay.at(np.arange(passes * per_pass), seed=1, corpus=77)
    again = Counter((cycle, example - count) for cycle, example in order if example >= count)
    assert again == Counter(zip(cycles.tolist(), examples.tolist(), strict=True))
    assert max(again.values()) == 1  # an example that a pass holds twice is corrupted in two ways
    assert (steps[-1].epoch, len(order)) == (passes, passes * (count + per_pass))


def test_replay_stands_evenly_among_the_examples(small_windows):
    lengths = random_lengths(3000, 3, 60)
    steps = islice(plan_over(lengths, replay=Replay(1000, 500)).steps(), 300)
    examples = np.concatenate([step.bins.examples for step in steps])
    tenths = [(part >= 2000).mean() for part in np.array_split(examples, 10)]
    assert np.abs(np.array(tenths) - 0.2).max() < 4.5 * np.sqrt(0.2 * 0.8 / (len(examples) / 10))


@pytest.mark.parametrize(("count", "replayed", "per_pass"), [(1, 5, 3), (700, 50, 400), (301, 2000, 30)])
def test_replay_goes_on_from_any_cursor(small_windows, count, replayed, per_pass):
    lengths, replay = random_lengths(count + replayed, 3, 60), Replay(replayed, per_pass)
    steps = list(islice(plan_over(lengths, replay=replay).steps(), 60))
    for at in (0, 1, 23, 58):
        saved = json.loads(json.dumps(steps[at].cursor.to_json()))
        resumed = islice(plan_over(lengths, replay=replay).steps(Cursor.from_json(saved), at + 1), 59 - at)
        assert all(equal(step, again) for step, again in zip(steps[at + 1 :], resumed, strict=True))


def test_steps_in_passes_with_replay():
    lengths, replayed = random_lengths(9000, 5, 60), random_lengths(4000, 40, 128)
    histograms = [np.bincount(part, minlength=129) for part in (lengths, replayed)]
    replay = Replay.of_fraction(0.2, *histograms)
    both = replay.lengths_in_a_pass(*histograms)
    limits = choose_limits(both, 128, slots_15)
    guess = steps_in_passes(both, slots_15, limits, 16, 3)
    true = len(list(plan_over(np.append(lengths, replayed), 16, limits, passes=3, replay=replay).steps()))
    assert abs(guess - true) <= max(1, 0.01 * true)


def test_no_examples_no_plan():
    with pytest.raises(ValueError, match="at least one"):
        plan_over(np.zeros(0, np.int64))


def test_slices_of_bins():
    bins = Bins(np.arange(10), np.zeros(10, np.int64), np.array([0, 3, 4, 10]))
    assert bins[1:3].examples.tolist() == [3, 4, 5, 6, 7, 8, 9]
    assert bins[1:3].offsets.tolist() == [0, 1, 7]
    assert [len(bins[first:last]) for first, last in ((0, 0), (3, 9), (7, 9), (2, 9))] == [0, 0, 0, 1]
    again = Bins.concatenate([bins[:1], bins[3:], bins[1:]])
    assert (again.examples.tolist(), again.offsets.tolist()) == (bins.examples.tolist(), bins.offsets.tolist())


def test_no_trend_and_full_bins_on_real_reviews():
    """500 steps over several windows of a corpus with the lengths of real reviews."""
    histogram = np.bincount(review_lengths(40_000)) * 14  # as many as the whole corpus has
    limits = choose_limits(histogram, 128, slots_15)
    lengths = lengths_like(histogram)
    plan = Plan(int(histogram.sum()), lengths, lambda _, n: slots_15(n), limits, 64, seed=1, corpus=7)
    steps = list(islice(plan.steps(), 500))
    sizes = np.array([len(step.bins.examples) for step in steps])
    tokens = np.array([step.tokens for step in steps])
    slots = np.array([slots_15(lengths(step.bins.examples)).sum() for step in steps])
    assert tokens.sum() / (500 * 64 * limits.tokens) >= 0.99
    assert slots.sum() / (500 * 64 * limits.slots) >= 0.85
    trend = stats.linregress(np.arange(500), tokens / sizes)
    assert abs(trend.slope) < 4 * trend.stderr
    assert abs(trend.slope * 500) < 0.02 * trend.intercept
    # Within a window too: the last steps of a window hold examples like those of the first.
    place = np.array([step.cursor.bins for step in steps])
    within_window = stats.linregress(place, tokens / sizes)
    assert abs(within_window.slope) < 4 * within_window.stderr


def test_first_step_and_resume_of_a_huge_corpus():
    """1e8 examples whose lengths exist only as a function: nothing may cost time or memory in proportion."""

    def lengths(examples):
        return 20 + (bits(3, examples) % np.uint64(493)).astype(np.int64)

    limits = BinLimits(512, 90, 16)
    plan = Plan(10**8, lengths, lambda _, n: slots_15(n), limits, 256, seed=1, corpus=7)
    tracemalloc.start()
    began = time.monotonic()
    first = next(plan.steps())
    later = Cursor(pass_number=2, window=1200, bins=12_345, carry=((2, 99_999_999),))
    resumed = list(islice(plan.steps(later, 1_000_000), 2))
    seconds, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(first.bins) == len(resumed[1].bins) == 256
    assert resumed[1].step == 1_000_001
    assert seconds < 20
    assert peak < 100e6


@pytest.mark.parametrize(("count", "passes"), [(1, 3), (3, 50), (500, 3), (30_000, 3), (100_000, 1.5)])
def test_steps_in_passes_is_right(count, passes):
    lengths = random_lengths(count, 5, 120)
    limits = choose_limits(np.bincount(lengths), 128, slots_15)
    guess = steps_in_passes(np.bincount(lengths), slots_15, limits, 16, passes)
    plan = plan_over(lengths, 16, limits, seed=5)
    true = next(step.step + 1 for step in plan.steps() if step.epoch >= passes - 1e-9 or step.step > 2 * guess + 20)
    assert abs(guess - true) <= max(1, 0.01 * true)


def test_steps_in_passes_on_real_reviews():
    lengths = np.tile(review_lengths(40_000), 4)
    limits = choose_limits(np.bincount(lengths), 128, slots_15)
    guess = steps_in_passes(np.bincount(lengths), slots_15, limits, 32, passes=1)
    true = len(list(plan_over(lengths, 32, limits, passes=1).steps()))
    assert len(lengths) > 2 * WINDOW
    assert abs(guess - true) <= 0.01 * true


@pytest.mark.parametrize("bins", [1, 7, 64, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3, 6, 16])
@pytest.mark.parametrize("micro_batch_tokens", [128, 400, 4096])
def test_a_layout_holds_every_bin_once(bins, world_size, micro_batch_tokens):
    layout = Layout.derive(bins, 128, micro_batch_tokens, world_size)
    assert layout.rows * 128 <= micro_batch_tokens
    assert layout.rows * layout.accumulation * world_size - layout.empty_bins == bins
    planned = Bins(np.arange(bins), np.zeros(bins, np.int64), np.arange(bins + 1))
    micro_batches = [layout.micro_batches(planned, rank) for rank in range(world_size)]
    assert all(len(own) == layout.accumulation for own in micro_batches)
    in_order = [micro_batches[rank][a] for a in range(layout.accumulation) for rank in range(world_size)]
    assert all(len(part) <= layout.rows for part in in_order)
    assert np.concatenate([part.examples for part in in_order]).tolist() == list(range(bins))
    fewer_rows = world_size * layout.accumulation * (layout.rows - 1)
    fewer_steps = world_size * (layout.accumulation - 1) * (micro_batch_tokens // 128)
    assert fewer_rows < bins and fewer_steps < bins


def test_a_micro_batch_smaller_than_a_bin_is_the_users_mistake():
    with pytest.raises(UserError, match=r"train.micro_batch_tokens 100 .*train.bin_tokens \(128\)"):
        Layout.derive(8, 128, 100, 1)
