"""Start from saved or published networks, and say what was found in them."""

import torch
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining, PreTrainedModel

from electra_accel.errors import UserError
from electra_accel.model.pair import Pair, check_pair, initialise, set_dropout
from electra_accel.model.reading import (
    FETCH_AGAIN,
    one_line_errors,
    quiet,
    read_config,
    require_finite,
    require_finite_files,
    require_whole_encoder,
)
from electra_accel.model.sharing import share

_HEADS = {"generator": "generator_predictions.", "discriminator": "discriminator_predictions."}
_ANOTHER = 0.01  # of a table's norm: one that differs by more was trained apart, it is no rounded copy
_SHARED = {
    "tied": "tied, the generator uses the discriminator's",
    "none": "not shared, each network keeps its own",
    "gdes": "gdes, the discriminator's tables are the generator's plus a difference that it keeps",
}


def load_networks(generator: str, discriminator: str, *, sharing: str, **settings) -> tuple[Pair, list[str]]:
    """Loads two Hugging Face folders or hub ids and checks that they fit; their embeddings are not shared yet.

    Args:
        sharing: what :func:`share_loaded` will be asked for: shared tables must have one shape.
        settings: all are needed. ``revision``: branch, tag or commit on the hub, for both; None for the main branch.
            ``tokenizer_vocab_size``, ``max_length``: see ``pair.check_pair``; checked before any weights are read.
            ``dropout``: see ``pair.set_dropout``. ``seed``: of parts that a checkpoint lacks; see ``pair.initialise``.

    Returns:
        The pair in fp32 on the CPU, and lines for a person: what is new, what was not used, what an LM head was; those that
        begin with "warning: " tell of weights that training has to make good.

    Raises:
        UserError: no ELECTRA there; files that cannot be read; a checkpoint without its encoder, or with the other network's
            head instead of its own; a pair that does not fit.
    """
    given = {"generator": (ElectraForMaskedLM, generator), "discriminator": (ElectraForPreTraining, discriminator)}
    networks, report = _load(given, sharing=sharing, **settings)
    return Pair(*networks), report


def load_discriminator(source: str, **settings) -> tuple[ElectraForPreTraining, list[str]]:
    """A discriminator alone; settings, result and errors as of :func:`load_networks`."""
    [network], report = _load({"discriminator": (ElectraForPreTraining, source)}, **settings)
    return network, report


def load_encoder(source: str, **settings) -> tuple[ElectraForMaskedLM, list[str]]:
    """The encoder of a discriminator under an LM head, which is new unless the checkpoint has one; else as
    :func:`load_discriminator`."""
    [network], report = _load({"discriminator": (ElectraForMaskedLM, source)}, **settings)
    return network, report


def _load(
    given: dict[str, tuple[type[PreTrainedModel], str]],
    *,
    revision: str | None,
    tokenizer_vocab_size: int,
    max_length: int,
    dropout: float,
    seed: int,
    sharing: str = "none",
) -> tuple[list[PreTrainedModel], list[str]]:
    """Networks to train, LM heads tied to their word tables, and the lines about them; ``given`` by role."""
    configs = [load_config(f"model.{role}", source, revision) for role, (_, source) in given.items()]
    check_pair(*(*configs, None)[:2], tokenizer_vocab_size, max_length, sharing)
    networks, report = [], []
    for config, (role, (architecture, source)) in zip(configs, given.items()):
        # Published configurations may say otherwise; what we train and export is tied, and stock transformers must know.
        config.tie_word_embeddings = True
        network, found = _from_pretrained(f"model.{role}", architecture, source, config, revision)
        new, unused = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
        if lost := [name for name in new if name.startswith("electra.")]:
            raise UserError(
                f"model.{role}: {source} lacks {len(lost)} of the encoder's parameters ({lost[0]}, …); give a whole checkpoint"
            )
        other = "discriminator" if role == "generator" else "generator"
        beheaded = any(name.startswith(_HEADS[role]) for name in new)
        if beheaded and any(name.startswith(_HEADS[other]) for name in unused):
            what = {"generator": "a discriminator", "discriminator": "a generator or a corrector"}[role]
            raise UserError(f"model.{role}: {source} is {what}; name the folder of a {role}")
        initialise(network, role, seed, only=new)
        set_dropout(network, dropout)
        title, lines = f"{role} {source}:", []
        if new:
            lines.append(f"{'warning: ' * beheaded}{title} new, not in the checkpoint: {', '.join(new)}")
        if unused:
            lines.append(f"{title} in the checkpoint, not used: {', '.join(unused)}")
        if architecture is ElectraForMaskedLM:
            lines += _tie_lm_head(network, title)
        networks.append(network)
        report += lines or [f"{title} all weights found and used"]
    return networks, report


def _tie_lm_head(network: ElectraForMaskedLM, title: str) -> list[str]:
    """Makes the word table the LM head's weight; a line if the checkpoint had another one."""
    head, word = network.generator_lm_head, network.electra.embeddings.word_embeddings.weight
    if head.weight is word:
        return []
    line = f"{title} LM head tied to the word embeddings; its own weight in the checkpoint, which differed by "
    line += f"{_difference(head.weight, word)}, is not used"
    is_odd = _relative_difference(head.weight, word) > _ANOTHER
    head.weight = word
    # transformers took the entry out when it saw the difference; without it nothing would be tied after the export.
    network.all_tied_weights_keys = network.get_expanded_tied_weights_keys()
    return [f"{'warning: ' * is_odd}{line}"]


def share_loaded(pair: Pair, how: str) -> list[str]:
    """``sharing.share``, in place, for two networks that come with embeddings of their own; returns lines for a person: how far
    these had drifted apart, and what was made of them."""
    mine, drift, is_another = dict(pair.generator.electra.embeddings.named_parameters()), [], False
    for name, parameter in pair.discriminator.electra.embeddings.named_parameters():
        if mine[name].shape != parameter.shape:
            drift.append(f"{name} is {list(mine[name].shape)} and {list(parameter.shape)}")
        elif not torch.equal(mine[name], parameter):
            drift.append(f"{name} by {_difference(mine[name], parameter)}")
            is_another |= _relative_difference(mine[name], parameter) > _ANOTHER
    share(*pair, how)
    differed = f"; the generator's differed from the discriminator's: {'; '.join(drift)}" if drift else " (were equal)"
    lines = [f"embeddings: {_SHARED[how]}{differed}"]
    if how == "tied" and is_another:
        lines.append(
            "warning: the generator now has tables that it was not trained with; --model.sharing none keeps its own"
        )
    return lines


def load_network(
    option: str, architecture: type[PreTrainedModel], source: str, revision: str | None = None
) -> PreTrainedModel:
    """One network as it is, by stock transformers alone: fp32, on the CPU, without dropout.

    Args:
        option: that named ``source``, a folder or hub id; for the error.
        revision: branch, tag or commit of a hub id.

    Raises:
        UserError: it cannot be loaded, or lacks parameters of this architecture: it is something else.
    """
    config = load_config(option, source, revision)
    network, found = _from_pretrained(option, architecture, source, config, revision)
    if found["missing_keys"]:
        lacking = sorted(found["missing_keys"])[0]
        raise UserError(f"{option}: {source} is no {architecture.__name__}, it lacks {lacking}; name another one")
    return network.eval()


def load_config(option: str, source: str, revision: str | None) -> ElectraConfig:
    """The configuration in a folder or under a hub id; UserError (naming ``option``) unless it is an ELECTRA's."""
    config = read_config(option, source, revision)
    if not isinstance(config, ElectraConfig):
        raise UserError(f"{option}: {source} is a {config.model_type} model, not an ELECTRA")
    return config


def _from_pretrained(
    option: str, architecture: type[PreTrainedModel], source: str, config: ElectraConfig, revision: str | None
) -> tuple[PreTrainedModel, dict]:
    """The network in training mode, fp32, its weights checked, and transformers' account of keys."""
    require_finite_files(option, source)
    with quiet(), one_line_errors(option, source):
        network, found = architecture.from_pretrained(
            source,
            config=config,
            revision=revision,
            dtype=torch.float32,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, in one line
        )
    for name, saved, wanted in sorted(found["mismatched_keys"]):
        raise UserError(
            f"{option}: cannot load {source}: config.json is that of another model: {name} is {list(saved)}, by config.json "
            f"{list(wanted)}"
        )
    require_whole_encoder(option, source, found["unexpected_keys"])
    require_finite(f"{option}: {source}", network.named_parameters(), FETCH_AGAIN)
    return network.train(), found


def _difference(one: torch.Tensor, other: torch.Tensor) -> str:
    """Greatest absolute difference, and the difference's norm beside that of ``other``; in words."""
    return f"up to {(one - other).abs().max().item():.2g} ({_relative_difference(one, other):.2%} of its norm)"


def _relative_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()
