"""What a checkpoint's weights belong to: the networks' configurations, the tokenizer, the size of the text. Written into the
run folder when a run begins, so that a pair can be made from the folder alone, while the run goes on and after its text and
its starting pair are gone.

    model/networks.json    {name of the network in the joint module, in its order: its config.json and its class}
    model/text.json        {split: documents, examples, tokens}, and what was added to the vocabulary
    model/                 tokenizer files
"""

import shutil
from pathlib import Path

import transformers
from torch import nn
from transformers import ElectraConfig, PreTrainedModel, PreTrainedTokenizerFast

from electra_accel.data.prepare import Prepared
from electra_accel.engines import sharded
from electra_accel.errors import UserError
from electra_accel.model import sharing
from electra_accel.runs import run_folder
from electra_accel.text.tokenizer import load_tokenizer

FOLDER, NETWORKS, TEXT = "model", "networks.json", "text.json"
COUNTS = ("documents", "examples", "tokens")


def write_model_identity(folder: Path, model: nn.Module, prepared: Prepared) -> None:
    """Write ``folder/model``; it appears whole. Called on the main process when a run begins or goes on.

    Args:
        folder: of the run.
        model: the joint module; each of its children is a network.
    """
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

    Args:
        folder: of the run; ``checkpoint``: a verified one.
        how: ``model.sharing`` of the run.

    Raises:
        UserError: the run folder does not say what its weights belong to, or the weights are those of another model.
    """
    if not (folder / FOLDER / NETWORKS).is_file():
        raise UserError(
            f"{folder} has no {FOLDER}/{NETWORKS}, so what {checkpoint.name} belongs to is not known: name a checkpoint in its "
            "run folder; a run of an older version writes it when it goes on"
        )
    networks = {
        # The LM head is tied to the word table here, whatever the configuration of a starting checkpoint says.
        name: getattr(transformers, config["architectures"][0])(ElectraConfig(**config | {"tie_word_embeddings": True}))
        for name, config in run_folder.read_json(folder / FOLDER / NETWORKS).items()
    }
    if "discriminator" in networks:
        sharing.share(networks["generator"], networks["discriminator"], how)
    sharded.load_weights(nn.ModuleDict(networks), checkpoint)
    if "discriminator" in networks:
        sharing.fold(networks["discriminator"])
    return networks
