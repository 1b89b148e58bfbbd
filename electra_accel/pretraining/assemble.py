"""From the configuration to the parts that ``train`` needs. data/ and model/ take plain arguments; here they get them."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from transformers import ElectraConfig, PreTrainedTokenizerFast

from electra_accel.data.collate import Collator
from electra_accel.data.loader import StepLoader
from electra_accel.data.manifest import unknown_tokens
from electra_accel.data.masking import MASK_UNITS, Masking, slots_of_length
from electra_accel.data.packing import choose_limits
from electra_accel.data.plan import Layout, Plan, steps_in_passes
from electra_accel.data.prepare import Prepared, prepare
from electra_accel.data.replay import Replay
from electra_accel.data.store import MixedStore
from electra_accel.engines.muon import ROUNDS
from electra_accel.errors import UserError
from electra_accel.model.flops import Flops, training_flops
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.networks import given_tokenizer, require_fitting_corrector, shapes
from electra_accel.text.corpus import Corpus
from electra_accel.text.tokenizer import fingerprint
from electra_accel.text.unknown import told
from electra_accel.text.vocabulary import read_tokens

PREPARED = Path("prepared")  # where texts are tokenised to, once per content and settings
MICRO_BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}


def prepared_data(config: Config, log: Callable[[str], None]) -> Prepared:
    """The tokenised text: opened where it is given or known, else made now (by one process; the others wait).

    Raises:
        UserError: text, tokenizer or a given pair's configuration cannot be used.
    """
    data, tokenizer = config.data, given_tokenizer(config, log)
    if config.model.corrector:
        require_fitting_corrector(config)
    if data.prepared:
        prepared = Prepared(Path(data.prepared))
        # Its own tokenizer where that is the given networks' with tokens added.
        if tokenizer is not None and (prepared.manifest.get("vocabulary") or {}).get("base") != fingerprint(tokenizer):
            prepared = Prepared(prepared.folder, tokenizer)
        for line in told(unknown_tokens(prepared.manifest)):
            log(line)
    else:
        files = {"held_out": data.eval_files, "general": data.eval_general_files, "replay": data.replay_files}
        others = {
            name: Corpus(files=tuple(given), text_column=data.text_column) for name, given in files.items() if given
        }
        added = config.tokenizer.add_tokens
        folder = prepare(
            PREPARED,
            Corpus(files=tuple(data.train_files or ()), dataset=data.dataset, text_column=data.text_column),
            {name: corpus for name, corpus in others.items() if name != "replay"},
            replay=others.get("replay"),
            tokenizer=tokenizer,
            train_vocab_size=config.tokenizer.train_vocab_size,
            add_tokens=tuple(read_tokens(added)) if added else (),
            learn_tokens=config.tokenizer.learn_tokens,
            max_length=data.max_length,
            eval_fraction=data.eval_fraction,
            join_lines=data.join_lines,
            processes=None,
            log=log,
        )
        prepared = Prepared(folder)
    made_with = prepared.manifest["settings"]["max_length"]
    if made_with != data.max_length:
        raise UserError(
            f"data.prepared {prepared.folder} was made with max_length {made_with}: set data.max_length to it"
        )
    if not len(prepared.train):
        raise UserError("no text is left to train on: lower data.eval_fraction")
    if not len(prepared.held_out.get("held_out", ())):
        raise UserError("no text is held out to judge the model by: raise data.eval_fraction, or give data.eval_files")
    return prepared


def step_loader(
    config: Config, prepared: Prepared, *, held_out: bool, world_size: int, rank: int, device: str, split: str = "train"
) -> StepLoader:
    """Plan, layout and collation of one split on one process. Only the layout depends on world_size, rank and device.

    Args:
        held_out: one pass over a split to judge by, keyed by ``eval.seed``, with ``eval.mask_prob`` and the published 85/15;
            else the training text.
        device: "cpu" or "cuda".
        split: "train" also for a corpus that is there to judge by alone.
    """
    store = prepared.train if split == "train" else prepared.held_out[split]
    examples, lengths = len(store), _lengths(prepared, split)
    objective, train, tokenizer, replay = config.objective, config.train, prepared.tokenizer, None
    if prepared.replay is not None and not held_out:
        replayed = _lengths(prepared, "replay")
        replay = Replay.of_fraction(config.data.replay_fraction, lengths, replayed)
        store, lengths = MixedStore(store, prepared.replay), replay.lengths_in_a_pass(lengths, replayed)
    seed = config.eval.seed if held_out else config.run.seed
    mask_prob = config.eval.mask_prob if held_out else objective.mask_prob
    bins_per_step = train.batch_tokens // train.bin_tokens
    limits = choose_limits(lengths, train.bin_tokens, lambda lengths: slots_of_length(lengths, mask_prob))
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
    never_selected = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id)
    masking = Masking(
        mask_prob=mask_prob,
        mask_token_prob=0.85 if held_out else objective.mask_token_prob,
        random_token_prob=0.0 if held_out else objective.random_token_prob,
        vocab_size=len(tokenizer),
        mask_id=tokenizer.mask_token_id,
        never_selected=never_selected,
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


class OnePass:
    """A pass over the training text, with what is replayed in it.

    Attributes:
        steps: optimizer steps: a close estimate, the same on every process.
        tokens, selected: how many there are.
        context: how many tokens a token sees: the length of the example that it stands in, averaged over tokens.
    """

    def __init__(self, config: Config, loader: StepLoader, prepared: Prepared):
        plan, histogram = loader.plan, _lengths(prepared, "train")
        rounds = ROUNDS if config.optim.kind == "muon" else 0
        self._counted = dict(corrective=config.is_corrective, newton_schulz=rounds)
        if plan.replay:
            histogram = plan.replay.lengths_in_a_pass(histogram, _lengths(prepared, "replay"))
        lengths = np.arange(len(histogram))
        slots = plan.slots(None, lengths)
        bins = steps_in_passes(
            histogram, lambda lengths: plan.slots(None, lengths), plan.limits, bins_per_step=1, passes=1
        )
        self.steps = bins / plan.bins_per_step
        self.tokens, self.selected = float(histogram @ lengths), float(histogram @ slots)
        self.context = float(config.train.bin_tokens)
        if config.train.attention_boundaries:
            self.context = float(histogram @ lengths**2) / self.tokens

    def costs(self, generator: ElectraConfig, discriminator: ElectraConfig | None) -> Flops:
        """See ``flops.training_flops``."""
        return training_flops(generator, discriminator, self.context, **self._counted)

    def flops_per_step(self, costs: Flops) -> float:
        """Expected floating point operations of a global step."""
        return costs.of_model(self.tokens, self.selected) / self.steps + costs.step


def total_steps(config: Config, one_pass: OnePass, tokenizer: PreTrainedTokenizerFast) -> int:
    """Optimizer steps of the run."""
    train = config.train
    if train.flops:
        costs = one_pass.costs(*shapes(config, tokenizer))
        return max(1, int(train.flops / one_pass.flops_per_step(costs)))
    return train.steps or max(1, math.ceil(train.epochs * one_pass.steps))
