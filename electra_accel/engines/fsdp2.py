"""FSDP2: each process keeps its part of every weight, gradient and moment, as DTensors."""

import os

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from electra_accel.engines import launch_environment
from electra_accel.engines.engine import Engine
from electra_accel.engines.state import Parts
from electra_accel.errors import UserError


class Fsdp2Parts(Parts):
    def begin(self) -> None:
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # an evaluation, which has no backward pass, leaves the root's weights gathered, as others

    def weight(self, parameter: nn.Parameter) -> torch.Tensor:
        return self.whole(parameter)

    def whole(self, part: torch.Tensor) -> torch.Tensor:
        return part.full_tensor() if isinstance(part, DTensor) else part.detach()

    def part(self, parameter: nn.Parameter, whole: torch.Tensor) -> torch.Tensor:
        whole = whole.to(parameter.device)
        if not isinstance(parameter, DTensor) or whole.shape != parameter.shape:
            return whole  # a number
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements)


class Fsdp2(Engine):
    Parts = Fsdp2Parts
    kind = "FSDP2"

    def __init__(self, **arguments):
        super().__init__(**arguments)
        launch_environment.fix_fsdp(self.accelerator.state.fsdp_plugin)

    @staticmethod
    def require_runnable(cpu: bool) -> None:
        if os.environ.get("FSDP_VERSION") != "2":
            raise UserError(
                "the launch file asks for FSDP 1: set fsdp_version to 2, as in accelerate_configs/fsdp2.yaml"
            )
        if cpu or not torch.cuda.is_available():
            raise UserError("FSDP2 needs GPUs (on CPUs Accelerate silently runs DDP in its place): use ddp.yaml")

    def clip_and_step(self) -> torch.Tensor:
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_norm).full_tensor()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm
