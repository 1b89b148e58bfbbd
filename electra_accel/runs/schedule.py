"""The learning rate as a function of the step."""

import math


def learning_rate(step: int, peak: float, *, warmup_steps: int, total_steps: int, schedule: str) -> float:
    """Learning rate of optimizer step ``step`` (0-based), in [0, peak]; a pure function, so nothing has to be resumed.

    Counting from n = step + 1: linear warmup n / warmup_steps, which reaches ``peak`` at n = warmup_steps; then constant,
    or linear or half a cosine down to a last step that is one notch above zero (no step is spent at learning rate 0).
    """
    if not 0 <= step < total_steps:
        raise ValueError(f"step {step} of a run of {total_steps} steps")
    n = step + 1
    if n <= warmup_steps:
        return peak * n / warmup_steps
    done = (n - warmup_steps) / (total_steps + 1 - warmup_steps)
    if schedule == "constant":
        return peak
    if schedule == "linear":
        return peak * (1.0 - done)
    if schedule == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * done))
    raise ValueError(f"unknown schedule {schedule}")
