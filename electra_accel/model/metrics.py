"""What a micro-batch is measured by: counters that add up over micro-batches and ranks, and figures made from their sums.

Counters stay on the device as one float64 vector (counts are exact, so order does not matter); only logging reads them.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from transformers import ElectraConfig

from electra_accel.batch import RTDBatch

SCALARS = (
    "selected",  # positions that the generator is trained on
    "tokens",  # real tokens, [CLS] and [SEP] included: what the discriminator's loss is a mean over
    "generator_loss",  # sum of nats over selected positions
    "generator_loss_squared",  # sum of the squares, for the standard error of the mean
    "generator_correct",  # selected positions where the most probable token is the original
    "generator_entropy",  # sum of nats over selected positions
    "judged",  # real tokens without [CLS] and [SEP]: what the figures below are about; 0 where there is no discriminator
    "discriminator_loss",  # sum of nats over real tokens
    "discriminator_loss_squared",
    "replaced",  # judged tokens that differ from the original
    "true_positives",  # positive: called replaced, that is probability over 1/2
    "false_positives",
    "correct_selected",  # right verdicts on selected positions
    "correct_unselected",  # right verdicts on the other judged tokens
)
# Histogram of the discriminator's logits, for ROC-AUC and calibration: originals first, then replaced tokens. Equal steps of
# the logit resolve probabilities near 0 and 1 as well as those in the middle; what lies outside falls into the end bins.
LOGIT_LIMIT = 10.0
BINS = 1000
CALIBRATION_BINS = 20  # of the probability, equally wide


class SlotFigures(NamedTuple):
    """What the generator said at the slots, without gradient.

    Attributes:
        sampled, argmax: int64 [R, S]; drawn replacement, most probable token.
        entropy: [R, S]; of the generator's distribution, in nats.
    """

    sampled: torch.Tensor
    argmax: torch.Tensor
    entropy: torch.Tensor


@torch.no_grad()
def count(
    batch: RTDBatch,
    slots: SlotFigures,
    generator_loss: torch.Tensor,
    discriminator_loss: torch.Tensor,
    logits: torch.Tensor,
    replaced: torch.Tensor,
) -> torch.Tensor:
    """The counters of one micro-batch: float64 [len(SCALARS) + 2 * BINS] on its device.

    [CLS] and [SEP] are never replaced; verdicts on them would only flatter accuracy and AUC, so they are not counted.

    Args:
        generator_loss: [R, S] in nats, 0 at unused slots; discriminator_loss: [R, T], 0 on padding.
        logits: [R, T]; the discriminator's, positive where it calls a token replaced.
        replaced: bool [R, T]; False on padding.
    """
    judged = batch.inner
    # Unused slots point at column 0, which is never selected, so no True is overwritten.
    selected = torch.zeros_like(judged).scatter(1, batch.slot_positions, batch.slot_used)
    positive = logits > 0
    correct = (positive == replaced) & judged
    facts = (
        *_generator_terms(batch, slots, generator_loss),
        judged,
        discriminator_loss,
        discriminator_loss.double().square(),
        replaced,
    )
    verdicts = (
        positive & replaced,
        positive & ~replaced & judged,
        correct & selected,
        correct & ~selected,
    )
    # Clamped before it is an integer, which infinity cannot be.
    places = ((logits.float() + LOGIT_LIMIT) * (BINS / (2 * LOGIT_LIMIT))).clamp(0, BINS - 1)
    bins = places.nan_to_num().long() + BINS * replaced
    histogram = torch.zeros(2 * BINS, dtype=torch.float64, device=logits.device)
    histogram.index_add_(0, bins.flatten(), judged.flatten().to(torch.float64))
    # NaN is neither over 1/2 nor under it: with one such token all verdicts, and what is made of them, are NaN.
    verdicts = torch.cat([_sums(verdicts), histogram]) + _nan_where(logits.isnan() & judged)
    return torch.cat([_sums(facts), verdicts])


@torch.no_grad()
def count_generator(batch: RTDBatch, slots: SlotFigures, generator_loss: torch.Tensor) -> torch.Tensor:
    """The counters of one micro-batch of masked language modelling: as of :func:`count`, without any verdicts."""
    scalars = _sums(_generator_terms(batch, slots, generator_loss))
    return torch.nn.functional.pad(scalars, (0, len(SCALARS) + 2 * BINS - len(scalars)))


def _generator_terms(batch: RTDBatch, slots: SlotFigures, loss: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What the first of ``SCALARS``, up to the entropy, are the sums of."""
    return (
        batch.slot_used,
        batch.real,
        loss,
        loss.double().square(),
        # Where the distribution is NaN, there is no most probable token.
        ((slots.argmax == batch.slot_labels) & batch.slot_used) + _nan_where(loss.isnan()),
        slots.entropy * batch.slot_used,
    )


def _nan_where(wrong: torch.Tensor) -> torch.Tensor:
    """float64, 0-d: 0, or NaN where any of ``wrong`` is True; to be added."""
    return torch.where(wrong, math.nan, 0.0).sum(dtype=torch.float64)


def _sums(terms: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.stack([term.sum(dtype=torch.float64) for term in terms])


def summarise(counters: torch.Tensor) -> dict[str, float]:
    """The figures of any sum of counters, as plain numbers; what has no denominator (nothing selected, …) is NaN.

    balanced_accuracy is the mean of the accuracies on selected and on unselected tokens. auc is the probability that a
    replaced token has the higher logit than an original one, ties counting half; tokens of one histogram bin count as tied.
    """
    values = counters.tolist()  # the one place where the host waits for the device
    c = dict(zip(SCALARS, values, strict=False))
    original = c["judged"] - c["replaced"]
    selected, tokens = (c["selected"], c["tokens"]) if c["judged"] else (0, 0)  # nothing judged: no discriminator
    precision = _ratio(c["true_positives"], c["true_positives"] + c["false_positives"])
    recall = _ratio(c["true_positives"], c["replaced"])
    correct = c["correct_selected"] + c["correct_unselected"]
    on_selected = _ratio(c["correct_selected"], selected)
    on_unselected = _ratio(c["correct_unselected"], c["judged"] - selected)
    wins, below = 0.0, 0.0
    for negatives, positives in zip(values[-2 * BINS : -BINS], values[-BINS:], strict=True):
        wins += positives * (below + negatives / 2)
        below += negatives
    return {
        "generator_loss": _ratio(c["generator_loss"], c["selected"]),
        "generator_accuracy": _ratio(c["generator_correct"], c["selected"]),
        "generator_entropy": _ratio(c["generator_entropy"], c["selected"]),
        "discriminator_loss": _ratio(c["discriminator_loss"], tokens),
        "discriminator_accuracy": _ratio(correct, c["judged"]),
        "balanced_accuracy": (on_selected + on_unselected) / 2,
        "precision": precision,
        "recall": recall,
        "f1": _ratio(2 * c["true_positives"], c["true_positives"] + c["false_positives"] + c["replaced"]),
        "auc": _ratio(wins, c["replaced"] * original),
        "predicted_positive_rate": _ratio(c["true_positives"] + c["false_positives"], c["judged"]),
        "replaced_fraction": _ratio(c["replaced"], c["judged"]),
    }


def standard_errors(counters: torch.Tensor) -> dict[str, float]:
    """Of the two mean losses, in nats: how far they may be off because the text is a sample. Tokens count as independent."""
    c = dict(zip(SCALARS, counters.tolist(), strict=False))
    errors = {}
    tokens = c["tokens"] if c["judged"] else 0
    for loss, number in (("generator_loss", c["selected"]), ("discriminator_loss", tokens)):
        mean = _ratio(c[loss], number)
        variance = max(_ratio(c[f"{loss}_squared"], number) - mean**2, 0.0)
        errors[f"{loss}_se"] = math.sqrt(_ratio(variance, number))
    return errors


class Calibration(NamedTuple):
    """Whether the discriminator's probabilities are true.

    Attributes:
        error: expected calibration error, the mean of |probability - share that really was replaced| over tokens, taken by bin.
        bins: (mean probability, share really replaced, tokens) of each bin of the probability that has tokens.
    """

    error: float
    bins: list[tuple[float, float, int]]


def calibration(counters: torch.Tensor) -> Calibration:
    """From the histogram of logits; a token's probability is that of the middle of its histogram bin."""
    original, replaced = counters[-2 * BINS : -BINS].cpu(), counters[-BINS:].cpu()
    middle = (torch.arange(BINS, dtype=torch.float64) + 0.5) * (2 * LOGIT_LIMIT / BINS) - LOGIT_LIMIT
    probability = middle.sigmoid()
    place = (probability * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    empty = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    tokens = empty.index_add(0, place, original + replaced)
    said = empty.index_add(0, place, (original + replaced) * probability)
    true = empty.index_add(0, place, replaced)
    error = _ratio((said - true).abs().sum().item(), tokens.sum().item())
    bins = [(p / n, t / n, int(n)) for p, t, n in zip(said.tolist(), true.tolist(), tokens.tolist()) if n > 0]
    return Calibration(error, bins)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def training_flops(
    generator: ElectraConfig, discriminator: ElectraConfig | None, context: float
) -> tuple[float, float]:
    """Floating point operations of forward and backward: (per real token, per selected position).

    A matrix product of n inputs and m outputs costs 2nm, its backward twice that. Per layer of hidden size H and inner size
    F: four H x H projections, two H x F, and 4 * H * context for the scores and their weighted sum. The LM head (H x E, then
    E x V) runs at selected positions only, the discriminator's (H x H, then H x 1) at every token. Embedding look-ups,
    LayerNorm and activations are left out, as is customary. Total: tokens * first + selected * second.

    Args:
        discriminator: None for masked language modelling by the generator alone.
        context: number of tokens that a token attends to, on average: the mean length of a token's example.
    """

    def encoder(c: ElectraConfig) -> float:
        layer = 2 * (4 * c.hidden_size**2 + 2 * c.hidden_size * c.intermediate_size) + 4 * c.hidden_size * context
        project = 2 * c.embedding_size * c.hidden_size if c.embedding_size != c.hidden_size else 0
        return c.num_hidden_layers * layer + project

    def judge(c: ElectraConfig) -> float:
        return encoder(c) + 2 * c.hidden_size**2 + 2 * c.hidden_size

    lm_head = 2 * generator.embedding_size * (generator.hidden_size + generator.vocab_size)
    per_token = encoder(generator) + (judge(discriminator) if discriminator else 0)
    return 3.0 * per_token, 3.0 * lm_head


# Dense bf16 (V100: fp16) peak in FLOP/s, from the makers' data sheets. All words of a key must occur in the card's name.
_PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "A40": 150e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L4": 121e12,
    "V100": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def peak_flops(card: str) -> float | None:
    """Dense half precision peak in FLOP/s of a card by its name (``torch.cuda.get_device_name``); None if unknown."""
    words = set(card.replace("-", " ").split())
    return next((peak for name, peak in _PEAK_FLOPS.items() if words.issuperset(name.split())), None)
