"""What a run reads, by content: text, vocabulary and given networks are the same wherever they stand.

The run folder keeps it as ``content.json``, so that a run goes on although its files were moved, copied to another disk or
named from another folder, and is refused where a file of the same name holds something else.
"""

from pathlib import Path

from electra_accel.data.prepare import Prepared
from electra_accel.model.fingerprint import network_fingerprint
from electra_accel.model.loading import load_config
from electra_accel.pretraining.config import Config
from electra_accel.runs import run_folder

# The values of config_checks.READ_BY_CONTENT, for messages.
IN_WORDS = {
    "train": "the training text",
    "held_out": "the held-out text",
    "general": "the general text",
    "replay": "the replay text",
    "tokenizer": "the vocabulary",
    "generator": "the given generator",
    "discriminator": "the given discriminator",
}


def content_of(config: Config, prepared: Prepared) -> dict[str, str]:
    """A digest of each part that the run has, by the names of ``IN_WORDS``: tokens of a text, files of a network.

    Raises:
        UserError: a given network cannot be found or read.
    """
    found = {name: split["fingerprint"] for name, split in prepared.manifest["splits"].items()}
    found["tokenizer"] = prepared.manifest["tokenizer"]
    model = config.model
    for role, source in (("generator", model.generator), ("discriminator", model.discriminator)):
        if role == "generator" and config.warm_starts:
            found[role] = source
        elif source is not None:
            commit = getattr(load_config(f"model.{role}", source, model.revision), "_commit_hash", None)
            found[role] = network_fingerprint(source, commit)
    return found


def changed_content(folder: Path, content: dict[str, str]) -> list[str]:
    """In words what the run in ``folder`` read that is another now; nothing where the folder does not say what it read."""
    known, changed = run_folder.read_json(folder / run_folder.CONTENT), []
    for name, words in IN_WORDS.items() if known else ():
        before, now = known.get(name), content.get(name)
        if before != now:
            changed.append(
                f"{words} {'is new' if before is None else 'is missing' if now is None else 'has other content'}"
            )
    return changed
