"""FSDP2: each process keeps its part of every weight, gradient and moment, as DTensors."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

from electra_accel.engines.engine import Engine
from electra_accel.engines.launch_environment import OFF
from electra_accel.engines.muon import WholeMatrices
from electra_accel.engines.state import Parts
from electra_accel.errors import UserError

# Half precision by autocast, as under DDP. Accelerate's own policy would cast every tensor of the batch and of the output, the
# numbers that samples are drawn with and the counters among them.
FSDP_PRECISION = MixedPrecisionPolicy()


class Fsdp2Parts(Parts):
    def begin(self) -> None:
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # an evaluation, which has no backward pass, leaves the root's weights gathered, as others

    def whole(self, part: torch.Tensor) -> torch.Tensor:
        return part.full_tensor() if isinstance(part, DTensor) else part

    def part(self, parameter: nn.Parameter, whole: torch.Tensor) -> torch.Tensor:
        whole = whole.to(parameter.device)
        if not isinstance(parameter, DTensor) or not whole.ndim:
            return whole
        # What has another shape than its parameter, such as a mean for each row, need not divide in the same way.
        placements = parameter.placements if whole.shape == parameter.shape else [Replicate()]
        return distribute_tensor(whole, parameter.device_mesh, placements)


class Fsdp2Matrices(WholeMatrices):
    """Each process has some rows of every matrix."""

    def gather(self, parameter: torch.Tensor, part: torch.Tensor) -> list[torch.Tensor]:
        return [part.full_tensor()]

    def share(self, parameter: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
        mesh = parameter.device_mesh
        whole = DTensor.from_local(matrices[0], mesh, [Replicate()] * mesh.ndim, run_check=False)
        return whole.redistribute(mesh, parameter.placements)


def configure(plugin: Any) -> None:
    """Args: plugin: Accelerate's, before anything is prepared."""
    plugin.mixed_precision_policy = FSDP_PRECISION
    # The launcher's default is true: from_pretrained would leave weights empty on all processes but the first.
    plugin.cpu_ram_efficient_loading = False
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"


class Fsdp2(Engine):
    Parts, launched_by = Fsdp2Parts, "ACCELERATE_USE_FSDP"
    kind = "FSDP2"
    neutral = {
        # Their gradients would not be summed over the processes.
        "FSDP_IGNORED_MODULES": (("", "none"), "fsdp_ignored_modules", "every weight is trained together"),
        # Renames the weights, so that no other engine could go on from a checkpoint.
        "FSDP_ACTIVATION_CHECKPOINTING": (OFF, "fsdp_activation_checkpointing", "model.gradient_checkpointing does it"),
    }

    def __init__(self, **arguments):
        super().__init__(**arguments)
        configure(self.accelerator.state.fsdp_plugin)

    @staticmethod
    def require_runnable(cpu: bool) -> None:
        if os.environ.get("FSDP_VERSION") != "2":
            raise UserError(
                "the launch file asks for FSDP 1: set fsdp_version to 2, as in accelerate_configs/fsdp2.yaml"
            )
        if cpu or not torch.cuda.is_available():
            raise UserError("FSDP2 needs GPUs (on CPUs Accelerate silently runs DDP in its place): use ddp.yaml")

    def wrap(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model, self.optimizer = self.accelerator.prepare(model.to(self.device), optimizer)

    def whole_matrices(self) -> WholeMatrices:
        return Fsdp2Matrices()

    def micro_step(self, *, last: bool) -> AbstractContextManager:
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def backward(self, loss: torch.Tensor) -> None:
        # Gradients are averaged over the processes.
        self.accelerator.backward(loss * self.world_size if self.world_size > 1 else loss)

    def clip_and_step(self) -> torch.Tensor:
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_norm).full_tensor()
        # A scaler decides by itself. Else this waits for the device: fused kernels with found_inf were not tried on DTensors.
        if self.has_loss_scale or norm.isfinite():
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm
