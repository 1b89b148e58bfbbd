"""What is impossible in a configuration, all of it in one go, and what makes two configurations two different runs."""

import os
from collections.abc import Iterator
from typing import Any

from electra_accel.errors import UserError
from electra_accel.model.figures import FIGURES
from electra_accel.options.declare import flatten, is_given, outside_intervals, value_of
from electra_accel.options.groups import deadline_problems
from electra_accel.pretraining.config import SETTLED_BY_PREPARED, WARM_START, Config, Data, Model

# What may change when a run is resumed: where and how it runs, what is recorded, how long it goes on.
FREE_GROUPS = ("checkpoint", "tracking")
FREE_OPTIONS = (
    "run.dir", "run.resume", "run.deadline", "data.num_workers", "model.gradient_checkpointing", "train.steps", "train.epochs",
    "train.flops", "train.micro_batch_tokens", "train.precision", "train.compile", "train.cuda_graphs",
    "train.max_skipped_steps", "eval.every",
)  # fmt: skip
# Options that say where something is read from. Not the place but the content makes a run what it is: pretraining/opening.py.
READ_BY_CONTENT = {
    "data.train_files": "train", "data.dataset": "train", "data.prepared": "train", "data.eval_files": "held_out",
    "data.eval_general_files": "general", "data.replay_files": "replay", "tokenizer.path": "tokenizer",
    "tokenizer.add_tokens": "tokenizer", "model.generator": "generator", "model.discriminator": "discriminator",
    "model.corrector": "corrector", "model.revision": "discriminator",
}  # fmt: skip
# A recipe may have the option, so it cannot always be left out.
_NEEDS_TWO = "is for two networks, objective.kind mlm trains one; leave it out, or set it to"
_WARM_START_SPELLINGS = (WARM_START, "warm_start", "warmstart")
FEW_SELECTED = 2000  # tokens that the generator is asked for; with fewer, an accuracy of .5 is known to ±.02 at best


def check(config: Config) -> list[str]:
    """Find everything that is impossible in a resolved configuration, before any work is done.

    Returns:
        Warnings: what is valid but probably a mistake.

    Raises:
        UserError: one line with all problems.
    """
    problems = [*_networks(config), *_text(config), *outside_intervals(config), *_batch(config)]
    problems += [*deadline_problems(config.run), *_learning(config), *_kept(config)]
    if problems:
        raise UserError("; ".join(problems))
    return check_warmup(config, config.train.steps) if config.train.steps else []


def check_warmup(config: Config, steps: int) -> list[str]:
    """As :func:`check`, for the optimizer steps of a run, which may be known only once its text is."""
    warmup = config.optim.warmup_steps or 0
    if warmup > steps:
        raise UserError(f"optim.warmup_steps {warmup} is more than the {steps} steps of the run; try {steps // 10}")
    return [f"optim.warmup_steps {warmup} is more than half of the {steps} steps of the run"] * (warmup > steps / 2)


def small_held_out(selected: int | None, has_files: bool) -> str | None:
    """What to say where the held-out text is too small to see what an adaptation changes: fewer than ``FEW_SELECTED`` tokens.
    ``has_files``: it was given as data.eval_files, not taken from the training text."""
    if selected is None or selected >= FEW_SELECTED:
        return None
    more = "give more of it (data.eval_files)" if has_files else "raise data.eval_fraction, or give data.eval_files"
    return (
        f"the held-out text is small: only {selected:,} tokens are judged by the generator; {more}, and raise eval.batches "
        "where that is the limit"
    )


def _networks(config: Config) -> Iterator[str]:
    model, metric, one_network = config.model, config.eval.metric, config.is_mlm
    pair = [f"model.{name}" for name in ("generator", "discriminator") if getattr(model, name) is not None]
    if not pair and model.size is None:
        yield "no model: give model.size, or model.generator and model.discriminator"
    if one_network and model.generator is not None:
        yield "objective.kind mlm trains one network: leave model.generator out"
    elif len(pair) == 1 and not (one_network and config.from_pair):
        yield f"{pair[0]} is given without the other network: give model.generator and model.discriminator"
    if model.generator in _WARM_START_SPELLINGS and not config.warm_starts:
        yield f"model.generator {model.generator}: did you mean {WARM_START}?"
    if model.discriminator in _WARM_START_SPELLINGS:
        yield f"{WARM_START} is for model.generator; model.discriminator names the network that it is for"
    if model.warm_start_steps != Model().warm_start_steps and not config.warm_starts:
        yield f"model.warm_start_steps {model.warm_start_steps} needs model.generator {WARM_START}"
    if model.generator_width is not None and (one_network or (pair and not config.warm_starts)):
        yield "model.generator_width is for a new generator, and there is none here; leave it out, or set it to null"
    if model.gradient_checkpointing and config.train.cuda_graphs == "auto":
        yield "train.cuda_graphs auto cannot record model.gradient_checkpointing; turn one of them off"
    if model.corrector is not None and not (config.is_corrective and config.from_pair):
        needs = "needs a given discriminator and objective.corrective_weight above 0"
        yield f"model.corrector {needs}; leave it out, or set it to null"
    if not pair and model.revision is not None:
        yield "model.revision is for networks from the hub; leave it out"
    if config.is_mlm and model.sharing != "tied":
        yield f"model.sharing {model.sharing} {_NEEDS_TWO} tied"
    weight = config.objective.corrective_weight
    if config.is_mlm and weight:
        yield f"objective.corrective_weight {weight:g} {_NEEDS_TWO} 0"
    if config.is_mlm and metric != "generator_loss":
        yield f"eval.metric {metric} needs a discriminator; objective.kind mlm has generator_loss"
    elif FIGURES[metric].optional and not config.is_corrective:
        yield f"eval.metric {metric} needs objective.corrective_weight above 0"


def _text(config: Config) -> Iterator[str]:
    data, tokenizer = config.data, config.tokenizer
    if not (data.train_files or data.dataset or data.prepared):
        yield "no text: give one of data.train_files, data.dataset and data.prepared"
    has_network = config.from_pair or config.model.generator is not None
    added = [name for name in ("add_tokens", "learn_tokens") if getattr(tokenizer, name) is not None]
    if added and not has_network:
        yield f"tokenizer.{added[0]} is for the vocabulary of given networks; from scratch, train one that fits"
    if data.prepared:
        settled = (name for name in SETTLED_BY_PREPARED if is_given(value_of(config, name)))
        yield from (f"{name} is settled by data.prepared; leave it out" for name in settled)
    elif has_network and tokenizer.train_vocab_size is not None:
        yield "tokenizer.train_vocab_size: a pair needs the vocabulary that it was trained with; leave it out"
    elif not has_network and tokenizer.path is None and tokenizer.train_vocab_size is None:
        yield "give one of tokenizer.path and tokenizer.train_vocab_size"
    if not data.prepared and not data.eval_files and data.eval_fraction == 0:
        yield "no held-out text: give data.eval_files, or data.eval_fraction above 0"
    if data.replay_fraction != Data().replay_fraction and not (data.prepared or data.replay_files):
        yield f"data.replay_fraction {data.replay_fraction} needs data.replay_files"
    trained_on = set(map(os.path.realpath, data.train_files or ()))
    for name in ("eval_files", "eval_general_files", "replay_files"):
        if twice := [path for path in getattr(data, name) or () if os.path.realpath(path) in trained_on]:
            yield f"{twice[0]} is given twice, in data.train_files and data.{name}; leave it out of one"


def _batch(config: Config) -> Iterator[str]:
    max_length, train = config.data.max_length, config.train
    bin_tokens, batch_tokens = train.bin_tokens, train.batch_tokens
    if bin_tokens < max_length:
        yield f"train.bin_tokens {bin_tokens} is less than data.max_length {max_length}"
    if bin_tokens > 0 and batch_tokens % bin_tokens:
        below = batch_tokens // bin_tokens * bin_tokens
        nearest = " or ".join(str(n) for n in (below, below + bin_tokens) if n > 0)
        yield f"train.batch_tokens {batch_tokens} is not a multiple of train.bin_tokens {bin_tokens}: {nearest}"
    if train.micro_batch_tokens is not None and train.micro_batch_tokens < bin_tokens:
        yield f"train.micro_batch_tokens {train.micro_batch_tokens} does not hold a bin of {bin_tokens}"


def _kept(config: Config) -> Iterator[str]:
    every, keep_every = config.checkpoint.every, config.checkpoint.keep_every
    if every > 0 and keep_every % every:
        yield f"checkpoint.keep_every {keep_every} is not a multiple of checkpoint.every {every}"


def _learning(config: Config) -> Iterator[str]:
    objective, optim, train = config.objective, config.optim, config.train
    weight = objective.corrective_weight
    if len(optim.betas) != 2:
        yield f"optim.betas must be two numbers, not {optim.betas}"
    if optim.kind != "muon" and optim.matrix_learning_rate is not None:
        yield f"optim.matrix_learning_rate is for optim.kind muon, not {optim.kind}; leave it out, or set it to null"
    if config.is_mlm and optim.generator_factor != 1:
        yield f"optim.generator_factor {optim.generator_factor:g} {_NEEDS_TWO} 1"
    if objective.mask_token_prob + objective.random_token_prob > 1:
        yield "objective.mask_token_prob + objective.random_token_prob is more than 1"
    of_discriminator = 0 if config.is_mlm else objective.discriminator_weight + weight
    if objective.generator_weight == 0 == of_discriminator:
        all_three = "objective.generator_weight, discriminator_weight and corrective_weight are all"
        yield f"{'objective.generator_weight is' if config.is_mlm else all_three} 0: nothing would be learnt"
    given = config.from_pair or config.model.generator is not None  # a pair has a default; half of one is complained of
    if train.steps is None and train.epochs is None and train.flops is None and not given:
        yield "give one of train.steps, train.epochs and train.flops"
    if train.flops and config.warm_starts:
        yield "train.flops does not count a generator's warm start: give train.steps or train.epochs"


def identity(config: Config) -> dict[str, Any]:
    """The options that change a run's numbers, as ``{"group.option": value}``."""
    of_run = {name: value for name, value in flatten(config).items() if name not in FREE_OPTIONS}
    return {name: value for name, value in of_run.items() if name.split(".")[0] not in FREE_GROUPS}


def difference(old: Config, new: Config) -> list[str]:
    """``["group.option: old -> new", …]`` for the options that make ``new`` another run than ``old``, both resolved.

    Left out are those of READ_BY_CONTENT (see :func:`moved`). A warmup that is None in ``new`` was not asked for and follows
    from the steps: it agrees with any.
    """
    before, after = identity(old), identity(new)
    if after["optim.warmup_steps"] is None:
        after["optim.warmup_steps"] = before["optim.warmup_steps"]
    return [line for name, line in _changes(before, after) if name not in READ_BY_CONTENT]


def moved(old: Config, new: Config) -> list[str]:
    """``["group.option: old -> new", …]`` for what is read from another place; whether it is the same is for others to say."""
    return [line for name, line in _changes(flatten(old), flatten(new)) if name in READ_BY_CONTENT]


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, f"{name}: {before[name]} -> {after[name]}") for name in before if before[name] != after[name]]
