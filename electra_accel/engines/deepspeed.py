"""DeepSpeed ZeRO 1 to 3: optimizer state, gradients and weights are shared out in flat parts (DeepSpeed 0.19.8)."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from accelerate.utils import DeepSpeedPlugin, InitProcessGroupKwargs
from torch import nn

from electra_accel.engines.deepspeed_file import deepspeed_settings
from electra_accel.engines.engine import Engine
from electra_accel.engines.muon import Muon, WholeMatrices
from electra_accel.engines.state import Parts, State
from electra_accel.errors import UserError

BUCKET = 20_000_000  # gradients that ZeRO exchanges at once


def deepspeed_version() -> str | None:
    """None where DeepSpeed is not installed."""
    try:
        return version("deepspeed")
    except PackageNotFoundError:
        return None


def configure(config: dict[str, Any], max_norm: float) -> None:
    """Fill in DeepSpeed's configuration what belongs to the run, not to the launch file."""
    config["gradient_clipping"] = max_norm
    # Losses are normalised by the loop, and the loop says which micro-step is a step's last.
    config["gradient_accumulation_steps"] = 1
    config["train_micro_batch_size_per_gpu"] = 1  # must be a number; nothing of ours is sized by it
    config["data_types"] = {"grad_accum_dtype": "fp32"}  # not in bf16, where small gradients vanish beside large sums
    # DeepSpeed's own buckets of 500 million would take more memory than any ELECTRA pair.
    config["zero_optimization"] |= {"reduce_bucket_size": BUCKET, "allgather_bucket_size": BUCKET}
    config["steps_per_print"] = 10**9  # our own log lines are enough


def flat_parts(zero: Any) -> list[tuple[torch.Tensor, list[nn.Parameter]]]:
    """This process's flat fp32 parts, which the optimizer inside ZeRO updates, each with the parameters in it, in order."""
    if hasattr(zero, "fp32_partitioned_groups_flat"):  # stage 3
        return [*zip(zero.fp32_partitioned_groups_flat, zero.fp16_groups, strict=True)]
    if hasattr(zero, "single_partition_of_fp32_groups"):
        return [*zip(zero.single_partition_of_fp32_groups, zero.round_robin_bit16_groups, strict=True)]
    return [*zip(zero.fp32_groups_flat_partition, zero.bf16_groups, strict=True)]  # stage 1 in bf16


class ZeroMatrices(WholeMatrices):
    """Matrices in flat parts: all processes exchange their parts, and each sees them all."""

    def __init__(self, zero: Any):
        self.parameters = {id(flat): parameters for flat, parameters in flat_parts(zero)}
        self.rank, self.world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()

    def gather(self, parameter: torch.Tensor, part: torch.Tensor) -> list[torch.Tensor]:
        parts = [torch.empty_like(part) for _ in range(self.world_size)]
        torch.distributed.all_gather(parts, part.contiguous())
        parts, begin, found = torch.stack(parts), 0, []
        for each in self.parameters[id(parameter)]:
            shape = getattr(each, "ds_shape", each.shape)
            if hasattr(each, "ds_tensor"):  # stage 3: each process has a piece of every matrix
                size = each.ds_tensor.ds_numel
                whole = parts[:, begin : begin + size].flatten()
            else:  # the parts, one after the other, are all matrices, one after the other
                size = shape.numel()
                whole = parts.flatten()[begin : begin + size]
            found.append(whole[: shape.numel()].view(shape))
            begin += size
        return found

    def share(self, parameter: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
        flat = [matrix.flatten() for matrix in matrices]
        if hasattr(self.parameters[id(parameter)][0], "ds_tensor"):
            sizes = [each.ds_tensor.ds_numel for each in self.parameters[id(parameter)]]
            flat = [_piece(each, size, self.rank) for each, size in zip(flat, sizes, strict=True)]
            return _piece(torch.cat(flat), parameter.numel(), 0)
        return _piece(torch.cat(flat), parameter.numel(), self.rank)


def _piece(flat: torch.Tensor, size: int, number: int) -> torch.Tensor:
    """Piece ``number`` of so many numbers; zeros follow the last one."""
    return nn.functional.pad(flat, (0, max(0, size * (number + 1) - len(flat)))).narrow(0, size * number, size)


class ZeroParts(Parts):
    """``optimizer`` is ZeRO's; the one inside it updates flat fp32 parts."""

    def begin(self) -> None:
        """Let each parameter know where its state is in the flat parts.

        ZeRO 1 and 2 do so by themselves, but after the first step of the first parameter group, when the state of the second
        group does not exist yet.
        """
        if self.optimizer.optimizer.state and hasattr(self.optimizer, "_lazy_init_hp_params_optimizer_state"):
            self.optimizer._hp_optimizer_states_linked = False
            self.optimizer._lazy_init_hp_params_optimizer_state()

    def weight(self, parameter: nn.Parameter) -> torch.Tensor:
        from deepspeed.utils import safe_get_full_fp32_param

        return parameter.frozen if hasattr(parameter, "frozen") else safe_get_full_fp32_param(parameter)

    def optimizer_state(self, parameter: nn.Parameter) -> State:
        from deepspeed.utils import safe_get_full_optimizer_state

        found = {}
        for key, value in self._kept(parameter).items():
            flat = torch.is_tensor(value) and value.ndim  # else one number for a whole part, as AdamW's step
            found[key] = safe_get_full_optimizer_state(parameter, key) if flat else torch.tensor(float(value))
        return found

    def _kept(self, parameter: nn.Parameter) -> State:
        """What is kept for the flat part in which a parameter lies."""
        flats = (flat for flat, inside in flat_parts(self.optimizer) if any(each is parameter for each in inside))
        return self.optimizer.optimizer.state.get(next(flats), {})

    def set_optimizer_state(self, parameter: nn.Parameter, state: State) -> None:
        for key, whole in state.items():
            if whole.ndim:
                self._set(parameter, whole, "optimizer_state", key)

    def prepare_optimizer_state(self, states: Mapping[str, State]) -> None:
        base, names = self.optimizer.optimizer, {id(each): name for name, each in self.model.named_parameters()}
        for part, inside in flat_parts(self.optimizer):
            example = states[names[id(inside[0])]]
            for parameter in inside:
                name, shape = names[id(parameter)], getattr(parameter, "ds_shape", parameter.shape)
                state = states[name]
                if state.keys() != example.keys() or any(whole.shape not in ((), shape) for whole in state.values()):
                    raise UserError(
                        f"DeepSpeed cannot hold what the checkpoint's optimizer keeps for {name}: go on with another launch "
                        "file, such as accelerate_configs/ddp.yaml or fsdp2.yaml"
                    )
            kept = base.state[part] = {}
            for key, value in example.items():
                if value.ndim:
                    kept[key] = torch.zeros_like(part)
                else:  # DeepSpeed's AdamW for offloaded state counts in a Python integer
                    counts = type(base).__name__ == "DeepSpeedCPUAdam"
                    kept[key] = int(value) if counts else value.to(part.device).clone()
        self.begin()

    def set_master_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Put whole fp32 weights into the master copies, which ZeRO made of weights that it had rounded to half precision."""
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                self._set(parameter, weights[name], "fp32_param")
            else:
                parameter.frozen = weights[name]  # ZeRO makes no master copy of what does not learn

    def loss_scale(self) -> State:
        if not getattr(self.optimizer, "dynamic_loss_scale", False):
            return super().loss_scale()
        scale = float(self.optimizer.loss_scaler.cur_scale)
        return {"loss_scale": torch.tensor(scale), "growth_tracker": torch.tensor(0)}

    def set_loss_scale(self, saved: State) -> None:
        if getattr(self.optimizer, "dynamic_loss_scale", False):
            self.optimizer.loss_scaler.cur_scale = saved["loss_scale"].item()
        else:
            super().set_loss_scale(saved)

    def _set(self, parameter: nn.Parameter, whole: torch.Tensor, what: str, *key: str) -> None:
        """Write this process's part. ``what``: fp32_param or optimizer_state, as in the names of DeepSpeed's functions."""
        from deepspeed import utils

        if not hasattr(self.optimizer, "fp32_partitioned_groups_flat"):  # stage 1 or 2
            return getattr(utils, f"safe_set_full_{what}")(parameter, whole, *key)
        # At stage 3 the functions for whole tensors fail where a parameter does not divide by the ranks.
        size, rank = parameter.ds_tensor.ds_numel, torch.distributed.get_rank()
        padded = nn.functional.pad(whole.flatten(), (0, size * torch.distributed.get_world_size() - whole.numel()))
        return getattr(utils, f"safe_set_local_{what}")(parameter, padded.narrow(0, size * rank, size), *key)


class DeepSpeed(Engine):
    Parts, launched_by = ZeroParts, "ACCELERATE_USE_DEEPSPEED"
    neutral = {
        # DeepSpeed clips by itself, to the launch file's norm in place of the run's.
        "ACCELERATE_GRADIENT_CLIPPING": (("none", "auto"), "gradient_clipping", "optim.max_grad_norm clips (1 in fine-tuning)"),
        "ACCELERATE_DEEPSPEED_MOE_LAYER_CLS_NAMES": (("", "none"), "deepspeed_moe_layer_cls_names", "no layer here is one"),
    }  # fmt: skip

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.zero_stage: int = self.accelerator.state.deepspeed_plugin.zero_stage
        if self.zero_stage == 3:
            from transformers.integrations import unset_hf_deepspeed_config

            # Networks are whole until they are prepared. Without this, from_pretrained would share out their weights as it
            # reads them, whatever zero3_init_flag says, and the copies that prepare makes would be empty.
            unset_hf_deepspeed_config()

    @staticmethod
    def require_runnable(cpu: bool) -> None:
        if deepspeed_version() is None:
            raise UserError("the launch file asks for DeepSpeed, which is not installed: pip install -e '.[deepspeed]'")
        if cpu and torch.cuda.is_available():
            raise UserError("DeepSpeed uses a GPU that is there: hide it (CUDA_VISIBLE_DEVICES=) or use ddp.yaml")
        if os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "0":
            raise UserError("ZeRO stage 0 of the launch file shards nothing: use ddp.yaml, or stage 1, 2 or 3")

    @staticmethod
    def require_launch_file(precision: str) -> None:
        deepspeed_settings(precision)

    @staticmethod
    def require_optimizer(kind: str, precision: str) -> None:
        zero = (deepspeed_settings(precision) or {}).get("zero_optimization", {})
        of_launch_file = os.environ.get("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "none")
        if kind == "muon" and zero.get("offload_optimizer", {}).get("device", of_launch_file) != "none":
            raise UserError(
                "optim.kind muon cannot be offloaded: use optim.kind adamw, or take offload_optimizer out of the launch file"
            )

    def accelerator_arguments(self, cpu: bool) -> dict[str, Any]:
        settings = deepspeed_settings(self.precision)
        # DeepSpeed picks a backend that is not there; and told cpu=True, Accelerate would leave DeepSpeed out.
        backend = [InitProcessGroupKwargs(backend="gloo")] if cpu else []
        if cpu:
            import deepspeed

            # Else DeepSpeed probes its extensions and compiles one, for minutes, that only inference uses (shm_comm).
            deepspeed.ops.__compatible_ops__ = {}
        return {"kwargs_handlers": backend, "deepspeed_plugin": settings and DeepSpeedPlugin(hf_ds_config=settings)}

    @property
    def kind(self) -> str:
        return f"DeepSpeed ZeRO-{self.zero_stage}"

    def wrap(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        configure(self.accelerator.state.deepspeed_plugin.deepspeed_config, self.max_norm)
        settings = self.accelerator.state.deepspeed_plugin.deepspeed_config
        if isinstance(optimizer, Muon):
            settings["zero_allow_untested_optimizer"] = True  # DeepSpeed has a list of those it knows
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        with torch.no_grad():
            self._parts().set_master_weights(weights)

    def whole_matrices(self) -> WholeMatrices:
        return ZeroMatrices(self.optimizer.optimizer)

    def micro_step(self, *, last: bool) -> AbstractContextManager:
        # Accelerate's own bookkeeping would step in the last backward, before the learning rate is set.
        self.model.set_gradient_accumulation_boundary(is_boundary=last)
        return nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        self.model.backward(loss * self.world_size if self.world_size > 1 else loss)

    def clip_and_step(self) -> torch.Tensor:
        self.model.step()  # clips and clears by itself
        return torch.as_tensor(self.model.get_global_grad_norm(), device=self.device)
