"""What a micro-batch is measured by: counters that add up over micro-batches and ranks, and figures made from their sums.

Counters stay on the device as one float64 vector (counts are exact, so order does not matter); only logging reads them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from electra_accel.batch import RTDBatch
from electra_accel.model.figures import FIGURES, ratio


class SlotFigures(NamedTuple):
    """What the generator said at the slots, without gradient."""

    sampled: torch.Tensor  # int64 [R, S]; drawn replacement
    argmax: torch.Tensor  # int64 [R, S]; most probable token
    entropy: torch.Tensor  # [R, S]; of the generator's distribution, in nats


class Corrections(NamedTuple):
    """What the corrective head said at the slots, without gradient."""

    loss: torch.Tensor  # [R, S] in nats, 0 at unused slots
    argmax: torch.Tensor  # int64 [R, S]; most probable token


class Facts(NamedTuple):
    """What a micro-batch is counted from; None where there is no discriminator, or no corrective head."""

    batch: RTDBatch
    slots: SlotFigures
    loss: torch.Tensor  # the generator's, [R, S] in nats, 0 at unused slots
    token_loss: torch.Tensor | None = None  # the discriminator's, [R, T], 0 on padding
    judged: torch.Tensor | None = None  # bool [R, T]; real tokens without [CLS] and [SEP]
    selected: torch.Tensor | None = None  # bool [R, T]; where a slot points at
    replaced: torch.Tensor | None = None  # bool [R, T]; differs from the original
    positive: torch.Tensor | None = None  # bool [R, T]; judged and called replaced
    correct: torch.Tensor | None = None  # bool [R, T]; judged rightly
    corrections: Corrections | None = None

    @property
    def named(self) -> torch.Tensor:
        """bool [R, S]: the corrective head's most probable token is the original."""
        return (self.corrections.argmax == self.batch.slot_labels) & self.batch.slot_used

    @property
    def differs(self) -> torch.Tensor:
        """bool [R, S]: the discriminator read another token than the original."""
        return self.slots.sampled != self.batch.slot_labels


# Each counter is the sum of these terms over a micro-batch. What figures they make: see figures.py.
OF_GENERATOR = {
    "selected": lambda f: f.batch.slot_used,  # positions that the generator is trained on
    "tokens": lambda f: f.batch.real,  # [CLS] and [SEP] included: what the discriminator's loss is a mean over
    "generator_loss": lambda f: f.loss,
    "generator_loss_squared": lambda f: f.loss.double().square(),  # for the standard error of the mean
    # The most probable token is the original. Where the distribution is NaN, there is no most probable token.
    "generator_correct": lambda f: (
        ((f.slots.argmax == f.batch.slot_labels) & f.batch.slot_used) + _nan_where(f.loss.isnan())
    ),
    "generator_entropy": lambda f: f.slots.entropy * f.batch.slot_used,
}
OF_TOKENS = {
    "judged": lambda f: f.judged,  # 0 where there is no discriminator
    "discriminator_loss": lambda f: f.token_loss,
    "discriminator_loss_squared": lambda f: f.token_loss.double().square(),
    "replaced": lambda f: f.replaced,
}
OF_VERDICTS = {  # positive: called replaced, that is probability over 1/2
    "true_positives": lambda f: f.positive & f.replaced,
    "false_positives": lambda f: f.positive & ~f.replaced,
    "correct_selected": lambda f: f.correct & f.selected,
    "correct_unselected": lambda f: f.correct & ~f.selected,
}
SCALARS = (*OF_GENERATOR, *OF_TOKENS, *OF_VERDICTS)
OF_CORRECTIONS = {  # where NaN is among the logits, there is no most probable token
    "corrective_loss": lambda f: f.corrections.loss,
    "corrective_loss_squared": lambda f: f.corrections.loss.double().square(),
    "corrected_replaced": lambda f: (f.named & f.differs) + _nan_where(f.corrections.loss.isnan()),
    "corrected_kept": lambda f: (f.named & ~f.differs) + _nan_where(f.corrections.loss.isnan()),
}
# Histogram of the discriminator's logits, for ROC-AUC and calibration: originals first, then replaced tokens. Equal steps of
# the logit resolve probabilities near 0 and 1 as well as those in the middle; what lies outside falls into the end bins.
LOGIT_LIMIT = 10.0
BINS = 1000
CALIBRATION_BINS = 20  # of the probability, equally wide


@torch.no_grad()
def count(
    batch: RTDBatch,
    slots: SlotFigures,
    generator_loss: torch.Tensor,
    discriminator_loss: torch.Tensor,
    logits: torch.Tensor,
    replaced: torch.Tensor,
    corrections: Corrections | None = None,
) -> torch.Tensor:
    """The counters of one micro-batch: float64 [len(SCALARS) + 2 * BINS] on its device, and with ``corrections`` those of
    ``OF_CORRECTIONS`` behind them.

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
    losses = generator_loss, discriminator_loss
    facts = Facts(batch, slots, *losses, judged, selected, replaced, positive & judged, correct, corrections)
    # Clamped before it is an integer, which infinity cannot be.
    places = ((logits.float() + LOGIT_LIMIT) * (BINS / (2 * LOGIT_LIMIT))).clamp(0, BINS - 1)
    bins = places.nan_to_num().long() + BINS * replaced
    histogram = torch.zeros(2 * BINS, dtype=torch.float64, device=logits.device)
    histogram.index_add_(0, bins.flatten(), judged.flatten().to(torch.float64))
    # NaN is neither over 1/2 nor under it: with one such token all verdicts, and what is made of them, are NaN.
    verdicts = torch.cat([_sums(OF_VERDICTS, facts), histogram]) + _nan_where(logits.isnan() & judged)
    known = [_sums(OF_GENERATOR | OF_TOKENS, facts), verdicts]
    return torch.cat(known if corrections is None else [*known, _sums(OF_CORRECTIONS, facts)])


@torch.no_grad()
def count_generator(batch: RTDBatch, slots: SlotFigures, generator_loss: torch.Tensor) -> torch.Tensor:
    """The counters of one micro-batch of masked language modelling: as of :func:`count`, without any verdicts."""
    scalars = _sums(OF_GENERATOR, Facts(batch, slots, generator_loss))
    return torch.nn.functional.pad(scalars, (0, len(SCALARS) + 2 * BINS - len(scalars)))


def _nan_where(wrong: torch.Tensor) -> torch.Tensor:
    """float64, 0-d: 0, or NaN where any of ``wrong`` is True; to be added."""
    return torch.where(wrong, math.nan, 0.0).sum(dtype=torch.float64)


def _sums(terms: dict[str, Callable[[Facts], torch.Tensor]], facts: Facts) -> torch.Tensor:
    return torch.stack([term(facts).sum(dtype=torch.float64) for term in terms.values()])


def summarise(counters: torch.Tensor) -> dict[str, float]:
    """The figures of any sum of counters, as plain numbers; what has no denominator (nothing selected, …) is NaN.

    Tokens of one bin of the histogram count as tied in ROC-AUC. Without counters of a corrective head it has no figures.
    """
    counters = counters.cpu()  # the one place where the host waits for the device
    ordered, below = 0.0, 0.0
    for negatives, positives in zip(*(part.tolist() for part in _histogram(counters)), strict=True):
        ordered += positives * (below + negatives / 2)
        below += negatives
    counts = _counts(counters) | {"ordered_pairs": ordered}
    found = {key: figure.of(counts) for key, figure in FIGURES.items() if figure.of}
    return {key: value for key, value in found.items() if value is not None}


def _histogram(counters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Judged tokens by their logit, [BINS] each: originals, and replaced ones."""
    return counters[len(SCALARS) :].split([BINS, BINS, len(counters) - len(SCALARS) - 2 * BINS])[:2]


def _counts(counters: torch.Tensor) -> dict[str, float]:
    """The counters by name, without the histogram."""
    values = counters.tolist()
    corrections = values[len(SCALARS) + 2 * BINS :]
    return dict(zip(SCALARS, values, strict=False)) | dict(zip(OF_CORRECTIONS, corrections, strict=False))


def standard_errors(counters: torch.Tensor) -> dict[str, float]:
    """Of the mean losses, in nats: how far they may be off because the text is a sample. Tokens count as independent."""
    c, errors = _counts(counters), {}
    numbers = {"generator_loss": c["selected"], "discriminator_loss": c["tokens"] if c["judged"] else 0}
    numbers |= {"corrective_loss": c["selected"]} if "corrective_loss" in c else {}
    for loss, number in numbers.items():
        mean = ratio(c[loss], number)
        variance = max(ratio(c[f"{loss}_squared"], number) - mean**2, 0.0)
        errors[f"{loss}_se"] = math.sqrt(ratio(variance, number))
    return errors


class Calibration(NamedTuple):
    """Whether the discriminator's probabilities are true."""

    error: float  # the mean of |probability - share that really was replaced| over tokens, taken by bin
    # (mean probability, share really replaced, tokens) of each bin of the probability that has tokens.
    bins: list[tuple[float, float, int]]


def calibration(counters: torch.Tensor) -> Calibration:
    """From the histogram of logits; a token's probability is that of the middle of its histogram bin."""
    original, replaced = _histogram(counters.cpu())
    middle = (torch.arange(BINS, dtype=torch.float64) + 0.5) * (2 * LOGIT_LIMIT / BINS) - LOGIT_LIMIT
    probability = middle.sigmoid()
    place = (probability * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    empty = torch.zeros(CALIBRATION_BINS, dtype=torch.float64)
    tokens = empty.index_add(0, place, original + replaced)
    said = empty.index_add(0, place, (original + replaced) * probability)
    true = empty.index_add(0, place, replaced)
    error = ratio((said - true).abs().sum().item(), tokens.sum().item())
    bins = [(p / n, t / n, int(n)) for p, t, n in zip(said.tolist(), true.tolist(), tokens.tolist()) if n > 0]
    return Calibration(error, bins)
