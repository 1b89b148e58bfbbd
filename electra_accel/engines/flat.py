"""Many tensors in one buffer, so that one message serves them all."""

from collections.abc import Iterator, Sequence

import torch

BUCKET = 25_000_000  # numbers that processes exchange at once


def buckets(
    tensors: Sequence[torch.Tensor],
) -> Iterator[tuple[torch.Tensor, list[torch.Tensor], Sequence[torch.Tensor]]]:
    """Copies, some after the other in one buffer of at most ``BUCKET`` numbers or one tensor: each buffer, its views in the
    tensors' shapes, and the tensors themselves."""
    begin, numbers = 0, 0
    for end, tensor in enumerate([*tensors, None]):
        if end > begin and (tensor is None or numbers + tensor.numel() > BUCKET):
            some = tensors[begin:end]
            flat = torch.cat([each.flatten() for each in some])
            pieces = flat.split([each.numel() for each in some])
            yield flat, [piece.view(each.shape) for piece, each in zip(pieces, some, strict=True)], some
            begin, numbers = end, 0
        numbers += 0 if tensor is None else tensor.numel()
