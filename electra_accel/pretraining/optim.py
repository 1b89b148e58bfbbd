"""Parameter groups, each with its peak learning rate, and the optimizer."""

import torch
from torch import nn

from electra_accel.engines.muon import Muon
from electra_accel.pretraining.config import Optim


def parameter_groups(model: nn.Module, optim: Optim) -> list[dict]:
    """Every trainable parameter in exactly one group; an empty one is left out, since some engines refuse it.

    - ``weight_decay``: that of ``optim`` for all that has two dimensions, but for delta, the difference between two embedding
      tables (``model/sharing.py``): decay would pull the discriminator's table towards the generator's, not towards 0. Biases
      and LayerNorm do not decay.
    - ``matrices``: whether Muon updates it, see :func:`is_matrix`.
    - ``peak``: learning rate at the top of the schedule, optim.matrix_learning_rate for matrices; times
      optim.generator_factor for what only the generator has. Shared parameters are counted once.
    """
    shared = {id(each) for each in getattr(model, "discriminator", nn.Module()).parameters()}
    groups: dict[tuple, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        matrices = optim.kind == "muon" and is_matrix(name, parameter)
        peak = optim.matrix_learning_rate if matrices else optim.learning_rate
        if name.startswith("generator.") and id(parameter) not in shared:
            peak *= optim.generator_factor
        decays = parameter.ndim >= 2 and not name.endswith(".delta")
        group = dict(weight_decay=optim.weight_decay if decays else 0.0, peak=peak, matrices=matrices)
        groups.setdefault(tuple(group.values()), {"params": []} | group)["params"].append(parameter)
    return sorted(groups.values(), key=lambda group: -group["weight_decay"])


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix between hidden states: no embedding table (nor the LM head that is one), no difference
    between tables, no head of one row."""
    table = "embeddings." in name or "lm_head." in name
    return parameter.ndim == 2 and min(parameter.shape) > 1 and not table


def build_optimizer(model: nn.Module, optim: Optim) -> torch.optim.AdamW:
    """AdamW with bias correction, by the fused kernel (one pass over the state), which torch has for CPUs and CUDA; or Muon."""
    groups = parameter_groups(model, optim)
    how = dict(lr=optim.learning_rate, betas=tuple(optim.betas), eps=optim.eps, fused=True)
    return Muon(groups, **how) if optim.kind == "muon" else torch.optim.AdamW(groups, **how)
