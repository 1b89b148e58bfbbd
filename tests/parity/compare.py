"""Two recorded runs of the same global steps on different hardware: what is equal, and by how much the rest differs."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch

from electra_accel.engines.state import MODEL_FILE
from electra_accel.runs import checkpoint, run_folder

INTEGERS = ("examples", "positions", "used", "corrupted")


@dataclass(frozen=True)
class Run:
    """A finished run of tests/parity/recorded.py.

    Attributes:
        folder: its run folder.
        processes: world size.
        bins: of a global step.
    """

    folder: Path
    processes: int
    bins: int

    def decisions(self) -> dict[str, np.ndarray]:
        """Each [steps, bins, …], bins in the order of the plan, whichever process and micro-batch computed them."""
        ranks = [np.load(self.folder / f"recorded-{rank}.npz") for rank in range(self.processes)]
        steps = len(self.losses())
        result = {}
        for name in ranks[0].files:
            # [calls, rows, …] of each process -> [steps, micro-batches of a process, processes, rows, …]
            parts = np.stack([rank[name] for rank in ranks], axis=1)
            parts = parts.reshape(steps, -1, *parts.shape[1:])
            result[name] = parts.reshape(steps, -1, *parts.shape[4:])[:, : self.bins]
        return result

    def losses(self) -> np.ndarray:
        """float64 [steps]."""
        return self._figures("train/loss")

    def gradient_norms(self) -> np.ndarray:
        """float64 [steps], before clipping."""
        return self._figures("train/gradient_norm")

    def _figures(self, name: str) -> np.ndarray:
        records = run_folder.read_jsonl(self.folder / run_folder.METRICS)
        return np.array([record[name] for record in records if name in record], dtype=float)  # null: not finite

    def weights(self) -> dict[str, np.ndarray]:
        """Of the last checkpoint: whole tensors, tied ones once."""
        _, path = checkpoint.existing(self.folder / run_folder.CHECKPOINTS)[-1]
        return {name: tensor.numpy() for name, tensor in safetensors.torch.load_file(path / MODEL_FILE).items()}


@dataclass(frozen=True)
class Difference:
    """Of a run from its reference.

    Attributes:
        loss: greatest relative difference of a step's loss before the first flip.
        norm: the same of the gradient's norm.
        loss_after: the loss's over all steps.
        weight: greatest absolute difference of a weight after the last step.
        slots: samples compared.
        flips: samples that differ.
        first: step of the first of them; None where there is none.
        shift: how far apart the two runs had the boundary that the first flipped numbers lie between, as a share of the
            whole distribution. Rounding moves boundaries by some 1e-7 in fp32; a wrong sample would be far from any.
    """

    loss: float
    norm: float
    loss_after: float
    weight: float
    slots: int
    flips: int
    first: int | None
    shift: float


def compare(run: Run, reference: Run) -> Difference:
    """Raises AssertionError unless order, masked positions and mask or keep are the same integers."""
    mine, theirs = run.decisions(), reference.decisions()
    for name in INTEGERS:
        assert np.array_equal(mine[name], theirs[name]), (
            f"{run.folder.name}: {name} differ from {reference.folder.name}"
        )
    used = mine["used"]
    differ = (mine["sampled"] != theirs["sampled"]) & used
    steps = np.flatnonzero(differ.any(axis=(1, 2)))
    first = int(steps[0]) if len(steps) else None
    shift = 0.0
    if first is not None:
        flipped = differ[first]
        names = ("sampled", "low", "high")
        a, b = ({name: decisions[name][first][flipped] for name in names} for decisions in (mine, theirs))
        # Of the two tokens, the lower one's interval ends where the upper one's begins; each run has its own boundary.
        shift = np.where(a["sampled"] < b["sampled"], a["high"] - b["low"], b["high"] - a["low"])
        shift = float(np.abs(shift).max())
    weights, wanted = run.weights(), reference.weights()
    assert weights.keys() == wanted.keys()
    return Difference(
        loss=_relative(run.losses()[:first], reference.losses()[:first]),
        norm=_relative(run.gradient_norms()[:first], reference.gradient_norms()[:first]),
        loss_after=_relative(run.losses(), reference.losses()),
        weight=max(float(np.abs(weights[name] - wanted[name]).max()) for name in weights),
        slots=int(used.sum()),
        flips=int(differ.sum()),
        first=first,
        shift=shift,
    )


def _relative(values: np.ndarray, expected: np.ndarray) -> float:
    """The greatest, of steps that have a value. Those without one have to be the same."""
    known = np.isfinite(expected)
    assert np.array_equal(np.isfinite(values), known), "steps are skipped in one run and not in the other"
    return float(np.abs(values[known] / expected[known] - 1).max(initial=0.0))
