"""The whole configuration of a run: one dataclass per group of options, the defaults, and what excludes each other.

An option's name on the command line and in YAML is ``group.option``; its help and the interval in which it makes sense
stand beside it. A default of None is filled in by :func:`resolve`, or later by what its help names (device, environment).
Nothing here imports torch, so that ``--help`` and mistakes are answered at once.
"""

import copy
from dataclasses import dataclass, field
from typing import Literal

from electra_accel.data.masking import MASK_UNITS
from electra_accel.data.store import MAX_EXAMPLE_TOKENS
from electra_accel.model.figures import METRICS
from electra_accel.model.sizes import FROM_PAIR, SIZES, Settings
from electra_accel.options import groups
from electra_accel.options.declare import COUNT, NOT_NEGATIVE, POSITIVE, Alternative, option
from electra_accel.text.readers import READERS

EXAMPLE = f"[8, {MAX_EXAMPLE_TOKENS}]"  # tokens
# With muon, what is adamw's learns by MUON_FACTOR times the rate of adamw alone, matrices by MATRIX_FACTOR times that.
MUON_FACTOR, MATRIX_FACTOR = 2.0, 2.0  # docs/first-run.md has what was tried
WARM_START = "warm-start"  # model.generator where none was released


def _by_size(name: str) -> str:
    """The recommended value of each size, for the help."""
    return ", ".join(f"{size} {getattr(shape.settings, name)}" for size, shape in SIZES.items())


def _by_start(name: str) -> str:
    """As :func:`_by_size`, and from a pair."""
    return f"{_by_size(name)}, from a pair {getattr(FROM_PAIR, name)}"


@dataclass
class Data:
    """the text; exactly one of train_files, dataset and prepared"""

    train_files: list[str] | None = option(
        None, f"{', '.join(suffix[1:] for suffix in READERS)}, each also as .gz or .xz; globs in quotes", "FILE"
    )
    eval_files: list[str] | None = option(None, "held-out text; default: eval_fraction of the training text", "FILE")
    dataset: str | None = option(None, "python_docs (built in), or a hub id NAME[:CONFIG[:SPLIT]]", "NAME")
    prepared: str | None = option(None, "folder made by scripts/prepare_data.py; brings its tokenizer", "FOLDER")
    eval_general_files: list[str] | None = option(
        None, "general text to evaluate too, to see what is forgotten", "FILE"
    )
    replay_files: list[str] | None = option(None, "general text mixed in, so that less is forgotten", "FILE")
    replay_fraction: float = option(0.1, "share of a pass's tokens that comes from replay_files", within="(0, 1)")
    text_column: str = option("text", "column that holds the text (not for txt)", "NAME")
    max_length: int = option(128, "tokens of an example with [CLS] and [SEP]; longer text is split", within=EXAMPLE)
    eval_fraction: float = option(0.01, "share of the documents held out if eval_files is not given", within="[0, 1)")
    join_lines: bool = option(False, "join consecutive short lines of a document into one example")
    num_workers: int | None = option(
        None, "data-loading workers of each process; default: 0 on a CPU, else 2", within=NOT_NEGATIVE
    )


@dataclass
class Tokenizer:
    """the vocabulary; from scratch path or train_vocab_size, from a pair its own"""

    path: str | None = option(None, "folder, hub id or vocab.txt", "PATH")
    train_vocab_size: int | None = option(None, "train a WordPiece vocabulary of so many tokens", within="[100, inf)")
    add_tokens: str | None = option(None, "add the tokens in this file, one a line, to a pair's vocabulary", "FILE")
    learn_tokens: int | None = option(None, "add N tokens to a pair's vocabulary: the most useful ones", within=COUNT)


@dataclass
class Model:
    """the networks; a size to start from scratch, or a pair to continue from"""

    size: Literal[*SIZES] | None = option(None, "train from scratch at this size")
    generator: str | None = option(
        None, "folder or hub id; or warm-start: trains a new generator first, where none was released", "PATH"
    )
    discriminator: str | None = option(None, "folder or hub id", "PATH")
    corrector: str | None = option(None, "whose corrective head the discriminator gets; default: a new one", "PATH")
    revision: str | None = option(None, "branch, tag or commit of the hub ids; default: main", "NAME")
    sharing: Literal["tied", "none", "gdes"] | None = option(
        None,
        f"token tables: one; one each; one, and a difference for the discriminator; default: {_by_start('sharing')}",
    )
    warm_start_steps: int = option(2000, "steps that a new generator is trained for first, by kind mlm", within=COUNT)
    generator_width: float | None = option(
        None,
        f"generator width as a share of the discriminator's; default: as published, tiny {SIZES['tiny'].generator_width}",
        within="(0, 1]",
    )
    dropout: float = option(0.1, "in both networks; attention dropout is 0 in training", within="[0, 1)")
    gradient_checkpointing: bool = option(False, "recompute activations in the backward pass: less memory, slower")


@dataclass
class Objective:
    """what is learnt"""

    kind: Literal["rtd", "mlm"] = option(
        "rtd", "replaced token detection; or masked language modelling with one network, the baseline"
    )
    mask_prob: float | None = option(
        None, f"share of tokens selected; default: {_by_size('mask_prob')}", within="(0, 1]"
    )
    mask_unit: Literal[*MASK_UNITS] = option("token", "what is selected together: single tokens, or whole words")
    mask_token_prob: float = option(0.85, "share of the selected tokens that become [MASK]", within="[0, 1]")
    random_token_prob: float = option(
        0.0, "share of them that become a random token; the rest is kept", within="[0, 1]"
    )
    generator_weight: float = option(1.0, "weight of the generator loss", within=NOT_NEGATIVE)
    discriminator_weight: float | None = option(
        None, f"weight of the discriminator loss; default: {_by_start('discriminator_weight')}", within=NOT_NEGATIVE
    )
    corrective_weight: float | None = option(
        None,
        "weight of the corrective loss: the discriminator also names the original of every selected token; 0: it does not; "
        f"default: {_by_start('corrective_weight')}",
        within=NOT_NEGATIVE,
    )
    temperature: float = option(1.0, "temperature of the softmax that replacements are drawn from", within=POSITIVE)


@dataclass
class Optim(groups.Optim):
    """the optimizer and its learning rates"""

    kind: Literal["adamw", "muon"] | None = option(
        None,
        f"muon: for matrices between hidden states; adamw for the rest, or for all; default: {_by_start('optimizer')}",
    )
    learning_rate: float | None = option(
        None,
        f"peak of adamw; default: alone {_by_start('learning_rate')}, beside muon {MUON_FACTOR:g} times that; a file's "
        "rates give way to the default where a later file or the command line names another size or kind",
        within=POSITIVE,
    )
    matrix_learning_rate: float | None = option(
        None, f"peak of muon; default: {MATRIX_FACTOR:g} times optim.learning_rate", within=POSITIVE
    )
    generator_factor: float = option(1.0, "multiplies the rates of what only the generator has", within=POSITIVE)
    betas: list[float] = option([0.9, 0.999], "decay of adamw's two moment estimates", within="[0, 1)")
    eps: float = option(1e-6, "added to adamw's denominator", within=POSITIVE)
    warmup_steps: int | None = option(
        None,
        f"linear warmup; default: {_by_size('warmup_steps')}, at most a tenth of the steps; from a pair 6% of them",
        within=NOT_NEGATIVE,
    )
    schedule: Literal["linear", "cosine", "constant"] = option("linear", "linear and cosine go down towards 0")
    max_grad_norm: float = option(1.0, "the gradient of a step is clipped to this norm", within=POSITIVE)


@dataclass
class Train:
    """how long, and how much at once"""

    steps: int | None = option(None, "optimizer steps; exactly one of steps, epochs and flops", within=COUNT)
    epochs: float | None = option(None, "passes over the training text; default from a pair: 3", within=POSITIVE)
    flops: float | None = option(
        None, "as many steps as fit into so many floating point operations, as train/flops counts", within=POSITIVE
    )
    batch_tokens: int | None = option(
        None,
        "token slots of a step, all processes together; default: the published batch of the size, from a pair 8192",
        within=COUNT,
    )
    micro_batch_tokens: int | None = option(
        None,
        "largest micro-batch of a process, in token slots: affects memory only; default: 4096 on a CPU, 32768 on a GPU",
        within=COUNT,
    )
    bin_tokens: int | None = option(None, "slots of a row of whole examples; default: data.max_length", within=COUNT)
    attention_boundaries: bool = option(
        True, "true: a token sees its own example only; false: the whole row, for experiments"
    )
    precision: Literal["auto", "no", "bf16", "fp16"] = option(
        "auto", "no is fp32; auto is bf16 where the GPU supports it, else no"
    )
    max_skipped_steps: int = option(
        3, "a step whose loss or gradient is not finite changes nothing; stop after so many in a row", within=COUNT
    )
    compile: Literal["off", "layers", "model"] = option("off", "torch.compile each layer, or the model as one")
    cuda_graphs: Literal["auto", "off"] = option(
        "off", "auto: on GPUs, without sharding, the kernels of a micro-step are recorded and sent at once"
    )


@dataclass
class Eval:
    """held-out figures, always on the same corruption"""

    every: int = option(500, "steps between evaluations", within=COUNT)
    batches: int = option(8, "held-out batches of train.batch_tokens slots to evaluate", within=COUNT)
    metric: Literal[*METRICS] | None = option(
        None, "chooses the best step where patience is set; default: discriminator_loss, objective mlm generator_loss"
    )
    patience: int = option(0, "stop after so many evaluations without a better metric; 0: never", within=NOT_NEGATIVE)
    mask_prob: float = option(0.15, "share of tokens selected, whatever objective.mask_prob is", within="(0, 1]")
    seed: int = option(1, "fixes which tokens are selected and replaced")


@dataclass
class Checkpoint:
    """saved states to resume from"""

    every: int = option(1000, "steps between checkpoints", within=COUNT)
    minutes: float = option(30.0, "and whenever so many minutes have passed; 0: off", within=NOT_NEGATIVE)
    keep: int = option(2, "newest checkpoints that stay on disk", within=COUNT)
    keep_every: int = option(0, "one of every so many steps stays besides; 0: none", within=NOT_NEGATIVE)


@dataclass
class Config:
    """All groups, in the order of ``--help`` and config.yaml."""

    run: groups.Run = field(default_factory=groups.Run)
    data: Data = field(default_factory=Data)
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    model: Model = field(default_factory=Model)
    objective: Objective = field(default_factory=Objective)
    optim: Optim = field(default_factory=Optim)
    train: Train = field(default_factory=Train)
    eval: Eval = field(default_factory=Eval)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    tracking: groups.Tracking = field(default_factory=groups.Tracking)

    @property
    def from_pair(self) -> bool:
        """Whether training continues from given networks instead of starting at a size."""
        return self.model.discriminator is not None

    @property
    def warm_starts(self) -> bool:
        """Whether the generator of the given discriminator is trained here first."""
        return self.model.generator == WARM_START

    @property
    def is_mlm(self) -> bool:
        """Whether one network learns masked language modelling: the baseline, or a generator's warm start."""
        return self.objective.kind == "mlm"

    @property
    def is_corrective(self) -> bool:
        """Whether the discriminator also learns to name the original tokens."""
        return bool(self.objective.corrective_weight) and not self.is_mlm

    @property
    def is_warm_start(self) -> bool:
        """Whether this is the run that a warm start is (see pretraining/warm_start.py), not the one that it is for."""
        return self.is_mlm and self.warm_starts


_GIVEN_PAIR = ("model.generator", "model.discriminator")
_BESIDE_A_PAIR = ("model.corrector", "model.revision", "model.warm_start_steps")
_VOCABULARY = ("tokenizer.path", "tokenizer.train_vocab_size")
_ADDED = ("tokenizer.add_tokens", "tokenizer.learn_tokens")
_RATES = ("optim.learning_rate", "optim.matrix_learning_rate", "optim.generator_factor")
# Good from scratch is too much for a pair, and the other way round.
_OF_A_START = (*_RATES, "optim.warmup_steps", "train.batch_tokens", "objective.mask_prob")
SETTLED_BY_PREPARED = (*_VOCABULARY, *_ADDED, "data.eval_files", "data.eval_general_files", "data.replay_files")
CHOICES = (
    tuple(Alternative((name,)) for name in ("train.steps", "train.epochs", "train.flops")),
    (
        Alternative(("data.train_files",)),
        Alternative(("data.dataset",)),
        Alternative(("data.prepared",), settles=SETTLED_BY_PREPARED),
    ),
    (
        Alternative(("model.size",), own=("model.generator_width", *_VOCABULARY, *_OF_A_START), tuned=_RATES),
        Alternative(_GIVEN_PAIR, own=(*_BESIDE_A_PAIR, *_ADDED, *_OF_A_START)),
    ),
    tuple(Alternative((name,)) for name in _VOCABULARY),
    (Alternative(("optim.kind",), tuned=_RATES),),
)


WARMUP_FRACTION = 0.06  # of the steps, from a pair


def starting_rate(recommended: Settings, kind: str | None) -> float:
    """The default of optim.learning_rate; ``kind``: of the optimizer, None where it is the recommended one."""
    return recommended.learning_rate * (MUON_FACTOR if (kind or recommended.optimizer) == "muon" else 1)


def resolve(config: Config, steps: int | None = None) -> Config:
    """A copy in which the defaults that depend on the size, the pair or other options are filled in.

    Args:
        steps: optimizer steps of the run where they are known; a warmup that is a share of them stays None without.

    Impossible configurations pass through; :func:`check` names what is wrong with them.
    """
    config = copy.deepcopy(config)
    model, objective, optim, train = config.model, config.objective, config.optim, config.train
    recommended = FROM_PAIR if config.from_pair else SIZES[model.size or "tiny"].settings
    of_one_network = dict(sharing="tied", corrective_weight=0.0) if config.is_mlm else {}
    for group in (model, objective):
        for name in ("sharing", "mask_prob", "discriminator_weight", "corrective_weight"):
            if getattr(group, name, name) is None:
                setattr(group, name, of_one_network.get(name, getattr(recommended, name)))
    if model.generator_width is None and model.size and not config.is_mlm:
        model.generator_width = SIZES[model.size].generator_width
    if optim.kind is None:
        optim.kind = recommended.optimizer
    if optim.learning_rate is None:
        optim.learning_rate = starting_rate(recommended, optim.kind)
    if optim.kind == "muon" and optim.matrix_learning_rate is None:
        optim.matrix_learning_rate = MATRIX_FACTOR * optim.learning_rate
    if config.eval.metric is None:
        config.eval.metric = "generator_loss" if config.is_mlm else "discriminator_loss"
    if train.bin_tokens is None:
        train.bin_tokens = config.data.max_length
    if train.batch_tokens is None:
        train.batch_tokens = max(1, recommended.batch_tokens // max(1, train.bin_tokens)) * train.bin_tokens
    if train.steps is None and train.epochs is None and train.flops is None:
        train.epochs = recommended.epochs
    if optim.warmup_steps is None and (steps := steps or train.steps) and steps > 0:
        published = recommended.warmup_steps
        optim.warmup_steps = round(WARMUP_FRACTION * steps) if published is None else min(published, steps // 10)
    return config
