from collections import Counter

import numpy as np
import pytest
from scipy import stats

from electra_accel.data.replay import Replay
from tests.data.synthetic import random_lengths


def test_each_example_once_a_cycle_and_places_are_independent_of_how_they_are_asked_for():
    replay = Replay(examples=37, per_pass=100)
    cycles, examples = replay.at(np.arange(370), seed=1, corpus=2)
    assert cycles.tolist() == [place // 37 for place in range(370)]
    assert set(Counter(zip(cycles.tolist(), examples.tolist(), strict=True)).values()) == {1}
    assert set(examples.tolist()) == set(range(37))
    backwards = replay.at(np.arange(370)[::-1], seed=1, corpus=2)
    assert np.array_equal(backwards[1][::-1], examples)
    assert replay.at(np.array([10**12]), 1, 2)[0] == 10**12 // 37
    assert not len(replay.at(np.arange(0), 1, 2)[1])


def test_cycles_seeds_and_corpora_order_differently():
    replay = Replay(examples=1000, per_pass=1)
    first = replay.at(np.arange(1000), 1, 2)[1]
    for other in (
        replay.at(1000 + np.arange(1000), 1, 2)[1],
        replay.at(np.arange(1000), 2, 2)[1],
        replay.at(np.arange(1000), 1, 3)[1],
        np.arange(1000),
    ):
        assert abs(stats.kendalltau(first, other).statistic) < 0.1


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.9])
def test_the_fraction_is_one_of_tokens_over_passes(fraction):
    lengths, replayed = random_lengths(4000, 5, 20), random_lengths(3000, 20, 128, stream=2)
    replay = Replay.of_fraction(fraction, np.bincount(lengths), np.bincount(replayed))
    passes = 5
    _, examples = replay.at(np.arange(passes * replay.per_pass), seed=1, corpus=2)
    tokens = replayed[examples].sum()
    deviation = replayed.std() * np.sqrt(len(examples)) / tokens  # without replacement it is less
    assert tokens / (tokens + passes * lengths.sum()) == pytest.approx(fraction, rel=4 * deviation + 1e-3)


def test_a_little_replay_is_at_least_one_example():
    assert Replay.of_fraction(1e-6, np.array([0, 0, 0, 5]), np.array([0, 0, 0, 0, 9])) == Replay(9, 1)


@pytest.mark.parametrize("per_pass", [1, 20, 999, 1000, 54_321])
def test_lengths_of_an_average_pass(per_pass):
    lengths = np.bincount(random_lengths(500, 3, 40), minlength=65)
    replayed = np.bincount(np.append(random_lengths(999, 10, 50), 64), minlength=65)
    both = Replay(1000, per_pass).lengths_in_a_pass(lengths, replayed)
    assert both.sum() == 500 + per_pass and both.dtype == np.int64
    assert both[64] >= 1  # the one longest example: limits must let it in
    assert np.abs(np.cumsum(both - lengths) - np.cumsum(replayed) * per_pass / 1000).max() <= 1
