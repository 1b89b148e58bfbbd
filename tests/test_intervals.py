"""Standard errors against what really happens: figures of many made-up held-out sets, and how far they scatter."""

import math

import numpy as np
import pytest
from scipy import stats

from electra_accel.intervals import Z95, auc_error, proportion_error
from electra_accel.model.figures import standard_errors

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


@pytest.mark.parametrize("share", [0.0002, 0.001, 0.003, 0.02, 0.15, 0.5, 0.85, 0.997, 0.9998])
def test_intervals_of_shares_hold_the_true_share(share):
    """In 93 of 100 samples at least, exactly: over all counts of 2,000 tokens. The bare error has 33 of 100 at 0.0002."""
    counted = np.arange(2001)
    errors = np.array([proportion_error(count / 2000, 2000) for count in counted])
    held = np.abs(counted / 2000 - share) <= Z95 * errors
    assert stats.binom.pmf(counted[held], 2000, share).sum() > 0.93


def test_a_figure_at_its_end_is_not_certain():
    """A young discriminator calls no token replaced: it has caught 0 of 40, which leaves room for a recall of 0.06."""
    young = {"recall": 0.0, "f1": 0.0, "predicted_positive_rate": 0.0, "replaced_fraction": 0.1}
    beginning = standard_errors(young, selected=60, judged=400)
    assert Z95 * beginning["recall"] == pytest.approx(0.0616, abs=1e-4)
    perfect = {"recall": 1.0, "f1": 1.0, "balanced_accuracy": 1.0, "discriminator_accuracy": 1.0}
    both = {"replaced_fraction": 0.1, "predicted_positive_rate": 0.1}
    for errors in (beginning, standard_errors(perfect | both, selected=60, judged=400)):
        assert all(error > 0 for error in errors.values()), errors


def test_what_cannot_be_known_is_left_out():
    nothing = {"recall": None, "precision": math.nan, "auc": None, "f1": None, "replaced_fraction": 0.0}
    assert standard_errors(nothing, selected=0, judged=10).keys() == {"replaced_fraction"}
    assert standard_errors({}, selected=0, judged=0) == {}
