"""Networks as Hugging Face folders for stock transformers, with tokenizer, model card and origin; and their way to the hub.

The origin is ``electra_accel.json``: which run and step the weights are of, what they started from, what they were trained and
judged on. The model card tells the same to people.
"""

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError, HTTPError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from electra_accel.errors import UserError, one_line
from electra_accel.runs import run_folder
from electra_accel.text.tokenizer import save_tokenizer

ORIGIN = "electra_accel.json"
WHAT = {  # a pair has the first two, and the corrector where it was trained; one network alone is the encoder
    "discriminator": "The encoder to fine-tune. It has learnt to tell which tokens of a text were replaced.",
    "generator": "The masked language model of the pair. For most tasks, use the discriminator beside it.",
    "corrector": "The discriminator's encoder under an LM head. It reads a sentence without [MASK] and names the token that "
    "should stand at each place. For most tasks, use the discriminator beside it.",
    "encoder": "An encoder to fine-tune, pre-trained by masked language modelling.",
}


def corrector_beside(discriminator: str) -> str | None:
    """The folder ``corrector`` beside that of a discriminator, as a run exports them; None where there is none."""
    folder = Path(discriminator).absolute().with_name("corrector")
    return str(folder) if Path(discriminator).is_dir() and folder.is_dir() else None


def write_networks(
    folder: Path,
    networks: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    card: Callable[[str, Path], ModelCard],
    *,
    max_length: int | None = None,
    origin: Mapping | None = None,
) -> None:
    """Write ``folder/<name>`` for each network; each appears complete or not at all, and none where an error is raised.

    Args:
        card: the model card, of a network's name and a folder with its weights (see :func:`model_card`).
        max_length: of the tokenizer; default: the network's positions.
        origin: content of ``electra_accel.json``; None: there is no such file.
    """
    partials = {name: folder / f".{name}.partial" for name in networks}
    try:
        for name, network in networks.items():
            shutil.rmtree(partials[name], ignore_errors=True)
            network.save_pretrained(partials[name])
            fitting = copy.deepcopy(tokenizer)
            fitting.model_max_length = max_length or network.config.max_position_embeddings
            save_tokenizer(fitting, partials[name])
            if origin is not None:
                told = json.dumps({"network": name, **origin}, indent=2, ensure_ascii=False)
                (partials[name] / ORIGIN).write_text(told + "\n", encoding="utf-8", errors=run_folder.ESCAPE)
        for name, partial in partials.items():
            card(name, partial).save(partial / "README.md")
        for name, partial in partials.items():
            run_folder.replace_folder(partial, folder / name)
    finally:
        for partial in partials.values():
            shutil.rmtree(partial, ignore_errors=True)


def model_card(
    template: Path, network: PreTrainedModel, facts: Mapping[str, str], about: Mapping[str, Any], **values: Any
) -> ModelCard:
    """Args: facts: {heading: value} of its table; about: what the hub is told (``ModelCardData``); values: of the template."""
    return ModelCard.from_template(
        ModelCardData(library_name="transformers", **about),
        template_path=str(template),
        architecture=type(network).__name__,
        facts={key: in_a_cell(value) for key, value in facts.items()},
        **values,
    )


def exported_weights(folder: Path) -> tuple[str, int | None]:
    """Which weights an exported folder holds, in words, and their step; None where an older version wrote it, without origin.

    Raises:
        UserError: ``electra_accel.json`` is damaged.
    """
    origin = run_folder.read_json(folder / ORIGIN)
    step, chosen = origin.get("step"), origin.get("chosen")
    if not origin:
        return "the last weights", None
    if type(step) is not int or not isinstance(chosen, str):
        raise UserError(f"{folder / ORIGIN} is damaged (step is {step!r}, chosen is {chosen!r}); restore or remove it")
    return f"step {step} ({one_line(chosen)})", step


def in_a_cell(text: str) -> str:
    """On one line, and without ending a cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())


def repository(source: str, name: str) -> str:
    """Published pairs are two repositories: me/books -> me/books-discriminator."""
    return f"{source}-{name}"


def push_to_hub(folder: Path, names: list[str], source: str) -> list[str]:
    """Upload exported folders to the hub, each into a repository of its own; one that is new is private. Gives their addresses.

    Raises:
        UserError: no token, no network, no permission, or no name for a repository.
    """
    api, found = HfApi(), []
    for name in names:
        try:
            address = api.create_repo(repository(source, name), private=True, exist_ok=True)
            api.upload_folder(repo_id=address.repo_id, folder_path=folder / name)
        except (HTTPError, HFValidationError, OSError) as error:  # OSError: no token, or offline by HF_HUB_OFFLINE
            reason = one_line(str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__)
            raise UserError(
                f"--push_to_hub {source}: {reason}; it needs the network and a token that may write (hf auth login, or "
                f"HF_TOKEN). The folders are in {folder}"
            ) from error
        found.append(str(address))
    return found
