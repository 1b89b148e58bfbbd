"""A generator and a discriminator that fit together: the published sizes, fresh weights, and the checks."""

import hashlib
from collections.abc import Container
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from electra_accel import randomness
from electra_accel.errors import UserError
from electra_accel.model.sharing import tie_embeddings


@dataclass(frozen=True)
class Size:
    """Shape of the discriminator, and how wide the generator is beside it by default (both have the same depth)."""

    layers: int
    hidden: int
    heads: int
    ffn: int
    embedding: int
    generator_width: float


# Clark et al. (ICLR 2020), table 6; "tiny" is ours, for CPUs.
SIZES = {
    "tiny": Size(4, 128, 4, 512, 128, 1 / 2),
    "small": Size(12, 256, 4, 1024, 128, 1 / 4),
    "base": Size(12, 768, 12, 3072, 768, 1 / 3),
    "large": Size(24, 1024, 16, 4096, 1024, 1 / 4),
}


class Pair(NamedTuple):
    """Two Hugging Face models with tied embeddings; each is saved with its own ``save_pretrained``."""

    generator: ElectraForMaskedLM
    discriminator: ElectraForPreTraining


def pair_configs(
    size: str, *, vocab_size: int, pad_token_id: int, max_length: int, generator_width: float | None
) -> tuple[ElectraConfig, ElectraConfig]:
    """Configurations of generator and discriminator.

    Args:
        size: a key of ``SIZES``.
        vocab_size: of the tokenizer.
        max_length: tokens of the longest example; models have 512 positions, or this many if it is more.
        generator_width: the generator's hidden size, heads and ffn as a share of the discriminator's, rounded to whole heads;
            None for the size's own.
    """
    shape = SIZES[size]
    heads = max(1, round(shape.heads * (shape.generator_width if generator_width is None else generator_width)))
    common = dict(
        vocab_size=vocab_size,
        pad_token_id=pad_token_id,
        embedding_size=shape.embedding,  # the discriminator's in both, so that the tables can be shared
        num_hidden_layers=shape.layers,
        max_position_embeddings=max(512, max_length),
    )
    generator, discriminator = (
        ElectraConfig(
            hidden_size=shape.hidden * n // shape.heads,
            num_attention_heads=n,
            intermediate_size=shape.ffn * n // shape.heads,
            **common,
        )
        for n in (heads, shape.heads)
    )
    return generator, discriminator


def build_pair(
    size: str,
    *,
    vocab_size: int,
    pad_token_id: int,
    max_length: int,
    generator_width: float | None,
    dropout: float,
    seed: int,
) -> Pair:
    """A fresh, tied pair in fp32 on the CPU; the weights are a pure function of ``seed`` and of each parameter's name.

    Args: see :func:`pair_configs`, :func:`set_dropout` and :func:`initialise`.
    """
    generator_config, discriminator_config = pair_configs(
        size,
        vocab_size=vocab_size,
        pad_token_id=pad_token_id,
        max_length=max_length,
        generator_width=generator_width,
    )
    pair = Pair(ElectraForMaskedLM(generator_config), ElectraForPreTraining(discriminator_config))
    for role, network in pair._asdict().items():
        initialise(network, role, seed)
        set_dropout(network, dropout)
    tie_embeddings(*pair)
    return pair


@torch.no_grad()
def initialise(network: nn.Module, prefix: str, seed: int, only: Container[str] | None = None) -> None:
    """Fresh weights as BERT and ELECTRA have them: normal with ``initializer_range``, biases 0, LayerNorm 1 and 0.

    Each parameter has a random stream of its own, keyed by seed, ``prefix`` and its name: the same on every device, in any
    order, whatever torch's generator drew before.

    Args:
        only: names of the parameters to fill; None for all.
    """
    for name, parameter in network.named_parameters():
        if only is not None and name not in only:
            continue
        if name.endswith("bias"):
            parameter.zero_()
        elif name.endswith("LayerNorm.weight"):
            parameter.fill_(1.0)
        else:
            digest = hashlib.blake2b(f"{prefix}.{name}".encode(), digest_size=8).digest()
            stream = randomness.key(seed, randomness.Purpose.INITIALISE, int.from_bytes(digest, "big"))
            values = randomness.normal(stream, parameter.numel()) * network.config.initializer_range
            parameter.copy_(torch.from_numpy(values).view(parameter.shape))


def set_dropout(network: nn.Module, dropout: float) -> None:
    """Sets the hidden dropout of the living modules, not of the configuration: what is exported keeps the published value
    for whoever fine-tunes it. (Attention dropout does not exist here: see ``attention.py``.)"""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout


def check_pair(
    generator: ElectraConfig, discriminator: ElectraConfig, tokenizer_vocab_size: int, max_length: int
) -> None:
    """Raises UserError, all problems in one line, unless the two can share embeddings and read what the tokenizer writes.

    Args:
        tokenizer_vocab_size: greatest token id plus one.
        max_length: tokens of the longest example.
    """
    problems = [
        f"{meaning} differs (generator {getattr(generator, field)}, discriminator {getattr(discriminator, field)})"
        for field, meaning in (
            ("vocab_size", "the size of the vocabulary"),
            ("embedding_size", "embedding_size"),
            ("max_position_embeddings", "the number of positions"),
            ("type_vocab_size", "the number of token types"),
        )
        if getattr(generator, field) != getattr(discriminator, field)
    ]
    vocab_size = min(generator.vocab_size, discriminator.vocab_size)
    if tokenizer_vocab_size > vocab_size:
        problems.append(
            f"the tokenizer has {tokenizer_vocab_size} tokens, the model only {vocab_size} (tokenizer.path)"
        )
    positions = min(generator.max_position_embeddings, discriminator.max_position_embeddings)
    if max_length > positions:
        problems.append(f"data.max_length {max_length} is over the model's {positions} positions")
    if problems:
        raise UserError("this generator, discriminator and tokenizer do not fit together: " + "; ".join(problems))
