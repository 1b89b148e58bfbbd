"""Standard errors against what really happens: figures of many made-up held-out sets, and how far they scatter."""

import math

import numpy as np
import pytest

from electra_accel.tracking.intervals import auc_error, standard_errors

TOKENS, SETS = 1500, 400
SELECTED, KEPT, RIGHT = (
    0.15,
    0.3,
    0.25,
)  # shares: of tokens; of the selected, sampled as they were; guessed by the generator


def auc(replaced: np.ndarray, original: np.ndarray) -> float:
    return (replaced[:, None] > original).mean()


def held_out_set(random: np.random.Generator) -> dict[str, float]:
    """Figures of independent tokens, of which the replaced ones score one standard deviation higher."""
    selected = random.random(TOKENS) < SELECTED
    replaced = selected & (random.random(TOKENS) > KEPT)
    score = random.normal(size=TOKENS) + replaced - 0.8
    called = score > 0
    correct, caught = called == replaced, called & replaced
    loss = random.gamma(2.0, 1.5, size=selected.sum())
    return {
        "selected": selected.sum(),
        "generator_entropy": 1.0,
        "generator_accuracy": (random.random(selected.sum()) < RIGHT).mean(),
        "generator_loss": loss.mean(),
        "generator_loss_se": loss.std() / math.sqrt(len(loss)),
        "discriminator_accuracy": correct.mean(),
        "balanced_accuracy": (correct[selected].mean() + correct[~selected].mean()) / 2,
        "precision": caught.sum() / called.sum(),
        "recall": caught.sum() / replaced.sum(),
        "f1": 2 * caught.sum() / (called.sum() + replaced.sum()),
        "auc": auc(score[replaced], score[~replaced]),
        "predicted_positive_rate": called.mean(),
        "replaced_fraction": replaced.mean(),
    }


def test_the_errors_are_those_of_repeated_sampling():
    random = np.random.default_rng(1)
    sets = [held_out_set(random) for _ in range(SETS)]
    predicted = [standard_errors(figures, selected=figures["selected"], judged=TOKENS) for figures in sets]
    names = predicted[0].keys()
    assert names == sets[0].keys() - {"selected", "generator_entropy", "generator_loss_se"}
    for name in names:
        ratio = np.mean([errors[name] for errors in predicted]) / np.std([figures[name] for figures in sets])
        assert 0.9 < ratio < 1.2, (name, ratio)  # that of the AUC is on the safe side for normal scores


def test_the_error_of_an_auc_is_exact_under_the_authors_assumption():
    """Hanley and McNeil's formula is exact for negative exponential scores."""
    random, replaced, original, ratio = np.random.default_rng(2), 40, 200, 3.0
    found = [auc(random.exponential(ratio, replaced), random.exponential(1.0, original)) for _ in range(3000)]
    assert auc_error(ratio / (1 + ratio), replaced, original) == pytest.approx(np.std(found), rel=0.05)


def test_what_cannot_be_known_is_left_out():
    nothing = {"recall": None, "precision": math.nan, "auc": None, "f1": None, "replaced_fraction": 0.0}
    assert standard_errors(nothing, selected=0, judged=10) == {"replaced_fraction": 0.0}
    assert standard_errors({}, selected=0, judged=0) == {}
    perfect = {"auc": 1.0, "f1": 1.0, "recall": 1.0, "balanced_accuracy": 1.0, "discriminator_accuracy": 1.0}
    shares = {"replaced_fraction": 0.1, "predicted_positive_rate": 0.1}
    errors = standard_errors(perfect | shares, selected=15, judged=100)
    assert {name: errors[name] for name in perfect} == dict.fromkeys(perfect, 0.0)
