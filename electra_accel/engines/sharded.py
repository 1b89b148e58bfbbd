"""The state of model and optimizer on disk: whole tensors by parameter name, whatever parts an engine keeps them in.

One form for all engines and numbers of processes, so that a run can go on under another engine, on more or fewer GPUs. Each
parameter is gathered by itself; the first process holds them all in its memory to write them (up to 24 bytes a parameter).

    model.safetensors       {name: weight}; tied weights once, under their first name; the fp32 master weights of an engine
                            that computes in half precision
    optimizer.safetensors   {name + "/exp_avg", name + "/exp_avg_sq": AdamW's moments, "steps": 0-d}, and under fp16
                            {"loss_scale", "growth_tracker": 0-d}
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from electra_accel.errors import UserError
from electra_accel.model.reading import require_finite

MODEL_FILE, OPTIMIZER_FILE = "model.safetensors", "optimizer.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")
DIVERGED = (
    "the training had diverged when it was saved: move its folder away to go on from an earlier one, or train again with a "
    "lower learning rate"
)
BUCKET = 20_000_000  # gradients that ZeRO exchanges at once


def deepspeed_version() -> str | None:
    """None where DeepSpeed is not installed."""
    try:
        return version("deepspeed")
    except PackageNotFoundError:
        return None


def configure_deepspeed(config: dict[str, Any], max_norm: float) -> None:
    """Fill in DeepSpeed's configuration what belongs to the run, not to the launch file."""
    config["gradient_clipping"] = max_norm
    # Losses are normalised by the loop, and the loop says which micro-step is a step's last.
    config["gradient_accumulation_steps"] = 1
    config["train_micro_batch_size_per_gpu"] = 1  # must be a number; nothing of ours is sized by it
    config["data_types"] = {"grad_accum_dtype": "fp32"}  # not in bf16, where small gradients vanish beside large sums
    # DeepSpeed's own buckets of 500 million would take more memory than any ELECTRA pair.
    config["zero_optimization"] |= {"reduce_bucket_size": BUCKET, "allgather_bucket_size": BUCKET}
    config["steps_per_print"] = 10**9  # our own log lines are enough


@torch.no_grad()
def save(folder: Path, model: nn.Module, optimizer: Any, scaler: Any, *, writes: bool) -> None:
    """Gather the state and write it into ``folder``. Called on every process.

    Args:
        model: unwrapped.
        optimizer: what Accelerate wraps: torch's AdamW or a ZeRO optimizer.
        scaler: torch's GradScaler, or None.
        writes: on this process.

    Raises:
        OSError: where the files cannot be written.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # an evaluation, which has no backward pass, leaves the root's weights gathered, as other objects
    weights, state = {}, {}
    steps = _steps(optimizer)
    if steps is not None:
        _link_moments(optimizer)
    for name, parameter in model.named_parameters():
        wanted = ("",) if steps is None or not parameter.requires_grad else ("", *MOMENTS)
        for kind in wanted:
            whole = _whole(parameter, optimizer, kind)
            if writes:
                (state if kind else weights)[f"{name}/{kind}" if kind else name] = whole.cpu().contiguous()
    if not writes:
        return
    if steps is not None:
        state["steps"] = torch.tensor(float(steps))
    state |= _loss_scale(optimizer, scaler)
    # The library's own writer reports a full disk in its own way; bytes that we write ourselves fail with an OSError.
    (folder / MODEL_FILE).write_bytes(safetensors.torch.save(weights))
    (folder / OPTIMIZER_FILE).write_bytes(safetensors.torch.save(state))


@torch.no_grad()
def load_weights(model: nn.Module, folder: Path) -> None:
    """Copy the weights of a checkpoint into ``model`` in place, so that tied weights stay tied.

    Raises:
        UserError: they are those of another model, or not finite.
    """
    saved = _read(folder / MODEL_FILE)
    parameters = dict(model.named_parameters())
    differing = sorted(saved.keys() ^ parameters.keys()) or sorted(
        name for name in saved if saved[name].shape != parameters[name].shape
    )
    if differing:
        raise UserError(f"{folder}: its weights do not fit the model ({', '.join(differing[:3])})")
    for name, parameter in parameters.items():
        parameter.copy_(saved[name])


def _read(file: Path) -> dict[str, torch.Tensor]:
    saved = safetensors.torch.load_file(file)
    require_finite(str(file), saved.items(), DIVERGED)
    return saved


def copy_of_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@torch.no_grad()
def set_master_weights(model: nn.Module, optimizer: Any, weights: dict[str, torch.Tensor]) -> None:
    """Put whole fp32 weights into ZeRO's master copies, which it has made of weights that it had rounded to half precision."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            _set_part(parameter, optimizer, "", weights[name])
        else:
            parameter.frozen = weights[name]  # ZeRO makes no master copy of what does not learn


@torch.no_grad()
def load_optimizer(model: nn.Module, optimizer: Any, scaler: Any, folder: Path) -> None:
    """Put the moments of a checkpoint into a fresh optimizer, in the parts that this engine keeps. On every process."""
    saved = _read(folder / OPTIMIZER_FILE)
    if "loss_scale" in saved:
        _set_loss_scale(optimizer, scaler, saved)
    if "steps" not in saved:
        return  # of step 0: there are no moments yet
    steps = saved["steps"].item()
    flat = _flat_parts(optimizer)
    base = optimizer if flat is None else optimizer.optimizer
    for part in flat or (p for group in base.param_groups for p in group["params"]):
        counter = torch.tensor(steps, device=part.device)
        # DeepSpeed's AdamW for offloaded state counts in a Python integer.
        base.state[part] = {"step": int(steps) if type(base).__name__ == "DeepSpeedCPUAdam" else counter}
        base.state[part] |= {kind: torch.zeros_like(part) for kind in MOMENTS}
    _link_moments(optimizer)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            for kind in MOMENTS:
                _set_part(parameter, optimizer, kind, saved[f"{name}/{kind}"])


def _is_zero3(optimizer: Any) -> bool:
    return hasattr(optimizer, "fp32_partitioned_groups_flat")


def _flat_parts(optimizer: Any) -> list[torch.Tensor] | None:
    """The flat fp32 partitions that ZeRO's inner optimizer updates on this process; None without ZeRO."""
    places = ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups", "fp32_groups_flat_partition")
    return next((getattr(optimizer, place) for place in places if hasattr(optimizer, place)), None)


def _link_moments(optimizer: Any) -> None:
    """Let each parameter know where its moments are in ZeRO's flat parts.

    ZeRO 1 and 2 (DeepSpeed 0.19.8) do so by themselves, but after the first step of the first parameter group, when the
    moments of the second group do not exist yet.
    """
    if hasattr(optimizer, "_lazy_init_hp_params_optimizer_state"):
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()


def _steps(optimizer: Any) -> float | None:
    """Steps that the optimizer has made; None before the first."""
    base = optimizer if _flat_parts(optimizer) is None else optimizer.optimizer
    return next((float(state["step"]) for state in base.state.values() if "step" in state), None)


def _whole(parameter: nn.Parameter, optimizer: Any, kind: str) -> torch.Tensor:
    """A weight (``kind`` "") or a moment, gathered. Called on every process in the same order."""
    if hasattr(parameter, "frozen"):
        return parameter.frozen
    if _flat_parts(optimizer) is None:
        part = optimizer.state[parameter][kind] if kind else parameter
        return part.full_tensor() if isinstance(part, DTensor) else part.detach()
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    if not kind:
        return safe_get_full_fp32_param(parameter)
    return safe_get_full_optimizer_state(parameter, kind)


def _set_part(parameter: nn.Parameter, optimizer: Any, kind: str, whole: torch.Tensor) -> None:
    """Write this process's part of a moment, or of ZeRO's master weight (``kind`` "")."""
    if hasattr(parameter, "frozen"):
        return parameter.frozen
    if _flat_parts(optimizer) is None:
        part = optimizer.state[parameter][kind]
        if isinstance(part, DTensor):
            whole = distribute_tensor(whole.to(part.device), part.device_mesh, part.placements)
        part.copy_(whole)
        return
    from deepspeed import utils

    if not _is_zero3(optimizer):
        if not kind:
            return utils.safe_set_full_fp32_param(parameter, whole)
        return utils.safe_set_full_optimizer_state(parameter, whole, kind)
    # The functions for whole tensors (DeepSpeed 0.19.8) fail where a parameter does not divide by the ranks.
    size, rank = parameter.ds_tensor.ds_numel, torch.distributed.get_rank()
    padded = nn.functional.pad(whole.flatten(), (0, size * torch.distributed.get_world_size() - whole.numel()))
    part = padded.narrow(0, size * rank, size)
    if not kind:
        return utils.safe_set_local_fp32_param(parameter, part)
    return utils.safe_set_local_optimizer_state(parameter, part, kind)


def _loss_scale(optimizer: Any, scaler: Any) -> dict[str, torch.Tensor]:
    if scaler is not None and (state := scaler.state_dict()):
        return {
            "loss_scale": torch.tensor(state["scale"]),
            "growth_tracker": torch.tensor(state["_growth_tracker"]),
        }
    if getattr(optimizer, "dynamic_loss_scale", False):
        return {"loss_scale": torch.tensor(float(optimizer.loss_scaler.cur_scale)), "growth_tracker": torch.tensor(0)}
    return {}


def _set_loss_scale(optimizer: Any, scaler: Any, saved: dict[str, torch.Tensor]) -> None:
    scale = saved["loss_scale"].item()
    if scaler is not None:
        growth = int(saved["growth_tracker"].item())
        scaler.load_state_dict(scaler.state_dict() | {"scale": scale, "_growth_tracker": growth})
    elif getattr(optimizer, "dynamic_loss_scale", False):
        optimizer.loss_scaler.cur_scale = scale
