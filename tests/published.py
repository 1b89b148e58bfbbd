"""Pairs on disk as they were published: monologg/koelectra-base-v3-* and google/electra-base-*.

Fields of config.json, key names and kinds of files are those of the published folders as far as their pages show them; the
weights, sizes and vocabularies are the caller's.

    python -m tests.published runs/general published    # what a run exported, as monologg/koelectra-base-v3-* is laid out
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, ElectraForMaskedLM, ElectraForPreTraining, PreTrainedTokenizerFast

from electra_accel.model.pair import Pair

SHAPE = (
    *("attention_probs_dropout_prob", "embedding_size", "hidden_act", "hidden_dropout_prob", "hidden_size"),
    *("initializer_range", "intermediate_size", "layer_norm_eps", "max_position_embeddings", "model_type"),
    *("num_attention_heads", "num_hidden_layers", "pad_token_id", "type_vocab_size", "vocab_size"),
)
ARCHITECTURES = {"generator": "ElectraForMaskedLM", "discriminator": "ElectraForPreTraining"}


def write_published(
    pair: Pair,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    like: Literal["koelectra", "google"] = "koelectra",
    kind: Literal["safetensors", "bin"] = "safetensors",
    lacking: Sequence[str] = (),
) -> None:
    """Writes ``folder/generator`` and ``folder/discriminator``.

    Args:
        pair: stock networks, sharing embeddings or not; an LM head of its own is written, too.
        like: whose config.json and tokenizer files: KoELECTRA's is cased and has a vocab.txt alone, Google's is uncased and has
            a tokenizer.json beside it. KoELECTRA's weights hold the position ids, a buffer of the transformers of its time.
        kind: model.safetensors, in which a tied LM head stands once; or pytorch_model.bin, in which it stands twice.
        lacking: beginnings of key names that are left out.
    """
    for role, network in pair._asdict().items():
        place = folder / role
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(published_config(role, network.config, like), indent=2))
        write_vocabulary(tokenizer, place, like)
        tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        if like == "koelectra":
            positions = network.config.max_position_embeddings
            tensors["electra.embeddings.position_ids"] = torch.arange(positions)[None].clone()
        head = getattr(network, "generator_lm_head", None)
        if kind == "safetensors" and head is not None and head.weight is network.get_input_embeddings().weight:
            del tensors["generator_lm_head.weight"]
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(lacking) or "-")}
        if kind == "bin":
            torch.save(tensors, place / "pytorch_model.bin")
        else:
            save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})


def published_config(role: str, config, like: str) -> dict:
    """The published fields; no ``transformers_version``, no ``tie_word_embeddings``."""
    summary = dict(summary_activation="gelu", summary_last_dropout=0.1, summary_type="first", summary_use_proj=True)
    fields = {"architectures": [ARCHITECTURES[role]]} | {name: getattr(config, name) for name in SHAPE} | summary
    return fields | ({"position_embedding_type": "absolute"} if like == "google" else {})


def write_vocabulary(tokenizer: PreTrainedTokenizerFast, place: Path, like: str) -> None:
    """vocab.txt in the order of the ids, and what else stands beside it."""
    words = tokenizer.get_vocab()
    (place / "vocab.txt").write_text("".join(f"{word}\n" for word in sorted(words, key=words.get)), encoding="utf-8")
    settings = {"do_lower_case": like == "google", "model_max_length": 512}
    (place / "tokenizer_config.json").write_text(json.dumps(settings))
    if like == "google":
        tokenizer.backend_tokenizer.save(str(place / "tokenizer.json"))


def main(run: str, folder: str) -> None:
    exported = Path(run)
    pair = Pair(
        ElectraForMaskedLM.from_pretrained(exported / "generator"),
        ElectraForPreTraining.from_pretrained(exported / "discriminator"),
    )
    write_published(pair, AutoTokenizer.from_pretrained(exported / "discriminator"), Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
