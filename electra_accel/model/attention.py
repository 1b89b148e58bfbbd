"""Attention over packed bins: several examples share a row, none of them sees another.

Two ways to the same numbers, chosen by :func:`attention_path`:

- ``varlen``: flash attention over the segments laid end to end (``torch.nn.attention.varlen``). Its cost grows with the
  square of an example's length, not of the row's. CUDA, bf16 or fp16, compute capability 8.0 and newer.
- ``block-masked SDPA``: scaled dot product attention over the whole row, with a mask that is 0 within one segment.
  Everything else: CPUs, fp32 and fp64, older cards.

There is no attention dropout on either path, whatever the configuration says: the flash kernel has none, and a run has to
mean the same on every device (invariant 5). So configurations keep their published value for those who fine-tune later.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

PACKED = "packed_examples"  # the name under which transformers finds packed_attention


class Packing(NamedTuple):
    """Where the segments of a micro-batch lie: exactly one of the two is not None, and it says which path is taken.

    Attributes:
        mask: [R, 1, T, T], added to the scores: 0 where query (third axis) may look at key (last axis), else -inf, in the
            dtype that attention is computed in. Padding looks at padding, so that no softmax is over nothing.
        boundaries: int32 [R * (G + 1) + 1], 0, ascending, R * T: segment i of the flattened rows is
            boundaries[i] : boundaries[i + 1]. Each row has G segments (missing ones are empty) and one of padding.
    """

    mask: torch.Tensor | None
    boundaries: torch.Tensor | None


def attention_path(device: torch.device, dtype: torch.dtype) -> str:
    """``"varlen"`` or ``"block-masked SDPA"`` for queries of ``dtype`` on ``device``."""
    half = dtype in (torch.bfloat16, torch.float16)
    if device.type == "cuda" and half and torch.cuda.get_device_capability(device) >= (8, 0):
        return "varlen"
    return "block-masked SDPA"


def compute_dtype(parameter: torch.Tensor) -> torch.dtype:
    """The dtype that matrix products with this parameter have here: autocast's where it is on, else the parameter's."""
    device = parameter.device.type
    if torch.is_autocast_enabled(device) and parameter.dtype == torch.float32:
        return torch.get_autocast_dtype(device)
    return parameter.dtype


def pack(segment_ids: torch.Tensor, segments: int, dtype: torch.dtype) -> Packing:
    """Built once per micro-batch, used by every layer of both networks. No host synchronisation; static shapes.

    Args:
        segment_ids: int64 [R, T]; 1, 2, … in order along a row, then 0 on padding.
        segments: G, the greatest number of segments in a row.
        dtype: of the queries (see :func:`compute_dtype`).
    """
    if attention_path(segment_ids.device, dtype) == "varlen":
        return Packing(mask=None, boundaries=segment_boundaries(segment_ids, segments))
    # On a CPU always in fp32 (or fp64): in bf16 the backward of this kernel takes five times as long (torch 2.13).
    dtype = torch.promote_types(dtype, torch.float32) if segment_ids.device.type == "cpu" else dtype
    others = segment_ids[:, None, :, None] != segment_ids[:, None, None, :]
    # In numbers: a bool mask would be made into them by every layer.
    return Packing(torch.zeros(others.shape, dtype=dtype, device=others.device).masked_fill_(others, -torch.inf), None)


def segment_boundaries(segment_ids: torch.Tensor, segments: int) -> torch.Tensor:
    """``Packing.boundaries`` of ``segment_ids`` (arguments as of :func:`pack`)."""
    rows, row_tokens = segment_ids.shape
    device = segment_ids.device
    ascending = torch.where(segment_ids > 0, segment_ids, segments + 1)  # padding is the row's last segment
    numbers = torch.arange(1, segments + 2, device=device).expand(rows, -1).contiguous()
    ends = torch.searchsorted(ascending, numbers, right=True)  # [R, G + 1], within the row
    ends = ends + row_tokens * torch.arange(rows, device=device)[:, None]
    return nn.functional.pad(ends.flatten(), (1, 0)).to(torch.int32)


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    packing: Packing,
    **_ignored,
) -> tuple[torch.Tensor, None]:
    """The function that transformers calls in every attention layer of a network set to ``PACKED``.

    Args:
        query, key, value: [R, heads, T, head size].
        attention_mask: None; transformers builds no mask for an attention function that is not its own.
        _ignored: dropout, position ids, and scaling, which is the default of both kernels, 1 / sqrt(head size).

    Returns:
        [R, T, heads, head size], and None in place of the attention weights.
    """
    if packing.mask is not None:
        with torch.autocast(query.device.type, enabled=False):
            wide = (tensor.to(packing.mask.dtype) for tensor in (query, key, value))
            output = scaled_dot_product_attention(*wide, packing.mask)
        return output.to(query.dtype).transpose(1, 2), None
    rows, heads, row_tokens, size = query.shape
    flat = [tensor.transpose(1, 2).reshape(rows * row_tokens, heads, size) for tensor in (query, key, value)]
    # The longest segment a row could hold: a constant, so that nothing is read back from the device.
    output = varlen_attn(*flat, packing.boundaries, packing.boundaries, row_tokens, row_tokens)
    return output.view(rows, row_tokens, heads, size), None


AttentionInterface.register(PACKED, packed_attention)
