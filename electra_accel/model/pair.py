"""A generator and a discriminator that fit together: the published sizes, fresh weights, and the checks."""

import copy
import hashlib
from collections.abc import Container
from typing import NamedTuple

import torch
from torch import nn
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from electra_accel import randomness
from electra_accel.errors import UserError
from electra_accel.model.sharing import share
from electra_accel.model.sizes import SIZES


class Pair(NamedTuple):
    """Two Hugging Face models, trained as one module once their embeddings are shared (``sharing.share``).

    For masked language modelling the generator stands alone: the discriminator is None.
    """

    generator: ElectraForMaskedLM
    discriminator: ElectraForPreTraining | None


def pair_configs(
    size: str, *, vocab_size: int, pad_token_id: int, max_length: int, generator_width: float | None
) -> tuple[ElectraConfig, ElectraConfig]:
    """Configurations of generator and discriminator.

    Args:
        size: a key of ``SIZES``.
        vocab_size: of the tokenizer.
        max_length: tokens of the longest example; models have 512 positions, or this many if it is more.
        generator_width: see :func:`narrower`; None for the size's own.
    """
    shape = SIZES[size]
    discriminator = ElectraConfig(
        vocab_size=vocab_size,
        pad_token_id=pad_token_id,
        embedding_size=shape.embedding,  # the discriminator's in both, so that the tables can be shared
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.ffn,
        max_position_embeddings=max(512, max_length),
    )
    return narrower(discriminator, shape.generator_width if generator_width is None else generator_width), discriminator


def narrower(config: ElectraConfig, width: float) -> ElectraConfig:
    """A copy whose hidden size, heads and ffn are a share of those of ``config``, rounded to whole heads."""
    narrow, heads = copy.deepcopy(config), config.num_attention_heads
    narrow.num_attention_heads = max(1, round(heads * width))
    narrow.hidden_size = config.hidden_size * narrow.num_attention_heads // heads
    narrow.intermediate_size = config.intermediate_size * narrow.num_attention_heads // heads
    return narrow


def build_pair(size: str, *, dropout: float, seed: int, sharing: str = "tied", **shape) -> Pair:
    """A fresh pair in fp32 on the CPU; the weights are a pure function of ``seed`` and of each parameter's name.

    Args: see :func:`set_dropout`, :func:`initialise`, ``sharing.share`` and, for ``size`` and ``shape``, :func:`pair_configs`.
        With gdes both start from one table, as in the paper: delta is 0.
    """
    generator, discriminator = pair_configs(size, **shape)
    pair = Pair(ElectraForMaskedLM(generator), ElectraForPreTraining(discriminator))
    for role, network in pair._asdict().items():
        initialise(network, role, seed)
        set_dropout(network, dropout)
    if sharing == "gdes":
        pair.generator.electra.embeddings.load_state_dict(pair.discriminator.electra.embeddings.state_dict())
    share(*pair, sharing)
    return pair


def build_encoder(size: str, *, dropout: float, seed: int, **shape) -> ElectraForMaskedLM:
    """A fresh network of the discriminator's shape with an LM head, for masked language modelling alone.

    Args: see :func:`build_pair`. The same seed gives its encoder the weights that the discriminator of a pair has.
    """
    network = ElectraForMaskedLM(pair_configs(size, generator_width=None, **shape)[1])
    initialise(network, "discriminator", seed)
    set_dropout(network, dropout)
    return network


def warm_start_generator(
    discriminator: ElectraForPreTraining, *, width: float | None, dropout: float, seed: int
) -> tuple[ElectraForMaskedLM, list[str]]:
    """A generator for a discriminator that was released alone: fresh layers to be trained by MLM first, on copies of the
    discriminator's embeddings with the LM head tied to them, in fp32 on the CPU; and a line for a person.

    Args:
        width: see :func:`narrower`; None for what the published pairs of its hidden size have (1/4 where there is none).
        dropout: see :func:`set_dropout`; seed: see :func:`initialise`.
    """
    hidden = discriminator.config.hidden_size
    if width is None:
        width = next((size.generator_width for size in SIZES.values() if size.hidden == hidden), 1 / 4)
    config = narrower(discriminator.config, width)
    config.architectures, config.tie_word_embeddings = None, True
    generator = ElectraForMaskedLM(config)
    initialise(generator, "generator", seed)
    set_dropout(generator, dropout)
    generator.electra.embeddings.load_state_dict(discriminator.electra.embeddings.state_dict())
    heads = config.num_attention_heads
    shape = f"{config.num_hidden_layers} layers, hidden size {config.hidden_size}, {heads} head{'s' * (heads > 1)}"
    return generator, [f"generator: new ({shape}), but for the embeddings, which are the discriminator's"]


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
    generator: ElectraConfig,
    discriminator: ElectraConfig | None,
    tokenizer_vocab_size: int,
    max_length: int,
    sharing: str = "tied",
) -> None:
    """Raises UserError, all problems in one line, unless the two fit together and read what the tokenizer writes.

    Args:
        discriminator: None where ``generator`` is one network alone.
        tokenizer_vocab_size: greatest token id plus one; ``max_length``: tokens of the longest example.
        sharing: tables that are shared must have one shape; with ``"none"`` only the vocabulary must be the same.
    """
    networks, problems = [generator, discriminator or generator], []
    must_agree = {"vocab_size": "the size of the vocabulary"}
    if sharing != "none":
        must_agree |= {"embedding_size": "embedding_size", "max_position_embeddings": "the number of positions"}
        must_agree["type_vocab_size"] = "the number of token types"
    for field, meaning in must_agree.items():
        one, other = (getattr(network, field) for network in networks)
        if one != other:
            added = "were tokens added to one of them? take both from one run"
            remedy = added if field == "vocab_size" else "model.sharing none lets them differ"
            problems.append(f"{meaning} differs (generator {one}, discriminator {other}): {remedy}")
    vocab_size, positions = (
        min(getattr(network, field) for network in networks) for field in ("vocab_size", "max_position_embeddings")
    )
    if tokenizer_vocab_size > vocab_size:
        problems.append(
            f"the tokenizer has {tokenizer_vocab_size} tokens, the model only {vocab_size} (tokenizer.path)"
        )
    if max_length > positions:
        problems.append(f"data.max_length {max_length} is over the model's {positions} positions")
    if problems:
        which = "generator, discriminator" if discriminator else "model"
        raise UserError(f"this {which} and tokenizer do not fit together: {'; '.join(problems)}")
