"""Opening a run folder: a new run, one to go on with, one that is finished, or one that is somebody else's.

What a run reads is known by content: text, vocabulary and given networks are the same wherever they stand. The run folder keeps
it as ``content.json``, so that a run goes on although its files were moved, copied to another disk or named from another
folder, and is refused where a file of the same name holds something else.
"""

from collections.abc import Callable
from pathlib import Path

from electra_accel.data.prepare import Prepared
from electra_accel.errors import UserError
from electra_accel.model.fingerprint import network_fingerprint
from electra_accel.model.loading import load_config
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.config_checks import difference, moved
from electra_accel.pretraining.config_parser import recorded
from electra_accel.runs import checkpoint, run_folder
from electra_accel.runs import opening as runs

OF_A_WARM_START = {run_folder.WARM_START, run_folder.STATUS}  # before the run itself has begun
# The values of config_checks.READ_BY_CONTENT, for messages.
IN_WORDS = {
    "train": "the training text", "held_out": "the held-out text", "general": "the general text", "replay": "the replay text",
    "tokenizer": "the vocabulary", "generator": "the given generator", "discriminator": "the given discriminator",
    "corrector": "the given corrector",
}  # fmt: skip


def open_run(folder: Path, config: Config, warn: Callable[[str], None]) -> Path | None:
    """What a run in ``folder`` starts from: the newest whole checkpoint, or None for step 0. Changes nothing.

    Raises:
        UserError: the folder holds something else, or a run of another configuration (each key, old -> new), or a run
            although ``run.resume`` is never; ``run.resume`` names no whole checkpoint.
    """
    # A status alone is of a run that has lost the rest: to begin at step 0 there would hide that.
    others = OF_A_WARM_START if (folder / run_folder.WARM_START).exists() else ()
    if runs.require_own(folder, run_folder.PRE_TRAINING, others):
        if config.run.resume == "never":
            raise UserError(f"run.dir {folder} holds a run already and run.resume is never; choose another --run.dir")
        require_same(folder, config)
    own = checkpoint.newest_valid(folder / run_folder.CHECKPOINTS, warn)
    if own or config.run.resume in ("auto", "never"):
        return own  # a run that began at another's checkpoint goes on from its own
    path = Path(config.run.resume)
    try:
        checkpoint.verify(path)
    except checkpoint.Damaged as reason:
        raise UserError(f"run.resume {path} is not a whole checkpoint: {reason}") from reason
    origin = path.resolve().parent.parent
    if (origin / run_folder.CONFIG).exists():
        require_same(origin, config)
    return path


def require_same(folder: Path, config: Config) -> None:
    """Raises UserError with each key, old -> new, unless the run in ``folder`` was started with this configuration.

    Text, vocabulary and networks may stand elsewhere than before; :func:`require_same_content` compares them.
    """
    known = recorded(folder)
    changed = difference(known, config)
    if not (folder / run_folder.CONTENT).exists():  # a run of an earlier version: only the names are known
        changed += moved(known, config)
    runs.require_unchanged(folder, changed)


def content_of(config: Config, prepared: Prepared) -> dict[str, str]:
    """A digest of each part that the run has, by the names of ``IN_WORDS``: tokens of a text, files of a network. UserError
    where a given network cannot be read."""
    found = {name: split["fingerprint"] for name, split in prepared.manifest["splits"].items()}
    found["tokenizer"] = prepared.manifest["tokenizer"]
    model = config.model
    for role in ("generator", "discriminator", "corrector"):
        source = getattr(model, role)
        if role == "generator" and config.warm_starts:
            found[role] = source
        elif source is not None:
            commit = getattr(load_config(f"model.{role}", source, model.revision), "_commit_hash", None)
            found[role] = network_fingerprint(source, commit)
    return found


def require_same_content(
    folder: Path, checkpoint: Path | None, config: Config, content: dict[str, str], log: Callable[[str], None]
) -> None:
    """Raises UserError, naming the parts that are others, where ``content`` (see :func:`content_of`) is not what the run in
    ``folder`` read, or the run of the checkpoint that it begins at. Changes nothing.

    ``log`` takes a line for each option that names another place with the same content.
    """
    for run in dict.fromkeys([folder, *([checkpoint.resolve().parent.parent] if checkpoint else [])]):
        known, changed = run_folder.read_json(run / run_folder.CONTENT), []
        for name, words in IN_WORDS.items() if known else ():  # an earlier version did not say what it read
            before, now = known.get(name), content.get(name)
            if before != now:
                how = "is new" if before is None else "is missing" if now is None else "has other content"
                changed.append(f"{words} {how}")
        runs.require_unchanged(run, changed)
    if (folder / run_folder.CONFIG).exists():
        for line in moved(recorded(folder), config):
            log(f"{line}: the same content")


def finished(folder: Path, total_steps: int) -> str | None:
    """What to tell if the run ended by itself: all steps done, or the held-out metric no longer improved."""
    status = run_folder.read_status(folder)
    if status["state"] != "done" or not (status["reason"] or status["step"] >= total_steps):
        return None
    more = "the same command with more --train.steps (or --train.epochs, --train.flops) goes on"
    return f"run.dir {folder} is finished{': ' + status['reason'] if status['reason'] else '; ' + more}"
