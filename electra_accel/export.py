"""The pair as Hugging Face folders that stock transformers loads, with tokenizer and model card."""

import os
import shutil
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from transformers import ElectraForMaskedLM, ElectraForPreTraining, PreTrainedTokenizerBase

FOLDERS = ("discriminator", "generator")


def export_pair(
    folder: Path,
    generator: ElectraForMaskedLM,
    discriminator: ElectraForPreTraining,
    tokenizer: PreTrainedTokenizerBase,
    facts: dict[str, str],
) -> None:
    """Write ``folder/discriminator`` and ``folder/generator``; each appears complete or not at all.

    Args:
        facts: what the model card tells, as {heading: value}.
    """
    for name, model in zip(FOLDERS, (discriminator, generator)):
        partial = folder / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        _card(name, facts).save(partial / "README.md")
        shutil.rmtree(folder / name, ignore_errors=True)
        os.rename(partial, folder / name)


def _card(name: str, facts: dict[str, str]) -> ModelCard:
    """A short model card: what it is, how it was made, how to load it. No sentence of the corpus stands in it."""
    architecture = "ElectraForPreTraining" if name == "discriminator" else "ElectraForMaskedLM"
    use = {
        "discriminator": "`AutoModel.from_pretrained(folder)` gives the encoder to fine-tune, `ElectraForPreTraining` the "
        "model that finds replaced tokens.",
        "generator": "`ElectraForMaskedLM.from_pretrained(folder)` fills masks. For most tasks the discriminator is the "
        "encoder to use.",
    }[name]
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    data = ModelCardData(library_name="transformers", tags=["electra", "replaced-token-detection"]).to_yaml()
    return ModelCard(
        f"---\n{data}\n---\n\n# ELECTRA {name}\n\n`{architecture}`, pre-trained by replaced token detection with "
        f"electra-accel. {use}\n\n| | |\n|---|---|\n{rows}\n"
    )
