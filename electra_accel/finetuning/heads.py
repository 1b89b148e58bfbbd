"""A pre-trained encoder, under a new head of stock transformers."""

import copy
import re
import shlex
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import transformers
from transformers import AutoModel, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from electra_accel.errors import UserError
from electra_accel.finetuning.config import place_of
from electra_accel.finetuning.kinds.registry import KINDS
from electra_accel.finetuning.tasks import TaskData
from electra_accel.model import reading
from electra_accel.model.fingerprint import UNTRAINED, network_fingerprint
from electra_accel.names import short_name
from electra_accel.randomness import Purpose, torch_seed
from electra_accel.runs import run_folder
from electra_accel.text.tokenizer import load_tokenizer
from electra_accel.text.writing import normalise_name

_PARTS = ("discriminator", "encoder", "generator", "corrector")  # folders of a run; the run's name says more


@dataclass(frozen=True, eq=False)
class Encoder:
    """What is fine-tuned.

    Attributes:
        name: in tables and folders.
        source: folder or hub id.
        untrained: take its shape and tokenizer only.
        fingerprint: of configuration, weights and tokenizer.
        notes: on its tokenizer, for a person.
    """

    name: str
    source: str
    untrained: bool
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerFast
    fingerprint: str
    notes: tuple[str, ...] = ()


def names(given: list[str]) -> list[str]:
    """A short name for each model: the last part of its path that says something, and more of it where another has that.

    The models before it decide, so that one that is added behind them renames none.
    """
    found: list[str] = []
    folders: list[tuple[str, list[str]]] = []
    for number, model in enumerate(given, start=1):
        path = [re.sub(r"[^\w.+-]", "-", normalise_name(part)) for part in Path(place_of(model)).parts]
        path = [part for part in path if part not in ("-", ".", "..")] or ["model"]
        folder, kind = (path[:-1], path[-1:]) if len(path) > 1 and path[-1] in _PARTS else (path, [])
        first = "untrained-" if model.startswith(UNTRAINED) else ""
        # A run's other network is told by what it is, as its last two always are; another run by where it stands.
        tail = kind if (first, folder) in folders or kind in (["generator"], ["corrector"]) else []
        longer = [short_name(first + "-".join([*folder[-n:], *tail])) for n in range(1, len(folder) + 1)]
        found.append(next((name for name in longer if name not in found), f"{longer[-1]}-{number}"))
        folders.append((first, folder))
    return found


def open_encoder(given: str, name: str) -> Encoder:
    """Read the configuration and the tokenizer of one of ``--models``.

    Raises:
        UserError: no such folder or hub id, not a model, no usable tokenizer, or a tokenizer that is not the model's.
    """
    source = given.removeprefix(UNTRAINED)
    folder = Path(source)
    if not folder.is_dir() and (folder.parent / run_folder.CHECKPOINTS).is_dir():
        command = f"python scripts/export.py {shlex.quote(str(folder.parent))} --to FOLDER"
        raise UserError(f"models: there is no folder {source}; a run writes it when it ends: finish it, or {command}")
    config = reading.read_config("models", source)
    notes: list[str] = []
    try:
        with reading.quiet():
            tokenizer = load_tokenizer(source, log=notes.append)
    except UserError as error:
        raise UserError(f"models: {str(error).replace('option tokenizer.path', 'option models')}") from None
    if len(tokenizer) > config.vocab_size:
        raise UserError(f"models: {source}: {len(tokenizer)} tokens in its tokenizer, {config.vocab_size} in the model")
    untrained = given != source
    if not untrained:  # now: the models before it may take hours
        reading.require_finite_files("models", source)
    digest = network_fingerprint(source, getattr(config, "_commit_hash", None), untrained)
    return Encoder(name, source, untrained, config, tokenizer, digest, tuple(notes))


def require_positions(encoder: Encoder, max_length: int) -> None:
    """Raises UserError where an example of task.max_length would be longer than the model can take."""
    if positions := getattr(encoder.config, "max_position_embeddings", None):
        positions -= _unused_positions(encoder)
        if max_length > positions:
            raise UserError(
                f"models: {encoder.source} has {positions} positions, fewer than task.max_length {max_length}; lower it"
            )


@lru_cache
def _unused_positions(encoder: Encoder) -> int:
    """RoBERTa and its kin count positions from their padding token's id on, so that the first rows serve no token."""
    with torch.device("meta"), reading.quiet(), reading.one_line_errors("models", encoder.source):
        model = AutoModel.from_config(encoder.config)
    tables = [module.position_embeddings for module in model.modules() if hasattr(module, "position_embeddings")]
    padding = [getattr(table, "padding_idx", None) for table in tables]
    return max((row + 1 for row in padding if row is not None), default=0)


def build(encoder: Encoder, data: TaskData, seed: int) -> PreTrainedModel:
    """The encoder under the stock head for the task, fp32, on the CPU, in training mode; new weights follow from ``seed``.

    Dropout is that of the model's configuration (published: 0.1).

    Raises:
        UserError: weights that cannot be read or lack a part of the encoder.
    """
    config = copy.deepcopy(encoder.config)
    config.num_labels = len(data.kind.labels)
    config.id2label, config.label2id = dict(enumerate(data.kind.labels)), dict(data.kind.number)
    architecture = getattr(transformers, f"AutoModel{data.kind.head}")
    with torch.random.fork_rng(devices=[]), reading.quiet(), reading.one_line_errors("models", encoder.source):
        torch.manual_seed(torch_seed(seed, Purpose.INITIALISE))
        if encoder.untrained:
            return architecture.from_config(config).float().train()
        model, found = architecture.from_pretrained(
            encoder.source,
            config=config,
            dtype=torch.float32,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # a head for other labels; in the encoder it is refused below
        )
        new = [*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])]
        head = [name for name in model.state_dict() if not name.startswith(f"{model.base_model_prefix}.")]
        of_tasks = tuple(kind.head for kind in KINDS.values())
        was_fine_tuned = any(name.endswith(of_tasks) for name in getattr(encoder.config, "architectures", None) or ())
        if was_fine_tuned and (learnt := [name for name in head if name not in new]):
            torch.manual_seed(torch_seed(seed, Purpose.INITIALISE))
            fresh = architecture.from_config(config).state_dict()
            model.load_state_dict({name: fresh[name] for name in learnt}, strict=False)
    if lost := sorted(name for name in new if reading.is_encoder(name, model)):
        raise UserError(f"models: {encoder.source} lacks {len(lost)} of the encoder's parameters ({lost[0]}, …)")
    reading.require_whole_encoder("models", encoder.source, found["unexpected_keys"])
    reading.require_finite(f"models: {encoder.source}", model.named_parameters(), reading.FETCH_AGAIN)
    return model.train()
