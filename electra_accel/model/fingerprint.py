"""What a Hugging Face folder holds, in 32 digits: two folders with the same ones are the same model, wherever they stand."""

import hashlib
import json
from pathlib import Path

from electra_accel.text.letters import DESCRIPTION, Letters, read_description, read_settings, said_in, settle
from electra_accel.text.vocab_file import read_vocab

UNTRAINED = "untrained:"  # before a folder of --models: its shape and tokenizer, with random weights
CASED = {"do_lower_case": False, "strip_accents": None, "tokenize_chinese_chars": True}


def network_fingerprint(source: str, commit: str | None, untrained: bool = False) -> str:
    """32 hexadecimal digits of a folder's content (see :func:`fingerprint`), or of a hub id and its ``commit``."""
    if Path(source).is_dir():
        return fingerprint(Path(source), untrained)
    known = f"{'untrained' if untrained else ''}{source} {commit}"
    return hashlib.blake2b(known.encode(), digest_size=16).hexdigest()


def fingerprint(folder: Path, untrained: bool = False) -> str:
    """32 hexadecimal digits over configuration, weights and tokenizer; the model card and ``electra_accel.json`` do not count.

    What becomes of capitals and accents counts too where no tokenizer.json says it, or where it is done otherwise.

    Args:
        untrained: the shape and the tokenizer alone count, and what is trained on them begins at random weights.

    Raises:
        OSError: there is no config.json, or a file cannot be read.
    """
    digest = hashlib.blake2b(b"untrained" if untrained else b"", digest_size=16)
    weights = [] if untrained else [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    digest.update(_letters(folder).encode())
    for path in sorted([folder / "config.json", *folder.glob("tokenizer.json"), *folder.glob("vocab.txt"), *weights]):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def _letters(folder: Path) -> str:
    """How letters are treated; "" where a tokenizer.json says the same, or a vocab.txt is used without changing them."""
    description, settings = read_description(folder, DESCRIPTION), read_settings(folder)
    normalizer, model = description.get("normalizer") or {}, description.get("model") or {}
    if description and (normalizer.get("type") != "BertNormalizer" or not isinstance(model.get("vocab"), dict)):
        return ""
    if not description and not (folder / "vocab.txt").is_file():
        return ""
    letters, _ = settle(model["vocab"] if description else read_vocab(folder / "vocab.txt"), said_in(folder))
    if description and letters.same_as(Letters(normalizer.get("lowercase", True), normalizer.get("strip_accents"))):
        return ""
    found = {
        "do_lower_case": letters.lowercase,
        "strip_accents": letters.strip_accents,
        "tokenize_chinese_chars": settings.get("tokenize_chinese_chars", True),
    }
    return "" if found == CASED and not description else json.dumps(found)
