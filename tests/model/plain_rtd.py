"""Replaced token detection written straight from its definition, to check the packed implementation against.

One example at a time: no packing, no padding, stock Hugging Face forward passes with eager attention, the LM head on every
position, replacements drawn by walking along the cumulative sum. Shares no code with electra_accel.model.
"""

import math
from dataclasses import dataclass

import torch


@dataclass
class Example:
    """One text: ids with [CLS] and [SEP], what the generator reads, and per selected position the number that draws its
    replacement."""

    tokens: list[int]
    corrupted: list[int]
    selected: list[int]
    uniform: list[float]
    token_types: list[int]


@dataclass
class PlainResult:
    generator_loss_sum: torch.Tensor
    discriminator_loss_sum: torch.Tensor
    selected: int
    tokens: int
    sampled: list[list[int]]
    labels: list[list[int]]  # 1 where the discriminator's input differs from the original
    logits: list[torch.Tensor]  # the discriminator's, per example
    generator_logits: list[torch.Tensor]  # at the selected positions, per example


def plain_rtd(generator, discriminator, examples: list[Example], temperature: float = 1.0) -> PlainResult:
    """Sums over ``examples``; ``generator`` and ``discriminator`` must be set to eager attention."""
    result = PlainResult(torch.tensor(0.0), torch.tensor(0.0), 0, 0, [], [], [], [])
    for example in examples:
        types = torch.tensor([example.token_types])
        mlm_logits = generator(torch.tensor([example.corrupted]), token_type_ids=types).logits[0]
        read = list(example.tokens)
        sampled = []
        for position, uniform in zip(example.selected, example.uniform, strict=True):
            probs = torch.softmax(
                mlm_logits[position].float() if mlm_logits.dtype != torch.float64 else mlm_logits[position], 0
            )
            result.generator_loss_sum = result.generator_loss_sum - torch.log(probs[example.tokens[position]])
            sampled.append(draw(mlm_logits[position].detach() / temperature, uniform))
            read[position] = sampled[-1]
            result.selected += 1
        labels = [int(token != original) for token, original in zip(read, example.tokens, strict=True)]
        logits = discriminator(torch.tensor([read]), token_type_ids=types).logits[0]
        for logit, label in zip(logits, labels, strict=True):
            likelihood = torch.sigmoid(logit) if label else torch.sigmoid(-logit)
            result.discriminator_loss_sum = result.discriminator_loss_sum - torch.log(likelihood)
            result.tokens += 1
        result.sampled.append(sampled)
        result.labels.append(labels)
        result.logits.append(logits.detach())
        result.generator_logits.append(mlm_logits[example.selected].detach())
    return result


def draw(logits: torch.Tensor, uniform: float) -> int:
    """Inverse CDF of softmax(logits), the slow way."""
    weights = [math.exp(x) for x in (logits.double() - logits.double().max()).tolist()]
    target = uniform * math.fsum(weights)
    passed = 0.0
    for token, weight in enumerate(weights):
        passed += weight
        if passed > target:
            return token
    return len(weights) - 1
