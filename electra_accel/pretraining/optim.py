"""Parameter groups and AdamW."""

import torch
from torch import nn

from electra_accel.pretraining.config import Optim


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Every trainable parameter in exactly one group: matrices decay, biases and LayerNorm (one-dimensional) do not.

    Delta, the difference between two embedding tables (``model/sharing.py``), does not decay either: decay would pull the
    discriminator's table towards the generator's, not towards 0. Shared parameters are counted once. An empty group is left
    out, since some engines refuse it.
    """
    groups = [{"params": [], "weight_decay": weight_decay}, {"params": [], "weight_decay": 0.0}]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim >= 2 and not name.endswith(".delta")
            groups[0 if decays else 1]["params"].append(parameter)
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, optim: Optim) -> torch.optim.AdamW:
    """AdamW with bias correction; the fused kernel (one pass over the state), which torch has for CPUs and CUDA."""
    groups = parameter_groups(model, optim.weight_decay)
    return torch.optim.AdamW(groups, lr=optim.learning_rate, betas=tuple(optim.betas), eps=optim.eps, fused=True)
