"""Layer-wise learning rates: the head learns at the full rate, each layer below it more slowly, the embeddings most slowly."""

import re

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from electra_accel.errors import UserError
from electra_accel.finetuning.config import Optim
from electra_accel.model.reading import is_encoder

LAYER = re.compile(r"\blayers?\.(\d+)\.")  # in the name of a parameter


def build_adamw(model: PreTrainedModel, optim: Optim) -> torch.optim.AdamW:
    """AdamW whose parameter groups say their ``peak`` learning rate: the head's is the full one.

    Raises:
        UserError: optim.layer_decay is not 1, and the model has no layers that can be told apart.
    """
    decay = layer_decay(optim, model.config)
    if decay != 1:
        _require_layers(model)
    peak = peak_learning_rate(optim, model.config)
    groups: dict[tuple[float, float], dict] = {}
    for name, parameter in model.named_parameters():
        scale = decay ** (model.config.num_hidden_layers + 1 - depth_of(name, model))
        weight_decay = optim.weight_decay if parameter.ndim >= 2 else 0.0
        group = {"params": [], "peak": peak * scale, "weight_decay": weight_decay}
        groups.setdefault((scale, weight_decay), group)["params"].append(parameter)
    return torch.optim.AdamW([*groups.values()], lr=peak, betas=(0.9, 0.999), eps=1e-6, fused=True)


def depth_of(name: str, model: nn.Module) -> int:
    """0 for the embeddings and their projection, n for the n-th layer, one more than there are layers for the head.

    A weight outside the layers and the embeddings, such as a last norm, learns like the top layer. In the released code
    (google-research/electra, model/optimization.py, _get_layer_lrs) the head is one step further up: no parameter has its rate
    times the decay to the first power, and every layer below the head learns more slowly than the paper says. Here the top
    layer has exactly one factor.
    """
    layers = model.config.num_hidden_layers
    if not is_encoder(name, model):
        return layers + 1
    if layer := LAYER.search(name):
        return int(layer[1]) + 1
    return 0 if "embed" in name else layers


def _require_layers(model: nn.Module) -> None:
    """Raises UserError where the layers cannot be told by the names of their parameters."""
    numbers = {int(layer[1]) for name, _ in model.named_parameters() if (layer := LAYER.search(name))}
    if numbers != set(range(model.config.num_hidden_layers)):
        raise UserError(
            f"models: the layers of {type(model).__name__} share weights or have no numbers, so none learns more slowly "
            "than another: give --optim.layer_decay 1"
        )


def peak_learning_rate(optim: Optim, config: PretrainedConfig) -> float:
    """Clark et al., ELECTRA (ICLR 2020), table 7: 3e-4 small, 1e-4 base, 5e-5 large; tiny models as small ones."""
    published = 3e-4 if config.hidden_size < 512 else 1e-4 if config.hidden_size < 1024 else 5e-5
    return published if optim.learning_rate is None else optim.learning_rate


def layer_decay(optim: Optim, config: PretrainedConfig) -> float:
    """Table 7 too: 0.8 small and base, 0.9 large."""
    published = 0.8 if config.hidden_size < 1024 else 0.9
    return published if optim.layer_decay is None else optim.layer_decay
