"""One process, or several under data parallelism (DDP): model and optimizer are whole on each.

Accelerate places the model, calls it under autocast, and scales losses and steps under fp16. It does not wrap the model in
torch's DistributedDataParallel: gradients.py does what that would do.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from electra_accel.engines.engine import Engine
from electra_accel.engines.flat import buckets
from electra_accel.engines.gradients import Gradients
from electra_accel.engines.half_weights import HalfWeights
from electra_accel.engines.recorded import CudaGraph, Recorded, Tensors


class Plain(Engine):
    def accelerator_arguments(self, cpu: bool) -> dict[str, Any]:
        # Without cpu=True on a machine without CUDA, Accelerate starts no process group for DDP and every process believes that
        # it is alone: gradients would silently not be reduced.
        return {"cpu": cpu}

    @property
    def kind(self) -> str:
        return "DDP" if self.world_size > 1 else "single process"

    def wrap(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        model = model.to(self.device)
        if self.world_size > 1:
            broadcast([*model.parameters()])
        self.gradients = Gradients(model.parameters())
        # evaluation_mode: all but DistributedDataParallel.
        self.model = self.accelerator.prepare_model(model, evaluation_mode=True)
        self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        if self.precision != "no":
            self.model = HalfWeights(self.model, {"bf16": torch.bfloat16, "fp16": torch.float16}[self.precision])

    def unwrapped(self) -> nn.Module:
        model = self.model.network if isinstance(self.model, HalfWeights) else self.model
        return self.accelerator.unwrap_model(model, keep_torch_compile=False)

    def release(self) -> None:
        self.gradients = None  # before memory is given back
        super().release()

    def record(
        self, function: Callable[..., Tensors], warn: Callable[[str], None], *, trains: bool = True
    ) -> Callable[..., Tensors]:
        if self.device.type != "cuda":
            return super().record(function, warn, trains=trains)
        if trains:
            return Recorded(function, CudaGraph(), self._fix, self._unfix, warn)
        return Recorded(function, CudaGraph(), self._fix_weights, lambda: None, warn, what="an evaluation")

    def _fix_weights(self) -> list[torch.Tensor]:
        """Returns what a function that reads the weights writes: nothing."""
        if isinstance(self.model, HalfWeights):
            self.model.fix()
        return []

    def _fix(self) -> list[torch.Tensor]:
        return self._fix_weights() + self.gradients.fix()

    def _unfix(self) -> None:
        """Copies of weights stay where they are, for what else was recorded."""
        self.gradients.unfix()

    def backward(self, loss: torch.Tensor) -> None:
        self.accelerator.backward(loss)
        self.gradients.add()

    def clip_and_step(self) -> torch.Tensor:
        self.gradients.exchange()
        self.accelerator.unscale_gradients(self.optimizer)
        norm = clip_gradients(self.model.parameters(), self.max_norm)
        self._step_if_finite(norm)
        self.gradients.clear()
        if isinstance(self.model, HalfWeights):
            self.model.renew()
        return norm

    def _step_if_finite(self, norm: torch.Tensor) -> None:
        optimizer = self.optimizer.optimizer
        if self.has_loss_scale:  # the scaler decides
            self.optimizer.step()
        elif optimizer.defaults.get("fused"):  # torch's fused kernels and Muon decide on the device
            optimizer.found_inf = (0 * norm != 0).float()  # NaN or infinite
            self.optimizer.step()
        elif norm.isfinite():  # waits for the device
            self.optimizer.step()


@torch.no_grad()
def broadcast(parameters: list[nn.Parameter]) -> None:
    """The first process's weights to all, whose files may be others."""
    for flat, pieces, own in buckets(parameters):
        torch.distributed.broadcast(flat, 0)
        torch._foreach_copy_(own, pieces)


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> torch.Tensor:
    """Scale gradients down to ``max_norm`` where their common norm is larger; parameters without one are passed over.

    On a CPU torch sums the squares of a matrix one after the other, in fp32 off by 1e-5 and more: there each row is summed by
    itself and the rows in fp64, in the same time (DeepSpeed sums in fp64 throughout). On a GPU torch's sum is a tree.
    Returns the norm before clipping, 0-d, in the gradients' dtype.
    """
    parameters = [p for p in parameters if p.grad is not None]
    gradients = [p.grad for p in parameters]
    if gradients[0].is_cuda:
        norm = torch.nn.utils.get_total_norm(gradients)
    else:
        rows = [torch.linalg.vector_norm(gradient, dim=-1).flatten() for gradient in gradients]
        norm = torch.linalg.vector_norm(torch.cat(rows).double()).to(gradients[0].dtype)
    torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm
