import copy
import math

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from electra_accel.model.metrics import (
    BINS,
    SCALARS,
    calibration,
    standard_errors,
    summarise,
)
from electra_accel.model.rtd import ReplacedTokenDetection
from tests.model.batches import CLS, SEP, pack_examples, toy_examples, toy_pair


@pytest.fixture(scope="module")
def evaluated(trained_pair):
    model = ReplacedTokenDetection(*copy.deepcopy(trained_pair)).eval()
    batch, _ = pack_examples(toy_examples(300, seed=11), rows=130)
    with torch.no_grad():
        return batch, model(batch)


def test_figures_agree_with_scikit_learn(evaluated):
    batch, output = evaluated
    figures = summarise(output.counters)
    read = batch.input_ids.scatter(
        1, batch.slot_positions, torch.where(batch.slot_used, output.sampled, batch.slot_labels)
    )
    special = torch.isin(batch.input_ids, torch.tensor([CLS, SEP]))  # never replaced, so not judged
    real = (batch.real & ~special).numpy()
    label, logit = (read != batch.input_ids).numpy()[real], output.discriminator_logits.numpy()[real]
    selected = torch.zeros_like(batch.real).scatter(1, batch.slot_positions, batch.slot_used).numpy()[real]
    called = logit > 0
    assert 0 < label.sum() < len(label) and 0 < called.sum() < len(called)

    def close(value):
        return pytest.approx(value, rel=1e-9)

    assert figures["discriminator_accuracy"] == close(reference.accuracy_score(label, called))
    assert figures["precision"] == close(reference.precision_score(label, called))
    assert figures["recall"] == close(reference.recall_score(label, called))
    assert figures["f1"] == close(reference.f1_score(label, called))
    right = label == called
    assert figures["balanced_accuracy"] == close((right[selected].mean() + right[~selected].mean()) / 2)
    assert figures["predicted_positive_rate"] == close(called.mean())
    assert figures["replaced_fraction"] == close(label.mean())
    assert figures["auc"] == pytest.approx(reference.roc_auc_score(label, logit), abs=2e-3)  # histogram of 1000 bins
    everything = (read != batch.input_ids)[batch.real].numpy()  # the loss is over all real tokens
    probability = 1 / (1 + np.exp(-output.discriminator_logits[batch.real].numpy().astype(np.float64)))
    assert figures["discriminator_loss"] == pytest.approx(reference.log_loss(everything, probability), rel=1e-5)
    correct = (output.generator_argmax == batch.slot_labels)[batch.slot_used].float().mean().item()
    assert figures["generator_accuracy"] == pytest.approx(correct, rel=1e-6)
    assert figures["generator_loss"] == pytest.approx(output.generator_loss_sum.item() / len(right[selected]), rel=1e-6)
    assert 0 < figures["generator_entropy"] < math.log(300)


def test_standard_errors_are_those_of_the_mean_over_tokens(trained_pair, evaluated):
    """Against numpy's, from the stock heads' logits."""
    batch, output = evaluated
    errors = standard_errors(output.counters)
    read = batch.input_ids.scatter(
        1, batch.slot_positions, torch.where(batch.slot_used, output.sampled, batch.slot_labels)
    )
    replaced = (read != batch.input_ids).float()
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        output.discriminator_logits, replaced, reduction="none"
    )[batch.real].double()
    assert errors["discriminator_loss_se"] == pytest.approx(
        float(losses.std(correction=0)) / len(losses) ** 0.5, rel=1e-5
    )
    number = int(batch.slot_used.sum())
    c = dict(zip(SCALARS, output.counters.tolist(), strict=False))
    mean = output.generator_loss_sum.item() / number
    assert errors["generator_loss_se"] == pytest.approx(
        ((c["generator_loss_squared"] / number - mean**2) / number) ** 0.5, rel=1e-4
    )
    assert c["generator_loss_squared"] > mean**2 * number, "no variance: the squares are not sums over single positions"


def test_calibration_is_scikit_learns_curve(evaluated):
    """Probabilities are known to a thousandth of the logit's range; the end bins lump what is beyond it."""
    batch, output = evaluated
    error, bins = calibration(output.counters)
    read = batch.input_ids.scatter(
        1, batch.slot_positions, torch.where(batch.slot_used, output.sampled, batch.slot_labels)
    )
    judged = batch.inner.numpy()
    label = (read != batch.input_ids).numpy()[judged]
    logit = output.discriminator_logits.double().numpy()[judged]
    middle = (np.floor((logit + 10) * 50).clip(0, 999) + 0.5) / 50 - 10
    probability = 1 / (1 + np.exp(-middle))
    true, said = calibration_curve(label, probability, n_bins=20)
    assert [b[0] for b in bins] == pytest.approx(said.tolist()) and [b[1] for b in bins] == pytest.approx(true.tolist())
    assert sum(b[2] for b in bins) == len(label)
    weights = np.array([b[2] for b in bins]) / len(label)
    assert error == pytest.approx(float(weights @ abs(true - said)))
    assert np.allclose(probability, 1 / (1 + np.exp(-logit.clip(-10, 10))), atol=0.006)


def test_each_judged_token_stands_in_the_histogram_once_and_padding_never(evaluated):
    batch, output = evaluated
    assert not batch.real.all()
    examples = (batch.examples >= 0).sum()
    assert output.counters[SCALARS.index("tokens")] == batch.real.sum()
    assert (
        output.counters[SCALARS.index("judged")]
        == output.counters[-2 * BINS :].sum()
        == batch.real.sum() - 2 * examples
    )


def test_extreme_logits_fall_into_the_end_bins():
    """A perfect discriminator has AUC 1, a perverse one 0, an indifferent one 1/2."""
    model = ReplacedTokenDetection(*toy_pair()).eval()
    batch, _ = pack_examples(toy_examples(40))
    replacements = batch.slot_labels + 1
    label = torch.zeros_like(batch.real).scatter(1, batch.slot_positions, batch.slot_used).to(torch.float32)
    scale = torch.nn.Parameter(torch.tensor(1.0))
    model.discriminator.discriminator_predictions.register_forward_hook(lambda *_: (2 * label - 1) * scale)
    for value, auc in ((1e6, 1.0), (0.5, 1.0), (-3.0, 0.0), (0.0, 0.5)):
        scale.data.fill_(value)
        assert summarise(model(batch, replacements).counters)["auc"] == auc


def test_infinite_logits_are_ranked():
    model = ReplacedTokenDetection(*toy_pair()).eval()
    batch, _ = pack_examples(toy_examples(40))
    label = torch.zeros_like(batch.real).scatter(1, batch.slot_positions, batch.slot_used)
    model.discriminator.discriminator_predictions.register_forward_hook(
        lambda *_: torch.where(label, torch.inf, -torch.inf)
    )
    figures = summarise(model(batch, batch.slot_labels + 1).counters)
    assert (figures["auc"], figures["recall"], figures["precision"]) == (1, 1, 1)


def test_what_is_computed_from_nan_is_nan():
    """Not the figures of a discriminator that calls every token original, nor those of a generator that says token 0."""
    batch, _ = pack_examples(toy_examples(40))
    generator = {"generator_loss", "generator_accuracy", "generator_entropy"}

    def figures(network: str, own: bool = False) -> dict[str, float]:
        model = ReplacedTokenDetection(*toy_pair()).eval()
        head = (
            model.generator.generator_lm_head
            if network == "generator"
            else model.discriminator.discriminator_predictions
        )
        # one token's logits alone: everything is a mean or a ranking over all of them
        head.register_forward_hook(lambda module, inputs, logits: logits.index_fill(0, torch.tensor([0]), math.nan))
        counters = model(batch, None if own else batch.slot_labels + 1).counters
        assert math.isnan(calibration(counters).error) == (network == "discriminator")
        return summarise(counters)

    known = {name for name, value in figures("discriminator").items() if not math.isnan(value)}
    assert known == generator | {"replaced_fraction"}
    known = {name for name, value in figures("generator").items() if not math.isnan(value)}
    assert known == figures("generator").keys() - generator


def test_without_a_denominator_a_figure_is_nan():
    batch, _ = pack_examples([], rows=2)
    figures = summarise(ReplacedTokenDetection(*toy_pair())(batch).counters)
    assert all(math.isnan(value) for value in figures.values())
