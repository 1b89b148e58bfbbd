"""Networks as Hugging Face folders that stock transformers loads, with tokenizer and model card; and their way to the hub."""

import copy
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError, HTTPError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from electra_accel.errors import UserError
from electra_accel.runs.run_folder import replace_folder
from electra_accel.text.tokenizer import save_tokenizer

FOLDERS = ("discriminator", "generator")  # of a pair; one network alone is "encoder"
WHAT = {
    "discriminator": "The encoder to fine-tune. It has learnt to tell which tokens of a text were replaced.",
    "generator": "The masked language model of the pair. For most tasks the discriminator beside it is the encoder to use.",
    "encoder": "An encoder to fine-tune, pre-trained by masked language modelling.",
}
# Figures that belong to a network, under the names of the hub.
METRICS = {"discriminator": ["roc_auc"], "generator": ["accuracy"], "encoder": ["accuracy"]}

CARD = """\
---
{{ card_data }}
---

# ELECTRA {{ name }}

`{{ architecture }}`, pre-trained with electra-accel. {{ what }}

| | |
|---|---|
{% for key, value in facts.items() %}| {{ key }} | {{ value }} |
{% endfor %}
{% if figures %}## Before and after

{{ figures }}

{% endif %}## Load it

With stock transformers:

```python
from transformers import AutoModel, AutoTokenizer

source = {{ source }}
tokenizer = AutoTokenizer.from_pretrained(source)
encoder = AutoModel.from_pretrained(source)  # it reports the head as unexpected: AutoModel has no use for it
```

{% if name == "discriminator" %}Which tokens look replaced:

```python
import torch
from transformers import ElectraForPreTraining

discriminator = ElectraForPreTraining.from_pretrained(source)
inputs = tokenizer("a text", truncation=True, return_tensors="pt")
with torch.no_grad():
    probabilities = discriminator(**inputs).logits.sigmoid()
print(list(zip(tokenizer.convert_ids_to_tokens(inputs.input_ids[0]), probabilities[0].tolist())))
```
{% else %}What stands behind a mask:

```python
import torch
from transformers import ElectraForMaskedLM

language_model = ElectraForMaskedLM.from_pretrained(source)
inputs = tokenizer(f"a {tokenizer.mask_token}", return_tensors="pt")
with torch.no_grad():
    logits = language_model(**inputs).logits[inputs.input_ids == tokenizer.mask_token_id]
print(tokenizer.convert_ids_to_tokens(logits.topk(5).indices[0]))
```
{% endif %}
## Fine-tune it

The encoder without its head is `.electra`, the very module that `AutoModel` gives:

```python
from transformers import {{ architecture }}

electra = {{ architecture }}.from_pretrained(source).electra
electra.save_pretrained("electra")  # without the head
```

With a new head for two classes, one step on two texts:

```python
import torch
from transformers import AutoModelForSequenceClassification

classifier = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)
optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-4)
batch = tokenizer(["one text", "another"], padding=True, truncation=True, max_length={{ positions }}, return_tensors="pt")
loss = classifier(**batch, labels=torch.tensor([0, 1])).loss
loss.backward()
optimizer.step()
```
"""


def export_networks(
    folder: Path,
    networks: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    facts: Mapping[str, str],
    *,
    figures: Callable[[str, Path], str] = lambda name, folder: "",
    licence: str | None = None,
    base_models: Mapping[str, str] | None = None,
    source: str = "",
) -> None:
    """Write ``folder/<name>`` for each network; each appears complete or not at all, and none where an error is raised.

    Args:
        networks: by ``discriminator``, ``generator`` or ``encoder``.
        facts: what the model card tells, as {heading: value}.
        figures: Markdown for a network's card (see ``tracking.story.markdown``), of its name and a folder with its weights.
        licence: of the weights, an identifier of the hub such as apache-2.0; None: the card has no such field.
        base_models: hub ids that the networks started from, by name.
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
        for name, network in networks.items():
            data = ModelCardData(
                library_name="transformers",
                license=licence,
                base_model=(base_models or {}).get(name),
                metrics=METRICS[name],
                tags=["electra", "masked-language-modelling" if name == "encoder" else "replaced-token-detection"],
            )
            card = ModelCard.from_template(
                data,
                template_str=CARD,
                name=name,
                architecture=type(network).__name__,
                what=WHAT[name],
                facts={key: in_a_cell(value) for key, value in facts.items()},
                figures=figures(name, partials[name]),
                source=f'"{repository(source, name)}"' if source else '"."  # this folder',
                positions=network.config.max_position_embeddings,
            )
            card.save(partials[name] / "README.md")
        for name, partial in partials.items():
            replace_folder(partial, folder / name)
    finally:
        for partial in partials.values():
            shutil.rmtree(partial, ignore_errors=True)


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
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise UserError(
                f"--push_to_hub {source}: {reason}; it needs the network and a token that may write (hf auth login, or "
                f"HF_TOKEN). The folders are in {folder}"
            ) from error
        found.append(str(address))
    return found
