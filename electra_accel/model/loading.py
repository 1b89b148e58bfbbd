"""Start from a saved or published pair, and say what was found in it."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining, PreTrainedModel

from electra_accel.errors import UserError
from electra_accel.model.pair import Pair, check_pair, initialise, set_dropout
from electra_accel.model.sharing import tie_embeddings

# What transformers, safetensors and torch raise for files that are missing, truncated, of another shape or out of reach.
_UNUSABLE = (OSError, ValueError, RuntimeError, SafetensorError, pickle.UnpicklingError)


def load_pair(
    generator: str,
    discriminator: str,
    *,
    revision: str | None,
    tokenizer_vocab_size: int,
    max_length: int,
    dropout: float,
    seed: int,
) -> tuple[Pair, list[str]]:
    """Loads two Hugging Face folders or hub ids, checks that they fit, and ties their embeddings (to the discriminator's).

    Args:
        revision: branch, tag or commit on the hub, for both; None for the main branch.
        tokenizer_vocab_size, max_length: see ``pair.check_pair``; checked before any weights are read.
        dropout: see ``pair.set_dropout``.
        seed: of parts that a checkpoint lacks; see ``pair.initialise``.

    Returns:
        The pair in fp32 on the CPU, and lines for a person: what is new, what was ignored, what is tied.

    Raises:
        UserError: not a folder and not to be had from the hub; not an ELECTRA; files that cannot be read; a checkpoint
            without its encoder; a pair that does not fit.
    """
    generator_config = load_config("model.generator", generator, revision)
    discriminator_config = load_config("model.discriminator", discriminator, revision)
    check_pair(generator_config, discriminator_config, tokenizer_vocab_size, max_length)
    networks, report = [], []
    for role, architecture, source, config in (
        ("generator", ElectraForMaskedLM, generator, generator_config),
        ("discriminator", ElectraForPreTraining, discriminator, discriminator_config),
    ):
        with _one_line_errors(f"model.{role}", source):
            network, found = _from_pretrained(architecture, source, config, revision)
        new, ignored = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
        lost = [name for name in new if name.startswith("electra.")]
        if lost:
            raise UserError(
                f"model.{role}: {source} lacks {len(lost)} of the encoder's parameters ({lost[0]}, …); give a whole checkpoint"
            )
        initialise(network, role, seed, only=new)
        set_dropout(network, dropout)
        networks.append(network)
        report.append(f"{role} {source}: new, not in the checkpoint: {', '.join(new) or 'nothing'}")
        report.append(f"{role} {source}: in the checkpoint, not used: {', '.join(ignored) or 'nothing'}")
    pair = Pair(*networks)
    drift, table = _embedding_drift(pair)
    tie_embeddings(*pair)
    difference = f"which differed by up to {drift:.2g} ({table})" if drift else "which were equal"
    report.append(f"tied: the generator uses the discriminator's embeddings, {difference}, and its LM head too")
    return pair, report


def load_network(option: str, architecture: type[PreTrainedModel], source: str) -> PreTrainedModel:
    """One network as it is, by stock transformers alone: fp32, on the CPU, without dropout.

    Args:
        option: that named ``source``, a folder or hub id; for the error.

    Raises:
        UserError: it cannot be loaded, or lacks parameters of this architecture: it is something else.
    """
    config = load_config(option, source, None)
    with _one_line_errors(option, source):
        network, found = _from_pretrained(architecture, source, config, None)
    if found["missing_keys"]:
        lacking = sorted(found["missing_keys"])[0]
        raise UserError(f"{option}: {source} is no {architecture.__name__}, it lacks {lacking}; name another one")
    return network.eval()


def load_config(option: str, source: str, revision: str | None) -> ElectraConfig:
    """The configuration in a folder or under a hub id; UserError (naming ``option``) unless it is an ELECTRA's."""
    looks_like_path = source.startswith((".", "/", "~")) or source.count("/") > 1
    if looks_like_path and not Path(source).is_dir():
        raise UserError(f"{option}: there is no folder {source}")
    with _one_line_errors(option, source):
        config = AutoConfig.from_pretrained(source, revision=revision)
    if not isinstance(config, ElectraConfig):
        raise UserError(f"{option}: {source} is a {config.model_type} model, not an ELECTRA")
    return config


def _from_pretrained(
    architecture: type[PreTrainedModel], source: str, config: ElectraConfig, revision: str | None
) -> tuple[PreTrainedModel, dict]:
    """The network in training mode, fp32, and transformers' account of keys; without its own print-out of that account."""
    log = transformers.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        network, found = architecture.from_pretrained(
            source, config=config, revision=revision, dtype=torch.float32, weights_only=True, output_loading_info=True
        )
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
    return network.train(), found


@contextmanager
def _one_line_errors(option: str, source: str) -> Iterator[None]:
    try:
        yield
    except _UNUSABLE as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{option}: cannot load {source} (a folder with config.json and weights, or a hub id): {reason}"
        ) from error


def _embedding_drift(pair: Pair) -> tuple[float, str]:
    """Greatest absolute difference between the two networks' embedding parameters, and where it is."""
    mine = dict(pair.generator.electra.embeddings.named_parameters())
    theirs = dict(pair.discriminator.electra.embeddings.named_parameters())
    return max(((mine[name] - theirs[name]).abs().max().item(), name) for name in mine)
