"""The state of model and optimizer on disk, without a run."""

from pathlib import Path

from electra_accel.engines import state


def save_state(folder: Path, parts: state.Parts, kind: str, *, writes: bool = True) -> None:
    """Called on every process; one of them writes."""
    found = state.snapshot(parts, kind, wanted=writes)
    if writes:
        state.write(folder, found)
