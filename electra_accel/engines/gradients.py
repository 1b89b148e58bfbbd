"""The gradients of a step: added up over its micro-steps, then summed over the processes once.

DistributedDataParallel does this with hooks on every parameter, in the middle of the backward pass. That costs a kernel for
each parameter and micro-step, and cannot be recorded and replayed. Here a few kernels add all gradients of a micro-step, and a
few messages send those of a step. The messages do not overlap the backward pass.
"""

from collections.abc import Iterable

import torch
from torch import nn

from electra_accel.engines.flat import buckets
from electra_accel.errors import UserError


class Gradients:
    """Of the parameters of one model, whole on every process."""

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._sums: dict[nn.Parameter, torch.Tensor] = {}
        self._reached: dict[nn.Parameter, None] = {}  # by any backward pass so far
        self._fixed = False

    @torch.no_grad()
    def fix(self) -> list[torch.Tensor]:
        """From now on the sums stay where they are, for kernels that were recorded; after the first micro-step. The sums.

        What a step does not reach has then a gradient of 0, and not none.
        """
        self._fixed = True
        self._sums = {each: self._sums.get(each, torch.zeros_like(each)) for each in self._reached}
        return [*self._sums.values()]

    def unfix(self) -> None:
        """The opposite. What a backward pass left and :meth:`add` did not take goes away."""
        self._fixed = False
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def add(self) -> None:
        """Take what a backward pass left. Each process's share of the global loss was its input: nothing is averaged."""
        found = {parameter: parameter.grad for parameter in self.parameters if parameter.grad is not None}
        again = [parameter for parameter in found if parameter in self._sums]
        if again:
            torch._foreach_add_([self._sums[each] for each in again], [found[each] for each in again])
        self._sums = found | self._sums
        self._reached |= dict.fromkeys(found)
        for parameter in found:
            parameter.grad = None

    @torch.no_grad()
    def exchange(self) -> None:
        """The sum over all micro-steps and processes into ``grad`` of each parameter. Called on every process, once a step.

        UserError where there are several processes and a parameter was not reached on this one: others could not know.
        """
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            if missing := len(self.parameters) - len(self._sums):
                raise UserError(
                    f"{missing} of the {len(self.parameters)} trained weights have no gradient in this step, which several "
                    "processes cannot sum: use one process, or a model all of whose layers take part in each step"
                )
            for flat, pieces, own in buckets([self._sums[each] for each in self.parameters]):
                torch.distributed.all_reduce(flat)
                torch._foreach_copy_(own, pieces)
        for parameter, gradient in self._sums.items():
            parameter.grad = gradient

    @torch.no_grad()
    def clear(self) -> None:
        """Once a step, when the optimizer has read them."""
        for parameter in self._sums:
            parameter.grad = None
        if self._fixed:
            torch._foreach_zero_([*self._sums.values()])
        else:
            self._sums = {}
