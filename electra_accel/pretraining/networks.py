"""From the configuration to the networks and to the vocabulary that they read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from electra_accel.errors import UserError
from electra_accel.model import loading
from electra_accel.model import pair as pairs
from electra_accel.model.corrective import require_same_encoder
from electra_accel.model.mlm import MaskedLanguageModeling
from electra_accel.model.pair import Pair
from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.model.vocabulary import extend_networks
from electra_accel.pretraining.config import Config
from electra_accel.runs import run_folder
from electra_accel.text.tokenizer import load_tokenizer, vocabulary_conflict

Log = Callable[[str], None]


def generator_of(folder: Path) -> Path:
    """Where the run in ``folder`` finds its warm-started generator."""
    return folder / run_folder.WARM_START / "generator"


def given_networks(config: Config) -> dict[str, tuple[str, ElectraConfig]]:
    """{option: (folder or hub id, its configuration)} of the networks that a run starts from, the discriminator's last.
    UserError where one of them cannot be found, or is no ELECTRA."""
    model, found = config.model, {}
    for option, source in (("model.generator", model.generator), ("model.discriminator", model.discriminator)):
        if option == "model.discriminator" or not (config.is_mlm or config.warm_starts):
            found[option] = source, loading.load_config(option, source, model.revision)
    return found


def given_tokenizer(config: Config, log: Log) -> PreTrainedTokenizerFast | None:
    """tokenizer.path, else the discriminator's; None where a vocabulary is to be trained, or comes with data.prepared.

    Before hours are spent on preparing text, the configuration files and vocabularies of given networks are checked.

    Raises:
        UserError: they do not fit together, or to the tokenizer or data.max_length, or cannot be read.
    """
    model, path = config.model, config.tokenizer.path
    if not config.from_pair:
        return load_tokenizer(path, log=log) if path else None
    given = given_networks(config)
    fitting = dict(max_length=config.data.max_length, sharing=model.sharing)
    shapes = (*(shape for _, shape in given.values()), None)[:2]
    pairs.check_pair(*shapes, 0, **fitting)
    tokenizer = load_tokenizer(path, log=log) if path else load_tokenizer(model.discriminator, model.revision, log)
    pairs.check_pair(*shapes, len(tokenizer), **fitting)
    for option, (source, _) in given.items():
        try:
            theirs = load_tokenizer(source, model.revision)
        except UserError:
            log(f"{option} {source} has no usable tokenizer: that it has the vocabulary of this run cannot be checked")
            continue
        if conflict := vocabulary_conflict(tokenizer, theirs):
            number, ours, other = conflict
            raise UserError(
                f"{option}: {source} has another vocabulary than {path or model.discriminator}: id {number} is {other!r} there "
                f"and {ours!r} here; take a generator, a discriminator and a tokenizer.path with one vocabulary"
            )
    return tokenizer


def networks(config: Config, tokenizer: PreTrainedTokenizerBase, log: Log, folder: Path | None = None) -> Pair:
    """Fresh networks of model.size, or the given ones; checked against each other, the tokenizer and data.max_length.

    Args:
        tokenizer: of the run; it may have more tokens than that of the given networks, which then get rows for them.
        folder: of the run, where a warm-started generator is found; None: its layers stay fresh, as a checkpoint follows.

    Returns:
        With objective.kind mlm a pair without a discriminator.

    Raises:
        UserError: they do not fit together, or cannot be loaded.
    """
    model = config.model
    common = dict(max_length=config.data.max_length, dropout=model.dropout, seed=config.run.seed)
    if not config.from_pair:
        common |= dict(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
        if config.is_mlm:
            return Pair(pairs.build_encoder(model.size, **common), None)
        return pairs.build_pair(model.size, generator_width=model.generator_width, sharing=model.sharing, **common)

    known = given_tokenizer(config, lambda line: None)
    common |= dict(revision=model.revision, tokenizer_vocab_size=len(known))
    if config.warm_starts:
        discriminator, report = loading.load_discriminator(model.discriminator, **common)
        generator, line = pairs.warm_start_generator(
            discriminator, width=model.generator_width, dropout=model.dropout, seed=config.run.seed
        )
        report += line
        pair = Pair(generator, discriminator)
    elif config.is_mlm:
        network, report = loading.load_encoder(model.discriminator, **common)
        pair = Pair(network, None)
    else:
        pair, report = loading.load_networks(model.generator, model.discriminator, sharing=model.sharing, **common)
    if len(tokenizer) > len(known):
        extend_networks(filter(None, pair), known, tokenizer)
    if config.is_mlm:
        pair = Pair(pair.generator, None)
        if config.is_warm_start:
            # Nor does an LM head that is tied to them learn; its bias does.
            pair.generator.electra.embeddings.requires_grad_(False)
    else:
        if config.warm_starts and folder:
            source = str(generator_of(folder))
            warm_started = loading.load_network("model.generator", ElectraForMaskedLM, source)
            pair.generator.load_state_dict(warm_started.state_dict())
            report.append(f"generator: its weights are those of the warm start, {source}")
        report += loading.share_loaded(pair, model.sharing)
    for line in report:
        log(line)
    return pair


def joint_module(config: Config, pair: Pair, tokenizer: PreTrainedTokenizerBase, log: Log) -> nn.Module:
    """What is trained, as one module: the two networks, or the one. Arguments and errors as of :func:`networks`."""
    common: dict[str, Any] = dict(
        gradient_checkpointing=config.model.gradient_checkpointing,
        attention_boundaries=config.train.attention_boundaries,
    )
    if pair.discriminator is None:
        return MaskedLanguageModeling(pair.generator, **common)
    common |= dict(corrective=config.is_corrective, seed=config.run.seed)
    module = ReplacedTokenDetection(*pair, temperature=config.objective.temperature, **common)
    if config.model.corrector:
        module.corrector.load(given_corrector(config, tokenizer))
        log(f"corrector {config.model.corrector}: its head was taken")
    return module


def given_corrector(config: Config, tokenizer: PreTrainedTokenizerBase) -> ElectraForMaskedLM:
    """model.corrector, with rows for tokens that were added."""
    model = config.model
    corrector = loading.load_network("model.corrector", ElectraForMaskedLM, model.corrector, model.revision)
    known = given_tokenizer(config, lambda line: None)
    if len(tokenizer) > len(known):
        extend_networks([corrector], known, tokenizer)
    return corrector


def require_fitting_corrector(config: Config) -> None:
    """UserError where model.corrector is none, or has another encoder than the given discriminator."""
    model = config.model
    corrector = loading.load_network("model.corrector", ElectraForMaskedLM, model.corrector, model.revision)
    name, architecture = "model.discriminator", ElectraForPreTraining
    discriminator = loading.load_network(name, architecture, model.discriminator, model.revision)
    require_same_encoder(corrector, discriminator, f"model.corrector: {model.corrector}")


def shapes(config: Config, tokenizer: PreTrainedTokenizerBase) -> tuple[ElectraConfig, ElectraConfig | None]:
    """The configurations of the networks that :func:`networks` will give, before there are any weights; one network: None last.

    Not known for a run that warm-starts its generator.
    """
    model = config.model
    if config.from_pair:
        found = [shape for _, shape in given_networks(config).values()]
        for each in found:
            each.vocab_size = max(each.vocab_size, len(tokenizer))  # tokens may have been added
    else:
        common = dict(max_length=config.data.max_length, pad_token_id=tokenizer.pad_token_id)
        width = model.generator_width
        found = pairs.pair_configs(model.size, vocab_size=len(tokenizer), generator_width=width, **common)
        found = found[1:] if config.is_mlm else found
    return (*found, None)[:2]
