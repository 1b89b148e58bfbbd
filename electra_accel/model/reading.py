"""What every reader of Hugging Face folders and hub ids needs: the configuration, checked before anything is built; a check
that weights are numbers; and what the libraries raise as one line that names option and source.
"""

import os
import pickle
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.utils import logging as hub_logging
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModel, ElectraConfig, PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN

from electra_accel import json_text
from electra_accel.errors import UserError, one_line

# What transformers, safetensors and torch raise for files that are missing, damaged, of another shape or out of reach, and for
# values of another type than they expect. Theirs alone: nothing of ours is called where these are caught.
UNUSABLE = (
    *(OSError, EOFError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(AssertionError, ImportError, MemoryError, SafetensorError, StrictDataclassError, pickle.UnpicklingError),
)
_COUNTS = ("vocab_size", "embedding_size", "hidden_size", "num_attention_heads", "intermediate_size")
_COUNTS += ("num_hidden_layers", "max_position_embeddings", "type_vocab_size")
_SHARES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "summary_last_dropout")
# transformers makes an object of each layer and label, also of a network that is only looked at.
_MOST_LAYERS, _MOST_LABELS = 1000, 1_000_000
_LIMITS = dict.fromkeys(_SHARES, 1) | {"layer_norm_eps": 1, "initializer_range": 100, "num_hidden_layers": _MOST_LAYERS}
# How a network is asked to compute and to answer, not what: we ask in our own way.
_ANSWERS = {"chunk_size_feed_forward": 0, "return_dict": True}
_ANSWERS |= {"output_hidden_states": False, "output_attentions": False}
# A remedy for weights of others.
FETCH_AGAIN = "fetch them again, or take others: the training that wrote these had diverged"
_LAYER = re.compile(r"\bencoder\.layer\.\d+\.")


def is_path(source: str) -> bool:
    """Whether ``source`` cannot be a hub id."""
    return source.startswith((".", "/", "~")) or source.count("/") > 1


def read_config(option: str, source: str, revision: str | None = None) -> PretrainedConfig:
    """The configuration in a folder or under a hub id, of any architecture that transformers knows.

    Raises:
        UserError: there is none, or it describes no network that could be built.
    """
    folder = Path(source)
    if not folder.is_dir() and (is_path(source) or os.path.lexists(source)):
        raise UserError(f"{option}: there is no folder {source}")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(
            f"{option}: {source} has no config.json; give a Hugging Face folder, such as RUN/discriminator, or a hub id"
        )
    with quiet(), one_line_errors(option, source):
        if folder.is_dir():
            _require_readable(folder / "config.json")
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    for name, usual in _ANSWERS.items():
        setattr(config, name, usual)
    if wrong := impossible(config):
        raise UserError(f"{option}: cannot load {source}: in its config.json {'; '.join(wrong)}")
    with quiet(), one_line_errors(option, source), torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = AutoModel.from_config(config, trust_remote_code=False)
    parameters = sum(weight.numel() for weight in network.parameters())
    weights = sum(path.stat().st_size for suffix in ("safetensors", "bin") for path in folder.glob(f"*.{suffix}"))
    if 4 * parameters > (max(8 * weights, 2**33) if weights else 2**40):
        raise UserError(
            f"{option}: cannot load {source}: its config.json describes {parameters:,} parameters, which is another model's"
        )
    return config


def _require_readable(file: Path) -> None:
    """Raises ValueError for what transformers would take in, and go on with for minutes or until no memory is left."""
    try:
        values = json_text.loads(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"its config.json is not a valid JSON file: {error}") from error
    if not isinstance(values, dict):
        raise ValueError("its config.json does not hold names and values")
    if isinstance(number := values.get("num_labels"), int) and number > _MOST_LABELS:
        raise ValueError(f"in its config.json num_labels is {number}")


def impossible(config: PretrainedConfig) -> list[str]:
    """Values that the libraries would take, and fail over later or compute nonsense with; in words."""
    wrong = []
    if isinstance(config, ElectraConfig):  # in others 0 and -1 may have a meaning
        wrong = [f"{name} is {getattr(config, name)}" for name in _COUNTS if getattr(config, name) < 1]
        width, heads = config.hidden_size, config.num_attention_heads
        if not wrong and width % heads:
            wrong.append(f"hidden_size {width} does not divide by num_attention_heads {heads}")
        if config.pad_token_id is not None and not 0 <= config.pad_token_id < config.vocab_size:
            wrong.append(f"pad_token_id is {config.pad_token_id}")
        if config.is_decoder:
            wrong.append("is_decoder is true: a token would see those before it alone")
        if (kind := getattr(config, "position_embedding_type", None)) not in (None, "absolute"):
            wrong.append(f"position_embedding_type is {kind!r}: only absolute ones are known")
    for name, limit in _LIMITS.items():
        value = getattr(config, name, None)
        if isinstance(value, int | float) and not 0 <= value < limit:  # NaN is not either
            wrong.append(f"{name} is {value}")
    names = config.architectures
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        wrong.append(f"architectures is {config.architectures}")
    activation = getattr(config, "hidden_act", None)
    if isinstance(activation, str) and activation not in ACT2FN:
        wrong.append(f"hidden_act is {activation!r}, which transformers {transformers.__version__} does not know")
    return list(dict.fromkeys(wrong))


def require_whole_encoder(option: str, source: str, unexpected: Iterable[str]) -> None:
    """Raises UserError where weights of the encoder were left unread, such as those of layers that config.json does not count;
    ``unexpected`` are the names of weights that have no place in the network."""
    if left := sorted(name for name in unexpected if _LAYER.search(name)):
        raise UserError(
            f"{option}: cannot load {source}: config.json is that of another model: {len(left)} of its weights have no place "
            f"there ({left[0]}, …)"
        )


def is_encoder(name: str, model: PreTrainedModel) -> bool:
    """Whether a parameter or module of this name is not the head's, which a pooler is: encoders come with and without one."""
    return name.startswith(f"{model.base_model_prefix}.") and "pooler" not in name


def require_finite(source: str, tensors: Iterable[tuple[str, torch.Tensor]], remedy: str) -> None:
    """Raises UserError where a tensor holds NaN or infinity, of which nothing but more of them would be computed.

    Args:
        source: file, or option and source, for the error.
    """
    for name, tensor in tensors:
        if tensor.is_floating_point() and not (finite := torch.isfinite(tensor)).all():
            share = f"{tensor.numel() - int(finite.sum()):,} of {tensor.numel():,} numbers"
            raise UserError(f"{source}: {share} in {name} are not finite (they are NaN or infinite); {remedy}")


def require_finite_files(option: str, source: str) -> None:
    """Raises UserError where a safetensors file of a folder holds NaN or infinity; names file and tensor."""
    for file in sorted(Path(source).glob("*.safetensors")):
        with one_line_errors(option, source), safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118, it is no dict
                require_finite(f"{option}: {file}", [(name, tensors.get_tensor(name))], FETCH_AGAIN)


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' account of new and unused weights, which is told in one line, and the hub's of each attempt."""
    log = transformers.logging
    verbosity, bars, of_hub = log.get_verbosity(), log.is_progress_bar_enabled(), hub_logging.get_verbosity()
    log.set_verbosity_error()
    log.disable_progress_bar()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        hub_logging.set_verbosity(of_hub)
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


@contextmanager
def one_line_errors(option: str, source: str) -> Iterator[None]:
    """Around calls of the libraries that read ``source``, a folder or hub id that ``option`` names."""
    try:
        yield
    except UNUSABLE as error:
        reason = one_line(error)
        if isinstance(error, SafetensorError):
            reason = f"model.safetensors is damaged or incomplete, fetch it again ({reason})"
        elif isinstance(error, pickle.UnpicklingError | EOFError):  # torch's own words advise to load it all the same
            reason = (
                "pytorch_model.bin is damaged, or holds more than tensors: loading that would run foreign code and is refused; "
                "take a release with model.safetensors"
            )
        elif isinstance(error, StrictDataclassError):
            reason = f"in its config.json: {reason.rpartition('TypeError: ')[2]}"
        elif not isinstance(error, OSError | ValueError | RuntimeError):  # whose words say little without their kind
            reason = f"its config.json describes no model ({type(error).__name__}: {reason})"
        hint = f" (there is no folder {source}, and as a hub id it cannot be loaded: it needs config.json and weights)"
        where = f"cannot load {source}{'' if Path(source).is_dir() else hint}"
        raise UserError(f"{option}: {where}: {reason}") from error
