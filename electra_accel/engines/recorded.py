"""A function of tensors whose kernels are recorded once, as a CUDA graph, and sent together from then on.

A micro-step of a small network is more than a thousand kernels, and the host takes longer to send them than a GPU to run them.
Shapes are static (invariant 5) and nothing waits for the device (invariant 8), so they can be sent at once. A graph runs on the
same tensors each time: inputs are copied into the recorded ones, and what the function writes to must keep its place.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

Tensors = tuple[torch.Tensor, ...]
WARM_UP = 3  # calls before the recording, in which libraries choose kernels
CHECKED = (
    2  # replays that are compared with plain calls; the second has other inputs and random numbers than were recorded
)
CLOSE = 1e-3  # of a norm: sums by atomic additions differ from run to run


class Graph(Protocol):
    """What :class:`Recorded` needs of a graph; the tests have one that calls the function again."""

    def call(self, work: Callable[[], Tensors]) -> Tensors: ...

    def record(self, work: Callable[[], Tensors]) -> Tensors: ...

    def replay(self) -> None: ...


class CudaGraph:
    """torch's. RuntimeError where something cannot be recorded."""

    def __init__(self):
        self.graph, self.stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()

    def call(self, work: Callable[[], Tensors]) -> Tensors:
        """Plainly, on the stream that records. Autograd may keep the stream of an earlier call, and a recording that meets
        another one fails."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            made = work()
        torch.cuda.current_stream().wait_stream(self.stream)
        return made

    def record(self, work: Callable[[], Tensors]) -> Tensors:
        """Nothing is computed yet: what is returned has values after :meth:`replay`."""
        # Other threads, which pin memory or watch NCCL, go on meanwhile.
        with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
            return work()

    def replay(self) -> None:
        self.graph.replay()


class Recorded:
    """``function``, called ``WARM_UP`` times, then recorded and replayed.

    The first ``CHECKED`` replays are compared with plain calls on the same inputs and random numbers. If one differs, or if the
    recording fails, ``warn`` is told and all calls are plain ones.

    Args:
        function: of tensors that have the same shapes in each call; returns tensors. Its random numbers come from torch's
            generator of their device.
        graph: to record into.
        fix: called before the recording: from now on all tensors that ``function`` adds to stay in their places. Returns them.
    """

    def __init__(
        self,
        function: Callable[..., Tensors],
        graph: Graph,
        fix: Callable[[], Sequence[torch.Tensor]],
        warn: Callable[[str], None],
    ):
        self.function, self.graph, self.fix, self.warn = function, graph, fix, warn
        self._calls, self._plain = 0, False
        self._inputs: Tensors = ()
        self._outputs: Tensors = ()
        self._written: Sequence[torch.Tensor] = ()

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        self._calls += 1
        if self._plain:
            return self.function(*inputs)
        if self._calls <= WARM_UP:
            return self.graph.call(lambda: self.function(*inputs))
        if not self._inputs:
            self._inputs, self._written = tuple(given.clone() for given in inputs), self.fix()
        for mine, given in zip(self._inputs, inputs, strict=True):
            mine.copy_(given)
        if self._calls <= WARM_UP + CHECKED:
            return self._checked()
        self.graph.replay()
        return self._found()

    def _found(self) -> Tensors:
        return tuple(output.clone() for output in self._outputs)  # the next replay writes over them

    def _checked(self) -> Tensors:
        """A call by both ways, which counts as one."""
        device = self._inputs[0].device
        random, before = _random_state(device), [each.clone() for each in self._written]
        wanted = self.graph.call(lambda: self.function(*self._inputs))
        after = [each.clone() for each in self._written]
        try:
            if not self._outputs:
                self._outputs = self.graph.record(lambda: self.function(*self._inputs))
            torch._foreach_copy_(self._written, before)
            _set_random_state(device, random)
            self.graph.replay()
            if _close([*self._outputs, *self._written], [*wanted, *after]):
                return self._found()
            why = "what was recorded gives other numbers"
        except RuntimeError as error:
            why = f"they cannot be recorded ({str(error).splitlines()[0]})"
        self.warn(f"the kernels of a micro-step are sent one by one, which is slower: {why}")
        self._plain = True
        torch._foreach_copy_(self._written, after)
        return wanted


def _close(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> bool:
    """Each within ``CLOSE`` of the norm of what is wanted; NaN is close to NaN alone."""
    for one, other in zip(found, wanted, strict=True):
        one, other = one.double(), other.double()
        if not one.isnan().equal(other.isnan()):
            return False
        one, other = one.nan_to_num(), other.nan_to_num()
        if (one - other).norm() > CLOSE * other.norm():
            return False
    return True


def _random_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: torch.Tensor) -> None:
    torch.cuda.set_rng_state(state, device) if device.type == "cuda" else torch.set_rng_state(state)
