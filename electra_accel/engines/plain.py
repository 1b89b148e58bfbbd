"""One process, or several under DistributedDataParallel (DDP): model and optimizer are whole on each."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from electra_accel.engines.engine import Engine


class Plain(Engine):
    def accelerator_arguments(self, cpu: bool) -> dict[str, Any]:
        # Without cpu=True on a machine without CUDA, Accelerate starts no process group for DDP and every process believes that
        # it is alone: gradients would silently not be reduced.
        return {"cpu": cpu}

    @property
    def kind(self) -> str:
        return "DDP" if self.world_size > 1 else "single process"

    def clip_and_step(self) -> torch.Tensor:
        self.accelerator.unscale_gradients(self.optimizer)
        norm = clip_gradients(self.model.parameters(), self.max_norm)
        self.optimizer.step()
        # DDP's gradients stay the views into its buckets that they are: set to None, the next step would first sum elsewhere.
        self.optimizer.zero_grad(set_to_none=self.world_size == 1)
        return norm


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
        rows = [torch.linalg.vector_norm(gradient, dim=-1).flatten().double() for gradient in gradients]
        norm = torch.linalg.vector_norm(torch.cat(rows)).to(gradients[0].dtype)
    torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm
