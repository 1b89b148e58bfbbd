import copy

import numpy as np
import pytest
import torch

from electra_accel.model.rtd import ReplacedTokenDetection, read_generator, sample
from electra_accel.randomness import uniform
from tests.model.batches import pack_examples, toy_examples
from tests.model.frequencies import goodness, numbers
from tests.model.plain_rtd import draw


@pytest.mark.parametrize("vocab_size", [5, 128, 300, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frequencies_are_the_weights(vocab_size, dtype):
    weights = 1 / torch.arange(1, vocab_size + 1, dtype=dtype)  # Zipf, as words are
    weights = weights[torch.from_numpy(np.argsort(uniform(2, np.arange(vocab_size))))]
    drawn = torch.cat([sample(weights.expand(len(part), -1), part) for part in numbers(60_000).split(500)])
    assert drawn.min() >= 0 and drawn.max() < vocab_size
    assert goodness(drawn, weights) > 1e-4


def test_chi_squared_would_notice_half_precision_noise():
    """The same test refuses what a half precision cumulative sum gives, so passing means something."""
    weights = torch.ones(2000)
    cdf = weights.to(torch.bfloat16).cumsum(0).float()
    drawn = torch.searchsorted(cdf, numbers(60_000).float() * cdf[-1], right=True).clamp(max=1999)
    assert goodness(drawn, torch.ones(2000)) < 1e-4


def test_tokens_of_the_tail_are_drawn_at_their_rate():
    """50 tokens share one millionth: evenly spaced numbers within that millionth must meet each of them equally often."""
    weights = torch.ones(1, 1000, dtype=torch.float32)
    weights[0, 300:350] = 2e-8 * 950 / (1 - 1e-6)
    exact = weights.double() / weights.double().sum()
    start, mass = exact[0, :300].sum(), exact[0, 300:350].sum()
    assert 0.9e-6 < mass < 1.1e-6
    stratified = start + mass * (torch.arange(5000, dtype=torch.float64) + 0.5) / 5000
    drawn = sample(weights.expand(5000, -1), stratified)
    assert (torch.bincount(drawn, minlength=1000)[300:350] - 100).abs().max() <= 1


def test_the_ends_of_the_interval():
    weights = torch.tensor([[0.0, 0.0, 3.0, 0.0, 1.0, 0.0]])
    highest = 1 - 2.0**-53
    assert sample(
        weights.expand(4, -1), torch.tensor([0.0, 0.75 - 1e-12, 0.75, highest], dtype=torch.float64)
    ).tolist() == [2, 2, 4, 4]
    late = (torch.arange(400) >= 200).float()[None]  # nothing in the first group of 128 tokens
    assert sample(late, torch.zeros(1, dtype=torch.float64)).item() == 200
    many = torch.rand(64, 30_000, generator=torch.Generator().manual_seed(0))
    assert sample(many, torch.full((64,), highest, dtype=torch.float64)).max() < 30_000
    assert (sample(many, torch.full((64,), highest, dtype=torch.float64)) >= 29_990).all()


def test_the_same_token_as_one_cumulative_sum_over_the_vocabulary():
    logits = torch.randn(2000, 700, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    u = numbers(2000)
    assert sample(logits.softmax(1), u).tolist() == [
        draw(row, number) for row, number in zip(logits, u.tolist(), strict=True)
    ]


def test_slots_are_read_the_same_in_one_chunk_or_many():
    """Vocabulary times slots over the chunk size, and figures against their definitions."""
    logits = torch.randn(5, 7, 30_000, generator=torch.Generator().manual_seed(2))
    log_probs = logits.log_softmax(-1)
    u = numbers(35).view(5, 7)
    slots = read_generator(log_probs, u, temperature=1.0)
    assert torch.equal(slots.sampled, sample(log_probs.exp().flatten(0, 1), u.flatten()).view(5, 7))
    assert torch.equal(slots.argmax, logits.argmax(-1))
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(slots.entropy, entropy, rtol=1e-5, atol=0)
    cold = read_generator(log_probs, u, temperature=1e-4)
    assert torch.equal(cold.sampled, logits.argmax(-1))


def test_under_bf16_autocast_the_samples_follow_the_logits_that_the_head_gave(trained_pair):
    """One text many times over with different numbers: chi-squared at one of its positions, and the draw itself, in full
    precision from the bf16 logits."""
    model = ReplacedTokenDetection(*copy.deepcopy(trained_pair)).eval()
    (example,) = toy_examples(1, seed=8, shortest=6, longest=6)
    rows = 2000
    batch, _ = pack_examples([example] * rows, row_tokens=6, slots=1, segments=1)
    batch.slot_uniform = numbers(rows, stream=5)[:, None]
    given = []
    model.generator.generator_lm_head.register_forward_hook(lambda _module, _inputs, output: given.append(output))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model(batch)
    (logits,) = given
    assert logits.dtype == torch.bfloat16 and logits.shape[:2] == (rows, 1)
    probs = logits[0, 0].double().softmax(-1)
    assert (probs * rows > 20).sum() > 5
    assert goodness(output.sampled[:, 0], probs) > 1e-4
    expected = [draw(row.double(), u) for row, u in zip(logits[:, 0], batch.slot_uniform[:, 0].tolist(), strict=True)]
    assert (output.sampled[:, 0] != torch.tensor(expected)).sum() <= 1  # fp32 against fp64 at a boundary
