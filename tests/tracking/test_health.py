"""Collapse watch: which figures raise which alarm, and that a young run raises none."""

import math

import pytest

from electra_accel.tracking.health import CHECKS, diagnose, watched_from

HEALTHY = {
    "train/predicted_positive_rate": 0.11,
    "train/recall": 0.6,
    "train/discriminator_accuracy": 0.92,
    "train/generator_entropy": 3.5,
    "train/replaced_fraction": 0.09,
}


def alarms(**changed: float) -> list[str]:
    figures = HEALTHY | {f"train/{name}": value for name, value in changed.items()}
    return [name for name, holds in diagnose(figures).items() if holds]


def test_each_collapse_raises_its_own_alarm_and_no_other():
    assert alarms() == []
    assert alarms(predicted_positive_rate=0.001, recall=0.01, discriminator_accuracy=0.9) == ["calls_nothing"]
    assert alarms(predicted_positive_rate=0.99) == ["calls_everything"]
    # a published run: accuracy .867 at recall .048
    assert alarms(predicted_positive_rate=0.01, recall=0.048, discriminator_accuracy=0.867) == ["misses_replaced"]
    assert alarms(generator_entropy=0.02) == ["sure_generator"]
    assert alarms(replaced_fraction=0.001, recall=0.5) == ["nothing_replaced"]


def test_figures_without_a_denominator_raise_no_alarm():
    assert alarms(recall=math.nan, generator_entropy=math.nan, predicted_positive_rate=math.nan) == []
    assert set(diagnose({})) == set(CHECKS) and not any(diagnose({}).values())


@pytest.mark.parametrize(
    ("warmup", "total", "first"), [(80, 1000, 100), (500, 1300, 500), (10_000, 1_000_000, 10_000), (0, 5, 100)]
)
def test_a_young_run_is_left_alone(warmup, total, first):
    assert watched_from(warmup, total) == first
