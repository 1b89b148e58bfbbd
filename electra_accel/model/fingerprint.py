"""What a Hugging Face folder holds, in 32 digits: two folders with the same ones are the same model, wherever they stand."""

import hashlib
from pathlib import Path


def fingerprint(folder: Path, untrained: bool = False) -> str:
    """32 hexadecimal digits over configuration, weights and tokenizer.

    A tokenizer.json says all that turns text into ids. Where there is only a vocab.txt, tokenizer_config.json says the rest
    (lower case, accents), and counts too.

    Args:
        untrained: the shape and the tokenizer alone count, and what is trained on them begins at random weights.

    Raises:
        OSError: there is no config.json, or a file cannot be read.
    """
    digest = hashlib.blake2b(b"untrained" if untrained else b"", digest_size=16)
    weights = [] if untrained else [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    tokenizer = [*folder.glob("tokenizer.json")] or [*folder.glob("tokenizer_config.json")]
    for path in sorted([folder / "config.json", *tokenizer, *folder.glob("vocab.txt"), *weights]):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()
