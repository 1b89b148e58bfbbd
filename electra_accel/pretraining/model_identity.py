"""What a checkpoint's weights belong to: the networks' configurations, the tokenizer, the size of the text. Written into the
run folder when a run begins, so that a pair can be made from the folder alone, while the run goes on and after its text and
its starting pair are gone.

    model/networks.json    {name of the network in the joint module, in its order: its config.json and its class}
    model/text.json        {split: documents, examples, tokens}, and what was added to the vocabulary
    model/                 tokenizer files
"""

import shutil
from pathlib import Path

import torch
from torch import nn
from transformers import (
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from electra_accel.data.prepare import Prepared
from electra_accel.engines import state
from electra_accel.errors import UserError, one_line
from electra_accel.model import sharing
from electra_accel.model.corrective import CorrectiveHead, stock_network
from electra_accel.model.reading import UNUSABLE, impossible
from electra_accel.runs import run_folder
from electra_accel.text.tokenizer import load_tokenizer

FOLDER, NETWORKS, TEXT = "model", "networks.json", "text.json"
COUNTS = ("documents", "examples", "tokens")
ARCHITECTURES = {each.__name__: each for each in (ElectraForMaskedLM, ElectraForPreTraining)}


def write_model_identity(folder: Path, model: nn.Module, prepared: Prepared) -> None:
    """Write ``folder/model`` of a run with this joint module; it appears whole. On the main process, at every start."""
    networks = {
        name: network.config.to_dict() | {"architectures": [type(network).__name__]}
        for name, network in model.named_children()
    }
    text = {name: {count: split[count] for count in COUNTS} for name, split in prepared.manifest["splits"].items()}
    text["vocabulary"] = prepared.manifest.get("vocabulary") or {}
    partial = folder / f".{FOLDER}.partial"
    with run_folder.storage_errors(folder):
        shutil.rmtree(partial, ignore_errors=True)
        prepared.tokenizer.save_pretrained(partial)
        run_folder.write_json(partial / NETWORKS, networks)
        run_folder.write_json(partial / TEXT, text)
        run_folder.replace_folder(partial, folder / FOLDER)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of the run in ``folder``."""
    return load_tokenizer(folder / FOLDER)


def read_text_counts(folder: Path) -> dict[str, dict[str, int]]:
    """``{split: {"documents", "examples", "tokens"}}`` of the run in ``folder``; under "vocabulary" what ``prepare`` added."""
    return run_folder.read_json(folder / FOLDER / TEXT)


def networks_of(folder: Path, checkpoint: Path, how: str) -> dict[str, PreTrainedModel]:
    """Stock networks with a checkpoint's weights, by their names in the joint module: fp32, on the CPU.

    The corrective head, where there is one, comes as a network with the discriminator's encoder, whose parameters both share.

    Args:
        folder: of the run; ``checkpoint``: a verified one.
        how: ``model.sharing`` of the run.

    Raises:
        UserError: the run folder does not say what its weights belong to, or the weights are those of another model.
        OSError: the checkpoint is gone.
    """
    file = folder / FOLDER / NETWORKS
    if not (described := run_folder.read_json(file)):
        raise UserError(
            f"{folder} has no {FOLDER}/{NETWORKS}, so what {checkpoint.name} belongs to is not known: name a checkpoint in its "
            "run folder; a run of an older version writes it when it goes on"
        )
    most = 2 * (checkpoint / state.MODEL_FILE).stat().st_size  # bytes; weights that are shared stand there once
    try:
        # What of the module is no network for stock transformers: the head needs nothing but its discriminator.
        corrective = bool(described.pop("corrector", None))
        if set(described) not in ({"network"}, {"generator", "discriminator"}):
            raise ValueError(f"it describes {', '.join(described)}")
        networks = {name: _network(values, most) for name, values in described.items()}
        if "discriminator" in networks:
            sharing.share(networks["generator"], networks["discriminator"], how)
        module = nn.ModuleDict(networks)
        if corrective:
            module["corrector"] = CorrectiveHead(networks["discriminator"], seed=0)
    except UNUSABLE as error:
        reason = one_line(error if isinstance(error, ValueError) else repr(error))
        raise UserError(f"{file} is damaged ({reason}); restore it, or resume the run, which writes it anew") from error
    state.load_weights(module, checkpoint)
    if "discriminator" in networks:
        sharing.fold(networks["discriminator"])
    if corrective:
        networks["corrector"] = stock_network(module["corrector"], networks["discriminator"])
    return networks


def _network(values: dict, most: int) -> PreTrainedModel:
    """Raises one of UNUSABLE for values that describe no network, or one of more than ``most`` bytes, before it takes them."""
    # The LM head is tied to the word table here, whatever the configuration of a starting checkpoint says.
    config = ElectraConfig(**values | {"tie_word_embeddings": True})
    if wrong := impossible(config):
        raise ValueError("; ".join(wrong))
    build = ARCHITECTURES[config.architectures[0]]
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in build(config).parameters())
    if 4 * parameters > most:
        raise ValueError(f"it describes {parameters:,} parameters, more than the checkpoint has")
    return build(config)
