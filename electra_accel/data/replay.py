"""Replay: general examples that each pass over the training text has among its own, so that less is forgotten.

A pass holds a fixed number of *places* for replay examples. They are filled from an endless order: cycle after cycle over
the replay text, each in keyed random order. So every replay example comes once in a cycle, however many passes one takes,
and which example stands at a place is a pure function of (seed, corpus, place).
"""

from dataclasses import dataclass

import numpy as np

from electra_accel.randomness import Purpose, key, permute


@dataclass(frozen=True)
class Replay:
    """How much replay text there is, and how much of it a pass takes."""

    examples: int  # of the replay text, at least 1
    per_pass: int  # places for them in each pass over the training text, at least 1

    @classmethod
    def of_fraction(cls, fraction: float, lengths: np.ndarray, replay_lengths: np.ndarray) -> "Replay":
        """So many places that replay makes up ``fraction``, in (0, 1), of the tokens of a pass, on the average of passes.

        Args:
            lengths, replay_lengths: int [longest + 1], number of examples of each length (a manifest's ``lengths``).
        """
        examples = int(np.sum(replay_lengths))
        mean_length = np.dot(replay_lengths, np.arange(len(replay_lengths))) / examples
        tokens = np.dot(lengths, np.arange(len(lengths)))
        return cls(examples, max(1, round(fraction / (1 - fraction) * tokens / mean_length)))

    def at(self, places: np.ndarray, seed: int, corpus: int) -> tuple[np.ndarray, np.ndarray]:
        """The cycle and the example (0 … examples - 1) at places of the endless order: int64, same shape."""
        cycles, positions = np.divmod(places, self.examples)
        result = np.empty_like(positions)
        for cycle in np.unique(cycles).tolist():
            here = cycles == cycle
            result[here] = permute(positions[here], self.examples, key(seed, corpus, cycle, Purpose.REPLAY))
        return cycles, result

    def lengths_in_a_pass(self, lengths: np.ndarray, replay_lengths: np.ndarray) -> np.ndarray:
        """How many examples of each length an average pass holds: int64 [longest + 1], training and replay together.

        For :func:`~electra_accel.data.packing.choose_limits` and :func:`~electra_accel.data.plan.steps_in_passes`: the
        sum is exact, and the longest replay example is among them even where it is rarer than once in a pass.
        """
        as_long = np.cumsum(replay_lengths[::-1])[::-1]  # replay examples of so many tokens or more
        rounded_up = -(-as_long * self.per_pass // self.examples)
        return lengths + rounded_up - np.append(rounded_up[1:], 0)
