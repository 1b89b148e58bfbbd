"""Half-precision copies of the weights that products read, made all at once.

Autocast makes them too, one by one: a kernel for each weight and bias in the forward pass and another for its gradient in the
backward pass, some 600 for ELECTRA-small. Small networks wait for the host that sends them. Here a few kernels make all copies,
once an optimizer step, and a few make fp32 gradients of all of theirs.
"""

from typing import Any

import torch
from torch import nn
from torch.func import functional_call


class HalfWeights(nn.Module):
    """Calls ``network`` with the weights of its linear layers in ``dtype``; all other parameters stay in fp32.

    The numbers are those of autocast, which goes on for what is not a linear layer's own. A table that is also the weight of an
    LM head is read in fp32 where it is looked up. Parameters keep their names and their fp32 values, and get fp32 gradients.

    Args:
        network: called under autocast to ``dtype``.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.network, self.dtype = network, dtype
        self._whole = {
            f"{prefix}.{name}" if prefix else name: parameter
            for prefix, module in network.named_modules()
            if isinstance(module, nn.Linear)
            for name, parameter in module.named_parameters(recurse=False)
        }
        self._once = list(dict.fromkeys(self._whole.values()))  # two heads may have one table
        self._copies: list[torch.Tensor] | None = None
        self._fixed = False

    def fix(self) -> None:
        """From now on the copies stay where they are, for kernels that were recorded."""
        self._fixed = True

    def renew(self) -> None:
        """The parameters have changed. (Fused optimizers do not count up a tensor's version, by which one could see it.)"""
        if self._fixed:
            self._copy()
        else:
            self._copies = None  # and not written over: a backward pass that is still to come may need them

    @torch.no_grad()
    def _copy(self) -> None:
        if self._copies is None:
            self._copies = [torch.empty_like(each, dtype=self.dtype) for each in self._once]
        torch._foreach_copy_(self._copies, self._once)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        if self._copies is None:
            self._copy()
        copies = dict(zip(self._once, self._copies, strict=True))
        learning = [each for each in self._once if each.requires_grad]
        made = _Halve.apply([copies[each] for each in learning], *learning) if learning else ()
        halves = copies | dict(zip(learning, made, strict=True))
        given = {name: halves[parameter] for name, parameter in self._whole.items()}
        return functional_call(self.network, given, arguments, named, tie_weights=False)


class _Halve(torch.autograd.Function):
    """``copies`` as functions of ``parameters``: both passes of all casts in one place."""

    @staticmethod
    def forward(ctx: Any, copies: list[torch.Tensor], *parameters: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)  # a copy that nothing read has none
        ctx.parameters = parameters
        return tuple(copy.detach() for copy in copies)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        read = [number for number, gradient in enumerate(gradients) if gradient is not None]
        found: list[torch.Tensor | None] = [None] * len(gradients)
        for number in read:
            found[number] = torch.empty_like(ctx.parameters[number])
        torch._foreach_copy_([found[number] for number in read], [gradients[number] for number in read])
        return None, *found
