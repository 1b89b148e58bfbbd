"""Collapse watch: signs in a run's training figures that one of the two networks has nothing left to learn from the other.

A young run shows some of them too (a fresh discriminator calls nothing replaced), so nothing is watched before
:func:`watched_from`.
"""

import math

# Each with its likely cause, as told once to the person who watches.
CHECKS = {
    "calls_nothing": "the discriminator calls almost no token replaced: it has not begun to tell them apart, which is usual "
    "early in a run. If it lasts, a larger objective.mask_prob (more replaced tokens to learn from) or another "
    "optim.learning_rate helps",
    "calls_everything": "the discriminator calls almost every token replaced: the loss has probably diverged. Lower "
    "optim.learning_rate, or lengthen optim.warmup_steps",
    "misses_replaced": "the discriminator's accuracy is high because most tokens are original; it finds hardly any of the "
    "replaced ones. More steps, a larger objective.mask_prob or objective.discriminator_weight help",
    "sure_generator": "the generator's distribution has collapsed to single tokens: the text may repeat itself, or the "
    "learning rate is too high. Look at the reconstructions",
    "nothing_replaced": "almost no token is replaced, so the discriminator has nothing to find: the generator knows the text "
    "by heart (a smaller model.generator_width helps), or objective.mask_prob is too small",
}

REMIND_STEPS = 1000  # a check that has not held for so long is told of again


def watched_from(warmup_steps: int, total_steps: int) -> int:
    """The step from which on figures are judged: after the warmup and the first tenth of the run, 100 to 10,000 steps."""
    return max(warmup_steps, min(max(total_steps // 10, 100), 10_000))


def diagnose(figures: dict[str, float]) -> dict[str, int]:
    """1 for each of ``CHECKS`` that holds for the training figures of a window (``train/…``), else 0."""

    def value(name: str) -> float:
        return figures.get(f"train/{name}", math.nan)  # a comparison with NaN is False

    called = value("predicted_positive_rate")
    found = {
        "calls_nothing": called < 0.005,
        "calls_everything": called > 0.95,
        # A published run ended with accuracy .867 at recall .048.
        "misses_replaced": called >= 0.005 and value("recall") < 0.1 and value("discriminator_accuracy") > 0.75,
        "sure_generator": value("generator_entropy") < 0.1,
        "nothing_replaced": value("replaced_fraction") < 0.005,
    }
    return {name: int(found[name]) for name in CHECKS}
