"""Muon: momentum whose matrices are made orthogonal before they are added to the weights.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), with the scale of Liu et al., "Muon is scalable
for LLM training" (arXiv 2502.16982), equation 4. For a matrix W of m rows and n columns with gradient G, each step does

    M <- mu M + (1 - mu) G                      momentum
    O  = orthogonalize(mu M + (1 - mu) G)       Nesterov's look ahead; U V' of the singular value decomposition U S V'
    W <- W - lr (0.2 sqrt(max(m, n)) O + weight_decay W)

The entries of a full-rank O have a root mean square of 1 / sqrt(max(m, n)). With the factor it is 0.2, about that of AdamW's
update, so one learning rate means the same at every width.

Muon is for matrices between hidden states. Tables, heads of one row and vectors are AdamW's (``pretraining/optim.py`` tells
them apart); both are in the one optimizer that an engine sees.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch

MOMENTUM = 0.95
# The quintic of Jordan et al.: x -> a x + b x^3 + c x^5 brings singular values of 0.002 and more near 1 in five rounds.
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
# Numbers in the matrices that are made orthogonal at once, for few kernels and bounded memory: at 28 bytes each, and one
# matrix more.
AT_ONCE = 2**25


class WholeMatrices:
    """Where the matrices are: here, each parameter is one, whole on every process. Some engines share them out."""

    def gather(self, parameter: torch.Tensor, part: torch.Tensor) -> list[torch.Tensor]:
        """The whole matrices of which ``part``, shaped like ``parameter``, is this process's share. On every process."""
        return [part]

    def share(self, parameter: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
        """The opposite: this process's share of whole matrices."""
        return matrices[0]

    def orthogonalize(self, matrices: Sequence[torch.Tensor], *, half: bool) -> list[torch.Tensor]:
        """:func:`orthogonalize`; the processes share out the work."""
        world_size = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        if world_size == 1 or not matrices:
            return orthogonalize(matrices, half=half)
        # Equal shapes go around, so each process has as much to do, give or take a matrix of each shape.
        order = sorted(range(len(matrices)), key=lambda number: sorted(matrices[number].shape))
        of_rank = [order[rank::world_size] for rank in range(world_size)]
        own = orthogonalize([matrices[number] for number in of_rank[torch.distributed.get_rank()]], half=half)
        longest = max(sum(matrices[number].numel() for number in numbers) for numbers in of_rank)
        made = matrices[0].new_zeros(longest)
        flat = torch.cat([matrices[0].new_empty(0), *(matrix.flatten() for matrix in own)])
        made[: len(flat)] = flat
        gathered = [torch.empty_like(made) for _ in of_rank]
        torch.distributed.all_gather(gathered, made)
        found: list[torch.Tensor] = [None] * len(matrices)
        for numbers, flat in zip(of_rank, gathered, strict=True):
            sizes = [matrices[number].numel() for number in numbers]
            for number, piece in zip(numbers, flat.split([*sizes, longest - sum(sizes)]), strict=False):
                found[number] = piece.view(matrices[number].shape)
        return found


class Muon(torch.optim.AdamW):
    """Muon for groups with ``"matrices": True``, AdamW for the others.

    Args:
        groups: parameter groups. A matrix keeps ``momentum_buffer``, any other parameter what AdamW keeps.
        adamw: arguments of AdamW.

    Attributes: set by the engine
        matrices: where they are.
        half: make matrices orthogonal in bfloat16, else in their own dtype.
    """

    def __init__(self, groups: list[dict], **adamw):
        super().__init__(groups, **adamw)
        self.matrices, self.half = WholeMatrices(), False
        # AdamW's fused kernel would skip a step of fp16 whose gradient overflows by itself; here the scaler has to do it.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """One update of all parameters that have a gradient. ``closure`` is torch's signature; nothing here gives one."""
        groups = self.param_groups
        of_muon = [group for group in groups if group["matrices"]]
        self._step_matrices(of_muon)
        self.param_groups = [group for group in groups if not group["matrices"]]
        try:
            super().step(closure)
        finally:
            self.param_groups = groups

    def _step_matrices(self, groups: list[dict]) -> None:
        learning = [
            (parameter, group) for group in groups for parameter in group["params"] if parameter.grad is not None
        ]
        # As AdamW's fused kernel does: where found_inf is 1, on the device, nothing changes.
        skips = getattr(self, "found_inf", None)
        skipped, kept = (None, 1.0) if skips is None else (skips.bool(), 1 - skips.double())
        at_once, numbers = [], 0
        for parameter, group in learning:
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            momentum, gradient = state["momentum_buffer"], parameter.grad
            if skipped is not None:
                gradient = torch.where(skipped, momentum, gradient)  # by which the momentum stays what it is
            momentum.lerp_(gradient, 1 - MOMENTUM)
            whole = self.matrices.gather(parameter, gradient.lerp(momentum, MOMENTUM))
            at_once.append((parameter, group, whole))
            numbers += sum(matrix.numel() for matrix in whole)
            if numbers >= AT_ONCE:
                self._update(at_once, kept)
                at_once, numbers = [], 0
        self._update(at_once, kept)

    def _update(
        self, gathered: list[tuple[torch.Tensor, dict, list[torch.Tensor]]], kept: torch.Tensor | float
    ) -> None:
        """Make whole matrices orthogonal, and let this process's share of them change its parameters, times ``kept``."""
        matrices = [matrix for _, _, whole in gathered for matrix in whole]
        # An engine whose parts hold many matrices gathers more of them than may be made orthogonal at once.
        updates = (each for some in _split(matrices) for each in self.matrices.orthogonalize(some, half=self.half))
        scales = {size: 0.2 * size**0.5 * kept for size in {max(matrix.shape) for matrix in matrices}}
        shrinks = {rate: 1 - rate * kept for rate in {group["lr"] * group["weight_decay"] for _, group, _ in gathered}}
        for parameter, group, whole in gathered:
            scaled = [scales[max(matrix.shape)] * next(updates) for matrix in whole]
            parameter.mul_(shrinks[group["lr"] * group["weight_decay"]])
            parameter.sub_(self.matrices.share(parameter, scaled).to(parameter.dtype), alpha=group["lr"])


def _split(matrices: Sequence[torch.Tensor]) -> Iterator[Sequence[torch.Tensor]]:
    """In order, each time until they hold ``AT_ONCE`` numbers."""
    begin, numbers = 0, 0
    for end, matrix in enumerate(matrices, start=1):
        numbers += matrix.numel()
        if numbers >= AT_ONCE or end == len(matrices):
            yield matrices[begin:end]
            begin, numbers = end, 0


def orthogonalize(matrices: Sequence[torch.Tensor], *, half: bool) -> list[torch.Tensor]:
    """The nearest matrices whose singular values are about 1 (0.7 to 1.2), by Newton-Schulz rounds.

    Matrices of one shape, lying or standing, are multiplied together: a step costs few kernels however many layers there are.

    Args:
        matrices: [m, n] each; a zero matrix stays zero.
        half: in bfloat16, else in their dtype.
    """
    lying = [matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    batches = defaultdict(list)
    for number, matrix in enumerate(lying):
        batches[matrix.shape].append(number)
    made: list[torch.Tensor] = [None] * len(matrices)
    for numbers in batches.values():
        batch = torch.stack([lying[number] for number in numbers])
        norms = torch.linalg.vector_norm(batch, dim=(1, 2), keepdim=True)
        x = batch / norms.clamp(min=1e-15)  # smaller ones would lose their digits, and 0 / 0 is NaN
        x = _newton_schulz(x.bfloat16() if half else x).to(batch.dtype)
        for number, matrix in zip(numbers, x, strict=True):
            made[number] = matrix.mT if lying[number] is not matrices[number] else matrix
    return made


def _newton_schulz(x: torch.Tensor) -> torch.Tensor:
    """``x``: [k, m, n], m at most n, spectral norms at most 1."""
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x
