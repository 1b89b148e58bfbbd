"""What stands in the manifest of a prepared folder: its splits, counted while they are written."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from electra_accel import json_text
from electra_accel.data.store import TokenWriter
from electra_accel.errors import UserError
from electra_accel.text.encode import Examples
from electra_accel.text.unknown import SAMPLE, Unknown, cause_in

FORMAT = 3  # raise it when a change makes other tokens, or other files, of the same input
MANIFEST = "manifest.json"
DIGEST = "digest"  # of the manifest without it


class SplitWriter:
    """Writes one split and counts what goes in."""

    def __init__(self, folder: Path, vocab_size: int, max_length: int):
        self.writer = TokenWriter(folder, vocab_size)
        self.digest = hashlib.blake2b(digest_size=16)
        self.histogram = np.zeros(max_length + 1, np.int64)
        self.counts, self.sources, self.skipped = Counter(), Counter(), Counter()
        self.worst: list[str] = []  # documents with unknown tokens

    def add(self, source: str, examples: Examples) -> None:
        self.writer.append(examples.tokens, examples.lengths)
        self.digest.update(examples.tokens.tobytes())
        self.histogram += np.bincount(examples.lengths, minlength=len(self.histogram))
        for name in ("documents", "unknown", "unknown_skipped"):
            self.counts[name] += getattr(examples, name)
        if sum(map(len, self.worst)) < SAMPLE:
            self.worst += examples.worst
        self.sources[source] += examples.documents
        self.skipped += examples.skipped

    def close(self, tokenizer: PreTrainedTokenizerFast) -> dict:
        self.writer.close()
        of_text = self.writer.total - 2 * self.writer.count
        skipped = self.counts["unknown_skipped"]
        unknown = Unknown(self.counts["unknown"] + skipped, of_text + skipped)
        if unknown.is_high:
            unknown = unknown._replace(cause=cause_in(self.worst, tokenizer))
        return {
            "documents": self.counts["documents"],
            "examples": self.writer.count,
            "tokens": self.writer.total,
            "unknown_tokens": self.counts["unknown"],
            "unknown": unknown._asdict(),  # with the documents that were skipped for it
            "skipped": dict(self.skipped),
            "sources": dict(self.sources),
            "fingerprint": self.digest.hexdigest(),
            "lengths": self.histogram.tolist(),  # how many examples have 0, 1, 2, … tokens
        }


def nothing_in(name: str, split: dict) -> str:
    """What to say where a split came out empty."""
    skipped = ", ".join(f"{count} {reason}" for reason, count in split["skipped"].items()) or "no documents"
    where = {"train": "the corpus", "replay": "the replay text"}.get(name, f"the held-out set {name!r}")
    option = {"held_out": "eval_files", "general": "eval_general_files", "replay": "replay_files"}.get(name)
    remedy = f"name other files{f' in data.{option}' if option else ''} or another data.text_column"
    if name == "train" and not split["skipped"]:
        remedy = "all of it is held out: add text, name data.eval_files, or lower data.eval_fraction"
    if cause := split["unknown"]["cause"]:
        remedy += f"; the likely cause of unknown tokens: {cause}"
    return f"no usable text in {where} ({skipped}); {remedy}"


def write_manifest(folder: Path, manifest: dict) -> None:
    """With a digest of itself."""
    # The name of a file need not be UTF-8; what is escaped reads back as it was.
    text = json.dumps(manifest | {DIGEST: _digest(manifest)}, ensure_ascii=False)
    (folder / MANIFEST).write_text(text, encoding="utf-8", errors="backslashreplace")


def _digest(manifest: dict) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> dict:
    """See :meth:`SplitWriter.close` and ``prepare._build``. UserError: not a prepared folder, or one of another format."""
    try:
        manifest = json_text.loads((folder / MANIFEST).read_bytes())
        if not isinstance(manifest, dict):
            raise ValueError("it is no record with named fields")
        wanted = manifest.pop(DIGEST, None)  # earlier versions wrote none
        if wanted not in (None, _digest(manifest)):
            raise ValueError("it was altered")
    except OSError as error:
        reason = f"{MANIFEST}: {error.strerror}"
        raise UserError(f"{folder}: not a folder of prepared data ({reason}; option data.prepared)") from None
    except ValueError as error:
        raise UserError(f"{folder}: damaged: {MANIFEST}: {error}; delete the folder and prepare again") from None
    if (found := manifest.get("format")) != FORMAT:
        raise UserError(f"{folder}: prepared in format {found}, this version reads {FORMAT}; prepare again")
    return manifest


def unknown_tokens(manifest: dict) -> dict[str, Unknown]:
    """Of each split; one that an earlier version prepared does not say how much of its text was skipped."""
    return {
        name: Unknown(**split["unknown"])
        if "unknown" in split
        else Unknown(split["unknown_tokens"], split["tokens"] - 2 * split["examples"])
        for name, split in manifest["splits"].items()
    }
