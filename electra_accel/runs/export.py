"""Networks as Hugging Face folders for stock transformers, with tokenizer, model card and origin; and their way to the hub.

The origin is ``electra_accel.json``: which run and step the weights are of, what they started from, what they were trained and
judged on. The model card tells the same to people.
"""

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError, HTTPError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from electra_accel.errors import UserError, one_line
from electra_accel.runs import run_folder
from electra_accel.text.tokenizer import save_tokenizer

ORIGIN, CARD = "electra_accel.json", Path(__file__).with_name("card.md.jinja")
WHAT = {  # a pair has the first two, one network alone is the encoder
    "discriminator": "The encoder to fine-tune. It has learnt to tell which tokens of a text were replaced.",
    "generator": "The masked language model of the pair. For most tasks, use the discriminator beside it.",
    "encoder": "An encoder to fine-tune, pre-trained by masked language modelling.",
}
# Figures that belong to a network, under the names of the hub.
METRICS = {"discriminator": ["roc_auc"], "generator": ["accuracy"], "encoder": ["accuracy"]}


def export_networks(
    folder: Path,
    networks: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    origin: Mapping,
    figures: Callable[[str, Path], str] = lambda name, folder: "",
    source: str = "",
) -> None:
    """Write ``folder/<name>`` for each network; each appears complete or not at all, and none where an error is raised.

    Args:
        networks: by ``discriminator``, ``generator`` or ``encoder``.
        origin: content of ``electra_accel.json``. The model card uses ``facts`` ({heading: value}), ``licence`` (as the hub
            writes it, or None) and ``base_models`` (hub ids that the networks started from, by name).
        figures: Markdown for a network's card (see ``reports.story.card``), of its name and a folder with its weights.
        source: repository on the hub that the card's code loads from, as ``push_to_hub`` names it; "": the folder.
    """
    partials = {name: folder / f".{name}.partial" for name in networks}
    try:
        for name, network in networks.items():
            shutil.rmtree(partials[name], ignore_errors=True)
            network.save_pretrained(partials[name])
            fitting = copy.deepcopy(tokenizer)
            fitting.model_max_length = network.config.max_position_embeddings
            save_tokenizer(fitting, partials[name])
            told = json.dumps({"network": name, **origin}, indent=2, ensure_ascii=False)
            (partials[name] / ORIGIN).write_text(told + "\n", encoding="utf-8", errors=run_folder.ESCAPE)
        for name, network in networks.items():
            data = ModelCardData(
                library_name="transformers",
                license=origin["licence"],
                base_model=origin["base_models"].get(name),
                metrics=METRICS[name],
                tags=["electra", "masked-language-modelling" if name == "encoder" else "replaced-token-detection"],
            )
            card = ModelCard.from_template(
                data,
                template_path=str(CARD),
                name=name,
                architecture=type(network).__name__,
                what=WHAT[name],
                facts={key: in_a_cell(value) for key, value in origin["facts"].items()},
                figures=figures(name, partials[name]),
                source=f'"{repository(source, name)}"' if source else '"."  # this folder',
                positions=network.config.max_position_embeddings,
                origin_file=ORIGIN,
            )
            card.save(partials[name] / "README.md")
        for name, partial in partials.items():
            run_folder.replace_folder(partial, folder / name)
    finally:
        for partial in partials.values():
            shutil.rmtree(partial, ignore_errors=True)


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
