"""A function of tensors whose kernels are recorded once, as a CUDA graph, and sent together from then on.

A micro-step of a small network is more than a thousand kernels, and the host takes longer to send them than a GPU to run them.
Shapes are static (invariant 5) and nothing waits for the device (invariant 8), so they can be sent at once. A graph runs on the
same tensors each time: inputs are copied into the recorded ones, and what the function writes to must keep its place.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from electra_accel.errors import UserError

Tensors = tuple[torch.Tensor, ...]
# Calls before the recording, in which libraries choose kernels.
WARM_UP = 3
# Replays that are compared with plain calls. The second has other inputs and random numbers than were recorded.
CHECKED = 2
# Of a norm: sums by atomic additions differ from call to call.
CLOSE = 1e-3


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
        """Nothing is computed yet: what is returned has values after :meth:`replay`.

        UserError where it fails and the GPU cannot go on: random numbers then belong to a recording that never ended.
        """
        stream = torch.cuda.current_stream()
        try:
            # Other threads, which pin memory or watch NCCL, go on meanwhile.
            with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
                return work()
        except RuntimeError as failed:
            torch.cuda.set_stream(stream)  # torch leaves its own where the end of a recording fails
            try:
                self.graph.reset()
                torch.rand(1, device="cuda").item()
            except RuntimeError:
                raise UserError(f"set --train.cuda_graphs off: {first_line(failed)}") from failed
            raise

    def replay(self) -> None:
        self.graph.replay()


class Recorded:
    """``function``, called ``WARM_UP`` times, then recorded and replayed.

    The first ``CHECKED`` replays are compared with plain calls on the same inputs and random numbers; these calls wait for the
    device. If one differs, or if the recording fails, ``warn`` is told and all calls are plain ones.

    Args:
        function: of tensors that have the same shapes in each call; returns tensors. Its random numbers come from torch's
            generator of their device.
        graph: to record into.
        fix: called before the recording: from now on all tensors that ``function`` adds to stay in their places. Returns them.
        unfix: the opposite, where the recording is given up. What an unfinished call left elsewhere goes away.
        what: is recorded, in words.
    """

    def __init__(
        self,
        function: Callable[..., Tensors],
        graph: Graph,
        fix: Callable[[], Sequence[torch.Tensor]],
        unfix: Callable[[], None],
        warn: Callable[[str], None],
        what: str = "a micro-step",
    ):
        self.function, self.fix, self.unfix, self.warn, self.what = function, fix, unfix, warn, what
        self.graph: Graph | None = graph  # None: all calls are plain
        self._calls = 0
        self._inputs: Tensors = ()
        self._outputs: Tensors = ()
        self._written: Sequence[torch.Tensor] = ()

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        self._calls += 1
        if self.graph is None:
            return self.function(*inputs)
        if self._calls <= WARM_UP:
            return self.graph.call(lambda: self.function(*inputs))
        if not self._inputs:
            self._inputs, self._written = tuple(given.clone() for given in inputs), self.fix()
        for mine, given in zip(self._inputs, inputs, strict=True):
            if (mine.shape, mine.dtype) != (given.shape, given.dtype):
                raise ValueError(
                    f"recorded with {mine.dtype} {[*mine.shape]}, called with {given.dtype} {[*given.shape]}"
                )
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
            _restore(self._written, before)
            _set_random_state(device, random)
            self.graph.replay()
            outputs = zip(self._outputs, wanted, strict=True)
            if _close(self._written, after) and all(_close([one], [other]) for one, other in outputs):
                return self._found()
            why = "what was recorded gives other numbers"
        except RuntimeError as error:
            why = f"they cannot be recorded ({first_line(error)})"
        self.warn(f"the kernels of {self.what} are sent one by one, which is slower: {why}")
        _restore(self._written, after)
        self.unfix()
        self.graph, self._inputs, self._outputs, self._written = None, (), (), ()
        return wanted


def _restore(written: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    if written:  # torch takes no empty lists
        torch._foreach_copy_(written, values)


def first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _close(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> bool:
    """Whether all together are within ``CLOSE`` of the norm of what is wanted, and what is not finite is the same.

    Each by itself need not be: the gradient of attention's key biases is nothing but rounding.
    """
    difference = norm = 0.0
    for one, other in zip(found, wanted, strict=True):
        finite = one.isfinite()
        if not one[~finite].nan_to_num().equal(other[~finite].nan_to_num()) or not finite.equal(other.isfinite()):
            return False
        one, other = one[finite].double(), other[finite].double()
        difference += (one - other).square().sum().item()
        norm += other.square().sum().item()
    return difference <= CLOSE**2 * norm


def _random_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: torch.Tensor) -> None:
    torch.cuda.set_rng_state(state, device) if device.type == "cuda" else torch.set_rng_state(state)
