"""The state of model and optimizer on disk: whole tensors by parameter name, whatever parts an engine keeps them in.

One form for all engines and numbers of processes, so that a run can go on under another engine, on more or fewer GPUs. Each
parameter is gathered by itself; the first process holds a copy of them all in its memory (up to 12 bytes a parameter, and as
much again while they are written).

    model.safetensors       {name: weight}; tied weights once, under their first name; the fp32 master weights of an engine
                            that computes in half precision
    optimizer.safetensors   {name + "/" + key: whatever the optimizer keeps for the parameter, such as exp_avg or step}, under
                            fp16 {"loss_scale", "growth_tracker": 0-d}; the optimizer's kind in the metadata
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

from electra_accel.errors import UserError
from electra_accel.model.reading import require_finite

MODEL_FILE, OPTIMIZER_FILE = "model.safetensors", "optimizer.safetensors"
KIND = "optimizer"  # in the metadata
DIVERGED = (
    "the training had diverged when it was saved: move its folder away to go on from an earlier one, or train again with a "
    "lower learning rate"
)
State = Mapping[str, torch.Tensor]  # what an optimizer keeps for a parameter; a number is 0-d


class Parts:
    """An unwrapped model and the optimizer that Accelerate wraps, whole on every process. Engines that share them out override
    where the parts are. ``scaler`` is torch's GradScaler."""

    def __init__(self, model: nn.Module, optimizer: Any, scaler: Any = None):
        self.model, self.optimizer, self.scaler = model, optimizer, scaler

    def begin(self) -> None:
        """Bring the parts into the form in which they can be read or written."""

    def prepare_optimizer_state(self, states: Mapping[str, State]) -> None:
        """Make room in a fresh optimizer for ``{name of a parameter: its state}``; UserError where that cannot be held."""

    def weight(self, parameter: nn.Parameter) -> torch.Tensor:
        """The whole weight. Called on every process in the same order, as are all that follow."""
        return self.whole(parameter.detach())

    def optimizer_state(self, parameter: nn.Parameter) -> State:
        """All that the optimizer keeps for a parameter, whole; empty before its first step."""
        kept = self.optimizer.state.get(parameter, {})
        return {key: self.whole(torch.as_tensor(value)) for key, value in kept.items() if value is not None}

    def set_optimizer_state(self, parameter: nn.Parameter, state: State) -> None:
        """Put this process's parts of whole tensors into a fresh optimizer."""
        self.optimizer.state[parameter] = {key: self.part(parameter, value) for key, value in state.items()}

    def whole(self, part: torch.Tensor) -> torch.Tensor:
        return part

    def part(self, parameter: nn.Parameter, whole: torch.Tensor) -> torch.Tensor:
        return whole.to(parameter.device, copy=True)

    def loss_scale(self) -> State:
        state = self.scaler.state_dict() if self.scaler is not None else {}
        names = {"loss_scale": "scale", "growth_tracker": "_growth_tracker"}
        return {name: torch.tensor(state[theirs]) for name, theirs in names.items() if state}

    def set_loss_scale(self, saved: State) -> None:
        if self.scaler is not None:
            known = {"scale": saved["loss_scale"].item(), "_growth_tracker": int(saved["growth_tracker"].item())}
            self.scaler.load_state_dict(self.scaler.state_dict() | known)


class Snapshot(NamedTuple):
    """A copy of the state in host memory, which training does not change."""

    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    kind: str  # the optimizer's, such as "AdamW"


@torch.no_grad()
def snapshot(parts: Parts, kind: str, *, wanted: bool = True) -> Snapshot:
    """Gather the state. Called on every process; it is empty where it is not ``wanted``."""
    weights, states = {}, {}
    parts.begin()
    for name, parameter in parts.model.named_parameters():
        weight = parts.weight(parameter)
        state = parts.optimizer_state(parameter) if parameter.requires_grad else {}
        if wanted:
            weights[name] = _copied(weight)
            states |= {f"{name}/{key}": _copied(value) for key, value in state.items()}
    return Snapshot(weights, states | dict(parts.loss_scale()), kind)


def _copied(value: torch.Tensor) -> torch.Tensor:
    return value.to("cpu", copy=True, memory_format=torch.contiguous_format)


def write(folder: Path, snapshot: Snapshot) -> None:
    """The two files. OSError where they cannot be written."""
    # The library's own writer reports a full disk in its own way; bytes that we write ourselves fail with an OSError.
    (folder / MODEL_FILE).write_bytes(safetensors.torch.save(snapshot.weights))
    (folder / OPTIMIZER_FILE).write_bytes(safetensors.torch.save(snapshot.optimizer, {KIND: snapshot.kind}))


@torch.no_grad()
def load_weights(model: nn.Module, folder: Path) -> None:
    """Copy the weights of a checkpoint into ``model`` in place, so that tied weights stay tied.

    UserError where they are those of another model, or not finite.
    """
    saved = _read(folder / MODEL_FILE)
    parameters = dict(model.named_parameters())
    differing = sorted(saved.keys() ^ parameters.keys())
    if differing := differing or sorted(name for name in saved if saved[name].shape != parameters[name].shape):
        raise UserError(f"{folder}: its weights do not fit the model ({', '.join(differing[:3])})")
    for name, parameter in parameters.items():
        parameter.copy_(saved[name])


@torch.no_grad()
def load_optimizer(folder: Path, parts: Parts, kind: str) -> None:
    """Put the state of a checkpoint into a fresh optimizer, in the parts that its engine keeps. On every process.

    UserError where it is of another ``kind`` of optimizer, or not finite.
    """
    file = folder / OPTIMIZER_FILE
    with safe_open(file, framework="pt") as opened:
        known = (opened.metadata() or {}).get(KIND, "AdamW")  # earlier versions had no other, and did not say so
    if known != kind:
        raise UserError(
            f"{folder} was written by the optimizer {known}, not {kind}: use the one that the run began with"
        )
    saved = _read(file)
    if "loss_scale" in saved:
        parts.set_loss_scale({name: saved.pop(name) for name in ("loss_scale", "growth_tracker")})
    steps = saved.pop("steps", None)  # earlier versions kept it once for all parameters
    states: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for name, value in saved.items():
        states[name.rpartition("/")[0]][name.rpartition("/")[2]] = value
    if not states:
        return  # of step 0
    if steps is not None:
        for state in states.values():
            state["step"] = steps.clone()
    parts.prepare_optimizer_state(states)
    for name, parameter in parts.model.named_parameters():
        if name in states:
            parts.set_optimizer_state(parameter, states[name])


def _read(file: Path) -> dict[str, torch.Tensor]:
    saved = safetensors.torch.load_file(file)
    require_finite(str(file), saved.items(), DIVERGED)
    return saved
