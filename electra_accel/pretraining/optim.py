"""Parameter groups, AdamW, and clipping."""

from collections.abc import Iterable

import torch
from torch import nn

from electra_accel.pretraining.config import Optim


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Every trainable parameter in exactly one group: matrices decay, biases and LayerNorm (one-dimensional) do not.

    Nor does delta, the difference between two embedding tables (``model/sharing.py``): to decay it would draw the
    discriminator's table towards the generator's, not towards 0. Shared parameters are counted once. An empty group is left
    out, since some engines refuse it.
    """
    groups = [{"params": [], "weight_decay": weight_decay}, {"params": [], "weight_decay": 0.0}]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim >= 2 and not name.endswith(".delta")
            groups[0 if decays else 1]["params"].append(parameter)
    return [group for group in groups if group["params"]]


def build_adamw(model: nn.Module, optim: Optim) -> torch.optim.AdamW:
    """AdamW with bias correction; the fused kernel (one pass over the state), which torch has for CPUs and CUDA."""
    groups = parameter_groups(model, optim.weight_decay)
    return torch.optim.AdamW(groups, lr=optim.learning_rate, betas=tuple(optim.betas), eps=optim.eps, fused=True)


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> torch.Tensor:
    """Scale gradients down to ``max_norm`` where their common norm is larger; parameters without one are passed over.

    On a CPU torch sums the squares of a matrix one after the other, in fp32 off by 1e-5 and more: there each row is summed by
    itself and the rows in fp64, in the same time (DeepSpeed sums in fp64 throughout). On a GPU torch's sum is a tree.

    Returns:
        The norm before clipping, 0-d, in the gradients' dtype.
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
