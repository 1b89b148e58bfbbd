"""A pair that is to be judged: from a finished run, from one that is still going on, or from two folders."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import ElectraForMaskedLM, ElectraForPreTraining, PreTrainedTokenizerFast

from electra_accel.data.manifest import MANIFEST, unknown_tokens
from electra_accel.data.prepare import Prepared
from electra_accel.errors import UserError
from electra_accel.model.loading import load_network
from electra_accel.model.pair import Pair
from electra_accel.pretraining import assemble, config_parser, model_identity, networks
from electra_accel.pretraining.config import Config, resolve
from electra_accel.runs import checkpoint, export, run_folder
from electra_accel.text.tokenizer import load_tokenizer, vocabulary_conflict
from electra_accel.text.unknown import told

Log = Callable[[str], None]


@dataclass(frozen=True)
class Judged:
    """A pair to be judged.

    Attributes:
        config: of its run; the defaults where there was none.
        weights: in words; ``step``: after which they were taken, None where that is not known.
    """

    pair: Pair
    tokenizer: PreTrainedTokenizerFast
    config: Config
    weights: str
    step: int | None = None


def run_pair(run: Path, log: Log = print) -> Judged:
    """The pair that a finished run exported, or that is in the newest whole checkpoint of another one.

    Raises:
        UserError: not a run, or one without weights or without a pair.
    """
    config = run_config(run)
    if config.is_mlm:
        raise UserError(f"--run {run}: one network was trained (objective.kind mlm), there is no pair to judge")
    discriminator, generator = (run / name for name in export.FOLDERS)
    if run_folder.read_status(run)["state"] == "done" and discriminator.is_dir() and generator.is_dir():
        weights, step = _exported_step(discriminator)
        pair = Pair(
            load_network("--run", ElectraForMaskedLM, str(generator)),
            load_network("--run", ElectraForPreTraining, str(discriminator)),
        )
        return Judged(pair, load_tokenizer(discriminator, log=log), config, f"{weights}, as exported", step)
    newest = checkpoint.newest_valid(run / run_folder.CHECKPOINTS, log)
    if newest is None:
        raise UserError(f"--run {run}: no exported pair and no checkpoint in it yet; wait for its first checkpoint")
    pair = Pair(**model_identity.networks_of(run, newest, config.model.sharing))
    step = checkpoint.verify(newest)["step"]
    weights = f"step {step}, from {newest} (the run has not ended)"
    return Judged(pair, model_identity.read_tokenizer(run), config, weights, step)


def given_pair(generator: str, discriminator: str, max_length: int, log: Log = print) -> Judged:
    """Two folders or hub ids, as they are: their embeddings need not be tied.

    Raises:
        UserError: they cannot be loaded, or do not fit together.
    """
    config = Config()
    config.model.generator, config.model.discriminator, config.data.max_length = generator, discriminator, max_length
    tokenizer = networks.given_tokenizer(config, log)
    pair = Pair(
        load_network("--generator", ElectraForMaskedLM, generator),
        load_network("--discriminator", ElectraForPreTraining, discriminator),
    )
    return Judged(pair, tokenizer, resolve(config), f"{generator} and {discriminator}")


def reference_generator(source: str, judged: Judged, max_length: int) -> ElectraForMaskedLM:
    """A generator that draws replacements for the pair's discriminator and is not judged itself.

    Raises:
        UserError: it cannot be loaded, its ids mean other tokens, or it is too short for the examples.
    """
    option = "--reference_generator"
    generator, theirs = load_network(option, ElectraForMaskedLM, source), load_tokenizer(source)
    conflict = vocabulary_conflict(judged.tokenizer, theirs)
    sizes = [(len(judged.tokenizer), judged.pair.discriminator.config.vocab_size)]
    sizes.append((len(theirs), generator.config.vocab_size))
    if conflict or sizes[0] != sizes[1]:
        number, ours, other = conflict or (None, *(f"{tokens} tokens" for tokens, _ in sizes))
        where = f"id {number} is {other!r} there and {ours!r} here" if conflict else f"{other} there and {ours} here"
        raise UserError(
            f"{option}: {source} has another vocabulary than the pair ({where}): take a generator of the same one"
        )
    positions = generator.config.max_position_embeddings
    if positions < max_length:
        raise UserError(
            f"{option}: {source} has {positions} positions, but the examples have up to {max_length} tokens"
        )
    return generator


def run_config(run: Path) -> Config:
    """The configuration of a run; UserError where there is none."""
    if not (run / run_folder.CONFIG).is_file():
        raise UserError(f"{run} is not the folder of a run: there is no {run_folder.CONFIG} in it")
    return config_parser.load(run / run_folder.CONFIG)


def held_out_identity(run: Path) -> dict:
    """held_out/held_out.json; empty for a run of before it was written."""
    return run_folder.read_json(run / run_folder.HELD_OUT / run_folder.HELD_OUT_IDENTITY)


def text_of_run(run: Path, config: Config, log: Log) -> Prepared:
    """The text that a run was trained and judged on: by its fingerprints where it is still prepared, else prepared again.

    Raises:
        UserError: it is gone, or has changed.
    """
    identity = held_out_identity(run)
    for manifest in sorted(assemble.PREPARED.glob(f"*/{MANIFEST}")) if identity else ():
        try:
            known = run_folder.read_json(manifest)
            found = known["splits"].get("held_out", {}).get("fingerprint"), known["tokenizer"]
        except (UserError, LookupError, AttributeError):
            continue  # damaged: of another text, perhaps of nobody's interest
        if found == (identity.get("data"), identity.get("tokenizer")):
            prepared = Prepared(manifest.parent)
            for line in told(unknown_tokens(prepared.manifest)):
                log(line)
            return prepared
    prepared = assemble.prepared_data(config, log)
    if identity and prepared.manifest["splits"]["held_out"]["fingerprint"] != identity.get("data"):
        raise UserError(f"the text of {run} has changed since its training: restore it, or score on --files")
    return prepared


def _exported_step(folder: Path) -> tuple[str, int | None]:
    """Which weights were exported, as the model card says it."""
    card = folder / "README.md"
    said = re.search(r"\| weights of \| (step (\d+) [^|\n]*?) *\|", card.read_text("utf-8") if card.exists() else "")
    return (said[1], int(said[2])) if said else ("the last weights", None)
