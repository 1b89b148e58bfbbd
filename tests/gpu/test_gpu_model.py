"""Attention, sampling and static shapes of the model on an NVIDIA GPU. Needs neither deepspeed nor wandb."""

import copy

import pytest
import torch

from electra_accel.model.attention import Packing, attention_path, pack, packed_attention, segment_boundaries
from electra_accel.model.rtd import ReplacedTokenDetection, sample
from tests.model.batches import pack_examples, total_loss, toy_examples, toy_pair
from tests.model.frequencies import goodness, numbers

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


@pytest.fixture
def varlen():
    if attention_path(CUDA, torch.bfloat16) != "varlen":
        pytest.skip("varlen attention needs compute capability 8.0")


def on_gpu(examples, **limits):
    batch, _ = pack_examples(examples, **limits)
    return batch.pin_memory().to(CUDA)


def trained_on_gpu():
    """The toy pair after 150 steps in bf16, whose probabilities differ from token to token."""
    model = ReplacedTokenDetection(*toy_pair()).to(CUDA).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    for step in range(150):
        batch = on_gpu(toy_examples(16, seed=100 + step))
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            output = model(batch)
        total_loss(output, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert output.generator_loss_sum.isfinite()
    return model


def test_varlen_attention_in_bf16_is_masked_attention_in_fp32(varlen):
    """Outputs and gradients within .02 of values of order 1 (bf16 has 8 bits: .004 of a value, a few of them summed), with
    missing segments, empty bins and padding among the rows."""
    batch = on_gpu(toy_examples(60, longest=40), row_tokens=128, slots=30, segments=9, rows=20)
    rows, row_tokens = batch.segment_ids.shape
    generator = torch.Generator(CUDA).manual_seed(0)
    q, k, v, weight = (torch.randn(rows, 4, row_tokens, 32, device=CUDA, generator=generator) for _ in range(4))
    mask = pack(batch.segment_ids, 9, torch.float32)
    assert mask.boundaries is None and pack(batch.segment_ids, 9, torch.bfloat16).mask is None
    boundaries = Packing(mask=None, boundaries=segment_boundaries(batch.segment_ids, 9))
    results = []
    for dtype, packing in ((torch.float32, mask), (torch.bfloat16, boundaries)):
        inputs = [x.detach().to(torch.bfloat16).to(dtype).requires_grad_() for x in (q, k, v)]
        output, _ = packed_attention(torch.nn.Module(), *inputs, None, packing=packing)
        (output * weight.transpose(1, 2)).float().sum().backward()
        results.append([output.detach().float(), *(x.grad.float() for x in inputs)])
    for exact, half in zip(*results, strict=True):
        assert half.isfinite().all()
        assert (half - exact).abs().max() < 0.02 * exact.abs().max().clamp(min=1)


def test_a_bf16_micro_step_agrees_with_the_fp32_padded_one(varlen):
    """Trained weights, the same replacements. The reference has one example per row and block-masked attention. Losses within
    1%, gradients within 5% of their norm per parameter or 1% of the whole gradient's norm."""
    model = trained_on_gpu()
    examples = toy_examples(64, seed=7)
    results = []
    for autocast, limits in ((False, dict(segments=1)), (True, dict(segments=8))):
        batch = on_gpu(examples, **limits)
        model.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            output = model(batch, replacements=(batch.slot_labels + 1) % 90 + 5)
        total_loss(output, batch).backward()
        results.append((output, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}))
    (exact, exact_gradients), (half, half_gradients) = results
    torch.testing.assert_close(half.generator_loss_sum, exact.generator_loss_sum, rtol=0.01, atol=0)
    torch.testing.assert_close(half.discriminator_loss_sum, exact.discriminator_loss_sum, rtol=0.01, atol=0)
    whole = torch.stack([gradient.norm() for gradient in exact_gradients.values()]).norm()
    for name, gradient in exact_gradients.items():
        error = (half_gradients[name] - gradient).norm()
        assert error < max(0.05 * gradient.norm(), 0.01 * whole), name


def test_fp32_on_the_gpu_agrees_with_the_cpu():
    pair = toy_pair()
    batch, _ = pack_examples(toy_examples(40), rows=16)
    expected = ReplacedTokenDetection(*copy.deepcopy(pair), corrective=True).eval()(batch)
    output = ReplacedTokenDetection(*pair, corrective=True).to(CUDA).eval()(batch.to(CUDA))
    for field in ("generator_loss_sum", "discriminator_loss_sum", "corrective_loss_sum"):
        torch.testing.assert_close(getattr(output, field).cpu(), getattr(expected, field), rtol=1e-5, atol=0)
    flips = (output.sampled.cpu() != expected.sampled)[batch.slot_used].sum()
    assert flips <= 1  # a number within rounding of a boundary


@pytest.mark.parametrize("vocab_size", [300, 35_000])
def test_frequencies_are_the_weights(vocab_size):
    weights = 1 / torch.arange(1, vocab_size + 1, device=CUDA, dtype=torch.float32)
    drawn = torch.cat([sample(weights.expand(len(part), -1), part) for part in numbers(200_000).to(CUDA).split(4000)])
    assert goodness(drawn.cpu(), weights.cpu()) > 1e-4


def test_under_bf16_autocast_the_samples_follow_the_logits_that_the_head_gave():
    model = trained_on_gpu().eval()
    (example,) = toy_examples(1, seed=8, shortest=6, longest=6)
    rows = 20_000
    batch = on_gpu([example] * rows, row_tokens=8, slots=1, segments=1)
    batch.slot_uniform = numbers(rows, stream=5)[:, None].to(CUDA)
    given = []
    model.generator.generator_lm_head.register_forward_hook(lambda _module, _inputs, output: given.append(output))
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        output = model(batch)
    (logits,) = given
    assert logits.dtype == torch.bfloat16
    assert (logits == logits[0]).all(), "equal rows, equal logits"
    probs = logits[0, 0].cpu().double().softmax(-1)
    assert goodness(output.sampled[:, 0].cpu(), probs) > 1e-4


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("corrective", [False, True])
def test_a_micro_step_never_waits_for_the_device(gradient_checkpointing, corrective):
    more = dict(gradient_checkpointing=gradient_checkpointing, corrective=corrective)
    model = ReplacedTokenDetection(*toy_pair(dropout=0.1), **more).to(CUDA).train()
    batches = [on_gpu(toy_examples(20, seed=seed), rows=10) for seed in range(3)]

    def micro_step(batch):
        with torch.autocast("cuda", torch.bfloat16):
            output = model(batch)
        (total_loss(output, batch) + output.corrective_loss_sum).backward()
        return output

    micro_step(batches[0])  # libraries load on first use
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches:
            output = micro_step(batch)
        with pytest.raises(RuntimeError, match="synchroniz"):  # the alarm is on
            output.generator_loss_sum.item()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("corrective", [False, True])
def test_twenty_compiled_steps_compile_once(corrective):
    torch._dynamo.reset()
    model = ReplacedTokenDetection(*toy_pair(dropout=0.1), corrective=corrective).to(CUDA).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    compiled = torch.compile(model, fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(20):
            batch = on_gpu(toy_examples(5 + step, seed=step), rows=16)
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16):
                output = compiled(batch)
            (total_loss(output, batch) + output.corrective_loss_sum).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        compiled_output, eager_output = compiled(batch, batch.slot_labels), model(batch, batch.slot_labels)
    torch.testing.assert_close(
        compiled_output.discriminator_loss_sum, eager_output.discriminator_loss_sum, rtol=0.01, atol=0
    )
