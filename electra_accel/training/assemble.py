"""From the configuration to the parts that ``train`` needs. data/ and model/ take plain arguments; here they get them."""

import datetime
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from electra_accel.config import Config
from electra_accel.data.collate import Collator
from electra_accel.data.corpus import Corpus
from electra_accel.data.loader import StepLoader
from electra_accel.data.masking import Masking, slots_of_length
from electra_accel.data.packing import choose_limits
from electra_accel.data.plan import Layout, Plan, steps_in_passes
from electra_accel.data.prepare import Prepared, prepare
from electra_accel.data.tokenizer import load_tokenizer, vocabulary_conflict
from electra_accel.errors import UserError
from electra_accel.model.loading import load_config, load_networks, share_loaded
from electra_accel.model.metrics import training_flops
from electra_accel.model.pair import Pair, build_pair, check_pair
from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.training.engine import Engine
from electra_accel.training.window import Window

PREPARED = Path("prepared")  # where texts are tokenised to, once per content and settings
MICRO_BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}


def default_folder(recipe: str) -> str:
    """runs/<recipe>-<UTC time>; -<job id> under Slurm, which keeps its name when the job is requeued; in a W&B sweep, whose
    trials may start in the same second, runs/sweep-<run id>."""
    if os.environ.get("WANDB_SWEEP_ID") and (trial := os.environ.get("WANDB_RUN_ID")):
        return f"runs/sweep-{trial}"
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    return f"runs/{recipe}-{os.environ.get('SLURM_JOB_ID', now)}"


def prepared_data(config: Config, log: Callable[[str], None]) -> Prepared:
    """The tokenised text: opened where it is given or known, else made now (by one process; the others wait).

    Raises:
        UserError: text, tokenizer or a given pair's configuration cannot be used.
    """
    data = config.data
    tokenizer = given_tokenizer(config, log)
    if data.prepared:
        prepared = Prepared(Path(data.prepared), tokenizer)
        return _require_usable(prepared, data.max_length)
    text = dict(text_column=data.text_column)
    held_out = {"held_out": Corpus(files=tuple(data.eval_files), **text)} if data.eval_files else {}
    folder = prepare(
        PREPARED,
        Corpus(files=tuple(data.train_files or ()), dataset=data.dataset, **text),
        held_out,
        tokenizer=tokenizer,
        train_vocab_size=config.tokenizer.train_vocab_size,
        max_length=data.max_length,
        eval_fraction=data.eval_fraction,
        join_lines=data.join_lines,
        processes=None,
        log=log,
    )
    return _require_usable(Prepared(folder), data.max_length)


def _require_usable(prepared: Prepared, max_length: int) -> Prepared:
    made_with = prepared.manifest["settings"]["max_length"]
    if made_with != max_length:
        raise UserError(
            f"data.prepared {prepared.folder} was made with max_length {made_with}: set data.max_length to it"
        )
    if not len(prepared.train):
        raise UserError("no text is left to train on: lower data.eval_fraction")
    if not len(prepared.held_out.get("held_out", ())):
        raise UserError("no text is held out to judge the model by: raise data.eval_fraction, or give data.eval_files")
    return prepared


def step_loader(
    config: Config,
    prepared: Prepared,
    *,
    held_out: bool,
    world_size: int,
    rank: int,
    device: str,
    split: str | None = None,
) -> StepLoader:
    """Plan, layout and collation of one split on one process. Only the layout depends on world_size, rank and device.

    Args:
        held_out: one pass over the held-out text, keyed by ``eval.seed``, with ``eval.mask_prob`` and the published 85/15;
            else the training text.
        device: "cpu" or "cuda".
        split: whose text it is where that is not the split of this name: a corpus that is there to judge by alone was
            prepared as ``train``.
    """
    split = split or ("held_out" if held_out else "train")
    store = prepared.train if split == "train" else prepared.held_out[split]
    histogram, tokenizer = np.array(prepared.manifest["splits"][split]["lengths"]), prepared.tokenizer
    objective, train = config.objective, config.train
    seed = config.eval.seed if held_out else config.run.seed
    mask_prob = config.eval.mask_prob if held_out else objective.mask_prob
    bins_per_step = train.batch_tokens // train.bin_tokens
    limits = choose_limits(histogram, train.bin_tokens, lambda lengths: slots_of_length(lengths, mask_prob))
    plan = Plan(
        examples=len(store),
        lengths=store.lengths,
        slots=lambda examples, lengths: slots_of_length(lengths, mask_prob),
        limits=limits,
        bins_per_step=bins_per_step,
        seed=seed,
        corpus=store.corpus,
        passes=1 if held_out else None,
    )
    micro_batch_tokens = train.micro_batch_tokens or max(MICRO_BATCH_TOKENS[device], train.bin_tokens)
    layout = Layout.derive(bins_per_step, train.bin_tokens, micro_batch_tokens, world_size)
    masking = Masking(
        mask_prob=mask_prob,
        mask_token_prob=0.85 if held_out else objective.mask_token_prob,
        random_token_prob=0.0 if held_out else objective.random_token_prob,
        vocab_size=len(tokenizer),
        mask_id=tokenizer.mask_token_id,
        never_selected=(
            tokenizer.cls_token_id,
            tokenizer.sep_token_id,
            tokenizer.pad_token_id,
            tokenizer.mask_token_id,
        ),
        special_ids=tokenizer.all_special_ids,
    )
    collator = Collator(store, masking, limits, layout.rows, seed, tokenizer.pad_token_id)
    workers = config.data.num_workers
    if workers is None:
        workers = 2 if device == "cuda" else 0
    return StepLoader(plan, layout, rank, collator, 0 if held_out else workers, pin_memory=device == "cuda")


def given_tokenizer(config: Config, log: Callable[[str], None]) -> PreTrainedTokenizerFast | None:
    """tokenizer.path, else the discriminator's; None where a vocabulary is to be trained, or comes with data.prepared.

    A given pair is checked by its configuration files and vocabularies, before hours are spent on preparing text.

    Raises:
        UserError: no tokenizer there; no ELECTRA there; the pair or its vocabularies do not fit together or to the tokenizer;
            data.max_length is over their positions.
    """
    model, path = config.model, config.tokenizer.path
    if not config.from_pair:
        return load_tokenizer(path) if path else None
    sources = {"model.generator": model.generator, "model.discriminator": model.discriminator}
    configs = [load_config(option, source, model.revision) for option, source in sources.items()]
    check_pair(*configs, tokenizer_vocab_size=0, max_length=config.data.max_length)
    tokenizer = load_tokenizer(path) if path else load_tokenizer(model.discriminator, model.revision)
    check_pair(*configs, tokenizer_vocab_size=len(tokenizer), max_length=config.data.max_length)
    for option, source in sources.items():
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


def networks(config: Config, tokenizer: PreTrainedTokenizerBase, log: Callable[[str], None]) -> Pair:
    """A fresh pair of model.size, or the given pair; checked against each other, the tokenizer and data.max_length.

    Raises:
        UserError: they do not fit together, or cannot be loaded.
    """
    model, max_length = config.model, config.data.max_length
    if not config.from_pair:
        return build_pair(
            model.size,
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            max_length=max_length,
            generator_width=model.generator_width,
            dropout=model.dropout,
            seed=config.run.seed,
        )
    pair, report = load_networks(
        model.generator,
        model.discriminator,
        sharing=model.sharing,
        revision=model.revision,
        tokenizer_vocab_size=len(tokenizer),
        max_length=max_length,
        dropout=model.dropout,
        seed=config.run.seed,
    )
    for line in report + share_loaded(pair, model.sharing):
        log(line)
    return pair


def steps_per_pass(loader: StepLoader, prepared: Prepared) -> float:
    """Optimizer steps of one pass over the training text: a close estimate, the same on every process."""
    plan = loader.plan
    histogram = np.array(prepared.manifest["splits"]["train"]["lengths"])
    bins = steps_in_passes(histogram, lambda lengths: plan.slots(None, lengths), plan.limits, bins_per_step=1, passes=1)
    return bins / plan.bins_per_step


def total_steps(config: Config, loader: StepLoader, prepared: Prepared) -> tuple[int, float]:
    """Optimizer steps of the run, and of one pass over the training text."""
    one_pass = steps_per_pass(loader, prepared)
    return config.train.steps or max(1, math.ceil(config.train.epochs * one_pass)), one_pass


def joint_module(config: Config, pair: Pair) -> ReplacedTokenDetection:
    """The two networks as one module."""
    return ReplacedTokenDetection(
        *pair,
        temperature=config.objective.temperature,
        gradient_checkpointing=config.model.gradient_checkpointing,
    )


def data_identity(loader: StepLoader, prepared: Prepared) -> str:
    """What a resumed run must find again: the content of the prepared data, and the limits that bins are packed under."""
    limits = loader.plan.limits
    return (
        f"{prepared.fingerprint[:16]}, bins of {limits.tokens} tokens, {limits.slots} slots, {limits.segments} examples"
    )


def window(config: Config, engine: Engine, loader: StepLoader, pair: Pair, prepared: Prepared) -> Window:
    """What collects the figures between two log lines."""
    flops = training_flops(pair.generator.config, pair.discriminator.config, context_length(prepared))
    return Window(engine, config.objective, loader.layout.slots(config.train.bin_tokens), flops)


def context_length(prepared: Prepared) -> float:
    """Length of the example that a token stands in, averaged over the tokens of the training text."""
    histogram = np.array(prepared.manifest["splits"]["train"]["lengths"], float)
    lengths = np.arange(len(histogram))
    return float((histogram * lengths**2).sum() / (histogram * lengths).sum())
