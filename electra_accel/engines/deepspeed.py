"""DeepSpeed ZeRO 1 to 3: optimizer state, gradients and weights are shared out in flat parts (DeepSpeed 0.19.8)."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from accelerate.utils import DeepSpeedPlugin, InitProcessGroupKwargs
from torch import nn

from electra_accel.engines.deepspeed_file import deepspeed_settings
from electra_accel.engines.engine import Engine
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


class ZeroParts(Parts):
    """``optimizer`` is ZeRO's; the one inside it updates flat fp32 parts."""

    def begin(self) -> None:
        """Let each parameter know where its state is in the flat parts.

        ZeRO 1 and 2 do so by themselves, but after the first step of the first parameter group, when the state of the second
        group does not exist yet.
        """
        kept = [set(state) for state in self.optimizer.optimizer.state.values()]
        if any(keys != kept[0] for keys in kept):
            raise UserError("this optimizer keeps different state for different parameters: DeepSpeed cannot store it")
        if kept and hasattr(self.optimizer, "_lazy_init_hp_params_optimizer_state"):
            self.optimizer._hp_optimizer_states_linked = False
            self.optimizer._lazy_init_hp_params_optimizer_state()

    def weight(self, parameter: nn.Parameter) -> torch.Tensor:
        from deepspeed.utils import safe_get_full_fp32_param

        return parameter.frozen if hasattr(parameter, "frozen") else safe_get_full_fp32_param(parameter)

    def optimizer_state(self, parameter: nn.Parameter) -> State:
        from deepspeed.utils import safe_get_full_optimizer_state

        found = {}
        for key, value in next(
            iter(self.optimizer.optimizer.state.values()), {}
        ).items():  # the same keys for each flat part
            flat = torch.is_tensor(value) and value.ndim  # else one number for a whole part, as AdamW's step
            found[key] = safe_get_full_optimizer_state(parameter, key) if flat else torch.tensor(float(value))
        return found

    def set_optimizer_state(self, parameter: nn.Parameter, state: State) -> None:
        for key, whole in state.items():
            if whole.ndim:
                self._set(parameter, whole, "optimizer_state", key)

    def prepare_optimizer_state(self, states: Mapping[str, State]) -> None:
        example, base = next(iter(states.values())), self.optimizer.optimizer
        shapes = {name: getattr(p, "ds_shape", p.shape) for name, p in self.model.named_parameters()}
        for name, state in states.items():
            if state.keys() != example.keys() or any(whole.shape not in ((), shapes[name]) for whole in state.values()):
                raise UserError(
                    f"DeepSpeed cannot hold what the checkpoint's optimizer keeps for {name}: go on with another launch "
                    "file, such as accelerate_configs/ddp.yaml or fsdp2.yaml"
                )
        places = ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups", "fp32_groups_flat_partition")
        for part in next(getattr(self.optimizer, place) for place in places if hasattr(self.optimizer, place)):
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
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        with torch.no_grad():
            self._parts().set_master_weights(weights)

    def micro_step(self, *, last: bool) -> AbstractContextManager:
        # Accelerate's own bookkeeping would step in the last backward, before the learning rate is set.
        self.model.set_gradient_accumulation_boundary(is_boundary=last)
        return nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        self.model.backward(loss * self.world_size if self.world_size > 1 else loss)

    def clip_and_step(self) -> torch.Tensor:
        self.model.step()  # clips and clears by itself
        return torch.as_tensor(self.model.get_global_grad_norm(), device=self.device)
