"""What a Hugging Face folder holds, in 32 digits: two folders with the same ones are the same model, wherever they stand."""

import hashlib
import json
from pathlib import Path

from electra_accel import json_text

UNTRAINED = "untrained:"  # before a folder of --models: its shape and tokenizer, with random weights
BERT = {
    "do_lower_case": True,
    "strip_accents": None,
    "tokenize_chinese_chars": True,
}  # unless tokenizer_config.json differs
CASED = BERT | {"do_lower_case": False}


def network_fingerprint(source: str, commit: str | None, untrained: bool = False) -> str:
    """32 hexadecimal digits of a folder's content (see :func:`fingerprint`), or of a hub id and its ``commit``."""
    if Path(source).is_dir():
        return fingerprint(Path(source), untrained)
    known = f"{'untrained' if untrained else ''}{source} {commit}"
    return hashlib.blake2b(known.encode(), digest_size=16).hexdigest()


def fingerprint(folder: Path, untrained: bool = False) -> str:
    """32 hexadecimal digits over configuration, weights and tokenizer.

    A tokenizer.json says all that turns text into ids. Where there is only a vocab.txt, tokenizer_config.json says what becomes
    of capitals and accents, which counts too.

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
    """How BertTokenizer treats letters where it is made from a vocab.txt; "" for one that leaves them as they are."""
    if (folder / "tokenizer.json").exists() or not (folder / "vocab.txt").exists():
        return ""
    try:
        said = json_text.loads((folder / "tokenizer_config.json").read_bytes())
    except (FileNotFoundError, ValueError):  # a damaged file is refused where the tokenizer is loaded
        said = {}
    found = {name: said.get(name, usual) for name, usual in BERT.items()}
    return "" if found == CASED else json.dumps(found)
