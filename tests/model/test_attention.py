import copy

import pytest
import torch

from electra_accel.model.attention import attention_path, compute_dtype, pack, packed_attention, segment_boundaries
from electra_accel.model.rtd import ReplacedTokenDetection
from tests.model.batches import pack_examples, toy_examples, toy_pair

SEGMENTS = torch.tensor([[1, 1, 2, 3, 3, 3, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1], [0] * 8, [1, 2, 3, 4, 4, 4, 4, 0]])


def test_boundaries_cut_the_rows_into_segments_and_padding():
    boundaries = segment_boundaries(SEGMENTS, segments=4)
    assert boundaries.dtype == torch.int32
    assert boundaries.tolist() == [
        *[0, 2, 3, 6, 6, 8],  # three segments, a missing one, padding
        *[16, 16, 16, 16, 16],
        *[16, 16, 16, 16, 24],  # an empty bin is padding throughout
        *[25, 26, 27, 31, 32],
    ]
    flat = SEGMENTS.flatten()
    for start, end in zip(boundaries[:-1].tolist(), boundaries[1:].tolist(), strict=True):
        assert len(set(flat[start:end].tolist())) <= 1


def test_the_mask_allows_exactly_the_own_segment():
    packing = pack(SEGMENTS, segments=4, dtype=torch.float32)
    assert packing.boundaries is None and packing.mask.shape == (4, 1, 8, 8)
    for row, ids in enumerate(SEGMENTS.tolist()):
        for query in range(8):
            for key in range(8):
                assert packing.mask[row, 0, query, key].item() == (0 if ids[query] == ids[key] else -torch.inf)


def test_the_path_is_named():
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert attention_path(torch.device("cpu"), dtype) == "block-masked SDPA"


def test_the_compute_dtype_follows_autocast():
    parameter = torch.zeros(1)
    assert compute_dtype(parameter) == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert compute_dtype(parameter) == torch.bfloat16
        assert compute_dtype(parameter.double()) == torch.float64
    assert compute_dtype(parameter.half()) == torch.float16


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_stock_attention_would_leak_between_examples(implementation):
    """The trap that this file exists for: position ids alone do not keep packed examples apart."""
    pair = toy_pair()
    stock = copy.deepcopy(pair.discriminator).eval()
    stock.set_attn_implementation(implementation)
    batch, _ = pack_examples(toy_examples(12))
    ours = ReplacedTokenDetection(*pair).eval()(batch, batch.slot_labels).discriminator_logits
    leaky = stock(batch.input_ids, position_ids=batch.position_ids, token_type_ids=batch.token_type_ids).logits
    assert (ours - leaky)[batch.real].abs().max() > 1e-4


def test_there_is_no_attention_dropout_whatever_the_configuration_says():
    pair = toy_pair(dropout=0.0)
    for network in pair:
        assert network.config.attention_probs_dropout_prob == 0.1
        for layer in network.electra.encoder.layer:
            layer.attention.self.dropout.p = 0.9
    model = ReplacedTokenDetection(*pair)
    batch, _ = pack_examples(toy_examples(12))
    assert torch.equal(model.train()(batch).counters, model.eval()(batch).counters)


def test_on_a_cpu_bf16_queries_lose_nothing_to_the_kernel():
    """bf16 in, fp32 products, bf16 out: outputs and gradients are those of the fp32 kernel, rounded once."""
    packing = pack(SEGMENTS, segments=4, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(1)
    wide = [torch.randn(4, 2, 8, 16, generator=generator).bfloat16().float().requires_grad_() for _ in range(3)]
    half = [tensor.detach().bfloat16().requires_grad_() for tensor in wide]
    weight = torch.randn(4, 8, 2, 16, generator=generator).bfloat16()
    expected, _ = packed_attention(None, *wide, None, packing=packing)
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = packed_attention(None, *half, None, packing=packing)
    assert torch.equal(output, expected.bfloat16())
    expected.backward(weight.float())
    output.backward(weight)
    for ours, reference in zip(half, wide, strict=True):
        assert torch.equal(ours.grad, reference.grad.bfloat16())
