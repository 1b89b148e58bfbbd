"""From the configuration to the parts that ``train`` needs. data/ and model/ take plain arguments; here they get them."""

import datetime
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from electra_accel.data.collate import Collator
from electra_accel.data.loader import StepLoader
from electra_accel.data.manifest import unknown_tokens
from electra_accel.data.masking import MASK_UNITS, Masking, slots_of_length
from electra_accel.data.packing import choose_limits
from electra_accel.data.plan import Layout, Plan, steps_in_passes
from electra_accel.data.prepare import Prepared, prepare, short_name
from electra_accel.data.replay import Replay
from electra_accel.data.store import MixedStore
from electra_accel.engines.engine import Engine
from electra_accel.errors import UserError
from electra_accel.model.metrics import training_flops
from electra_accel.model.pair import Pair
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.networks import flops, given_tokenizer, shapes
from electra_accel.pretraining.window import Window
from electra_accel.text.corpus import Corpus
from electra_accel.text.tokenizer import fingerprint
from electra_accel.text.unknown import told
from electra_accel.text.vocabulary import read_tokens

PREPARED = Path("prepared")  # where texts are tokenised to, once per content and settings
MICRO_BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}


def default_folder(recipe: str) -> str:
    """runs/<recipe>-<UTC time>; -<job id> under Slurm, which keeps its name when the job is requeued; in a W&B sweep, whose
    trials may start in the same second, runs/sweep-<run id>."""
    if os.environ.get("WANDB_SWEEP_ID") and (trial := os.environ.get("WANDB_RUN_ID")):
        return f"runs/sweep-{trial}"
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    return f"runs/{short_name(recipe)}-{os.environ.get('SLURM_JOB_ID', now)}"


def prepared_data(config: Config, log: Callable[[str], None]) -> Prepared:
    """The tokenised text: opened where it is given or known, else made now (by one process; the others wait).

    Raises:
        UserError: text, tokenizer or a given pair's configuration cannot be used.
    """
    data = config.data
    tokenizer = given_tokenizer(config, log)
    if data.prepared:
        prepared = _opened(Path(data.prepared), tokenizer)
        for line in told(unknown_tokens(prepared.manifest)):
            log(line)
        return _require_usable(prepared, data.max_length)
    files = {"held_out": data.eval_files, "general": data.eval_general_files, "replay": data.replay_files}
    others = {name: Corpus(files=tuple(given), text_column=data.text_column) for name, given in files.items() if given}
    replay = others.pop("replay", None)
    folder = prepare(
        PREPARED,
        Corpus(files=tuple(data.train_files or ()), dataset=data.dataset, text_column=data.text_column),
        others,
        replay=replay,
        tokenizer=tokenizer,
        train_vocab_size=config.tokenizer.train_vocab_size,
        add_tokens=tuple(read_tokens(config.tokenizer.add_tokens)) if config.tokenizer.add_tokens else (),
        learn_tokens=config.tokenizer.learn_tokens,
        max_length=data.max_length,
        eval_fraction=data.eval_fraction,
        join_lines=data.join_lines,
        processes=None,
        log=log,
    )
    return _require_usable(Prepared(folder), data.max_length)


def _opened(folder: Path, tokenizer: PreTrainedTokenizerFast | None) -> Prepared:
    """With the tokenizer of the given networks, or with the one in the folder, where that is theirs with tokens added."""
    prepared = Prepared(folder)
    if tokenizer is None or (prepared.manifest.get("vocabulary") or {}).get("base") == fingerprint(tokenizer):
        return prepared
    return Prepared(folder, tokenizer)


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
    histogram, tokenizer = _lengths(prepared, split), prepared.tokenizer
    objective, train = config.objective, config.train
    replay = None if held_out else _replay_of(config, prepared)
    examples = len(store)
    if replay:
        store = MixedStore(store, prepared.replay)
        histogram = replay.lengths_in_a_pass(histogram, _lengths(prepared, "replay"))
    seed = config.eval.seed if held_out else config.run.seed
    mask_prob = config.eval.mask_prob if held_out else objective.mask_prob
    bins_per_step = train.batch_tokens // train.bin_tokens
    limits = choose_limits(histogram, train.bin_tokens, lambda lengths: slots_of_length(lengths, mask_prob))
    plan = Plan(
        examples=examples,
        lengths=store.lengths,
        slots=lambda examples, lengths: slots_of_length(lengths, mask_prob),
        limits=limits,
        bins_per_step=bins_per_step,
        seed=seed,
        corpus=store.corpus,
        passes=1 if held_out else None,
        replay=replay,
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
        rule=MASK_UNITS["token" if held_out else objective.mask_unit](tokenizer),
    )
    collator = Collator(store, masking, limits, layout.rows, seed, tokenizer.pad_token_id)
    workers = config.data.num_workers
    if workers is None:
        workers = 2 if device == "cuda" else 0
    return StepLoader(plan, layout, rank, collator, 0 if held_out else workers, pin_memory=device == "cuda")


def _lengths(prepared: Prepared, split: str) -> np.ndarray:
    """Number of examples of each length: int64 [data.max_length + 1]."""
    return np.array(prepared.manifest["splits"][split]["lengths"])


def _replay_of(config: Config, prepared: Prepared) -> Replay | None:
    if prepared.replay is None:
        return None
    return Replay.of_fraction(config.data.replay_fraction, _lengths(prepared, "train"), _lengths(prepared, "replay"))


def held_out_loaders(config: Config, prepared: Prepared, **place) -> dict[str, StepLoader]:
    """By split, the domain's first; arguments as of :func:`step_loader`."""
    return {
        split: step_loader(config, prepared, held_out=True, split=split, **place)
        for split in ("held_out", "general")
        if split in prepared.held_out
    }


def pass_lengths(loader: StepLoader, prepared: Prepared) -> np.ndarray:
    """How many examples of each length a pass over the training text holds, with those of replay."""
    histogram, replay = _lengths(prepared, "train"), loader.plan.replay
    return replay.lengths_in_a_pass(histogram, _lengths(prepared, "replay")) if replay else histogram


def steps_per_pass(loader: StepLoader, prepared: Prepared) -> float:
    """Optimizer steps of one pass over the training text: a close estimate, the same on every process."""
    plan, histogram = loader.plan, pass_lengths(loader, prepared)
    bins = steps_in_passes(histogram, lambda lengths: plan.slots(None, lengths), plan.limits, bins_per_step=1, passes=1)
    return bins / plan.bins_per_step


def total_steps(config: Config, loader: StepLoader, prepared: Prepared) -> tuple[int, float]:
    """Optimizer steps of the run, and of one pass over the training text."""
    train, one_pass = config.train, steps_per_pass(loader, prepared)
    if train.flops:
        context = context_length(config, loader, prepared)
        costs = training_flops(*shapes(config, prepared.tokenizer), context)
        return max(1, int(train.flops / flops_per_step(loader, prepared, costs))), one_pass
    return train.steps or max(1, math.ceil(train.epochs * one_pass)), one_pass


def flops_per_step(loader: StepLoader, prepared: Prepared, costs: tuple[float, float]) -> float:
    """Expected floating point operations of a global step.

    Args:
        costs: forward and backward, per real token and per selected position; see ``metrics.training_flops``.
    """
    histogram = pass_lengths(loader, prepared)
    lengths = np.arange(len(histogram))
    in_a_pass = float(histogram @ lengths) * costs[0] + float(histogram @ loader.plan.slots(None, lengths)) * costs[1]
    return in_a_pass / steps_per_pass(loader, prepared)


def data_identity(loader: StepLoader, prepared: Prepared) -> str:
    """What a resumed run must find again: the content of the prepared data, and the limits that bins are packed under."""
    limits = loader.plan.limits
    return (
        f"{prepared.fingerprint[:16]}, bins of {limits.tokens} tokens, {limits.slots} slots, {limits.segments} examples"
    )


def window(config: Config, engine: Engine, loader: StepLoader, pair: Pair, prepared: Prepared) -> Window:
    """What collects the figures between two log lines."""
    slots = loader.layout.slots(config.train.bin_tokens)
    return Window(engine, config.objective, slots, flops(pair, context_length(config, loader, prepared)))


def context_length(config: Config, loader: StepLoader, prepared: Prepared) -> float:
    """How many tokens a token sees: the length of the example that it stands in, averaged over the tokens of a pass."""
    if not config.train.attention_boundaries:
        return config.train.bin_tokens
    histogram = pass_lengths(loader, prepared).astype(float)
    lengths = np.arange(len(histogram))
    return float((histogram * lengths**2).sum() / (histogram * lengths).sum())
