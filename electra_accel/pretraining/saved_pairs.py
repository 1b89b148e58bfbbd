"""Opens saved pairs: of a finished run, of one that still goes on, or two folders; and the text that a run was judged on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import ElectraForMaskedLM, ElectraForPreTraining, PreTrainedTokenizerFast

from electra_accel.data.manifest import MANIFEST, unknown_tokens
from electra_accel.data.prepare import Prepared
from electra_accel.errors import UserError
from electra_accel.model.corrective import require_same_encoder
from electra_accel.model.loading import load_network
from electra_accel.model.pair import Pair
from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.pretraining import assemble, config_parser, model_identity, networks
from electra_accel.pretraining.config import Config, resolve
from electra_accel.runs import checkpoint, run_folder
from electra_accel.runs.export import corrector_beside, exported_weights
from electra_accel.text.tokenizer import load_tokenizer, vocabulary_conflict
from electra_accel.text.unknown import told

Log = Callable[[str], None]


@dataclass(frozen=True)
class SavedPair:
    """A pair to be judged."""

    pair: Pair
    tokenizer: PreTrainedTokenizerFast
    config: Config  # of its run; the defaults where there was none
    weights: str  # in words
    step: int | None = None  # after which they were taken, where that is known
    corrector: ElectraForMaskedLM | None = None  # the discriminator's encoder under its corrective head

    def module(self) -> ReplacedTokenDetection:
        """What was trained, as one module."""
        how = dict(temperature=self.config.objective.temperature, corrective=self.corrector is not None)
        module = ReplacedTokenDetection(*self.pair, **how)
        if self.corrector:
            module.corrector.load(self.corrector)
        return module


def run_pair(run: Path, log: Log = print) -> SavedPair:
    """The pair that a finished run exported, or that is in the newest whole checkpoint of another one; UserError where there is
    none, or a file is damaged."""
    config = run_config(run)
    if config.is_mlm:
        raise UserError(f"--run {run}: one network was trained (objective.kind mlm), there is no pair to judge")
    generator, discriminator = run / "generator", run / "discriminator"
    if run_folder.read_status(run)["state"] == "done" and discriminator.is_dir() and generator.is_dir():
        weights, step = exported_weights(discriminator)
        pair, corrector = _load("--run", str(generator), "--run", str(discriminator), log)
        tokenizer = load_tokenizer(discriminator, log=log)
        return SavedPair(pair, tokenizer, config, f"{weights}, as exported", step, corrector)
    newest = checkpoint.newest_valid(run / run_folder.CHECKPOINTS, log)
    if newest is None:
        raise UserError(f"--run {run}: no exported pair and no checkpoint in it yet; wait for its first checkpoint")
    networks_there = model_identity.networks_of(run, newest, config.model.sharing)
    pair = Pair(networks_there["generator"], networks_there["discriminator"])
    step = checkpoint.verify(newest)["step"]
    weights = f"step {step}, from {newest} (the run has not ended)"
    corrector = networks_there.get("corrector")
    return SavedPair(pair, model_identity.read_tokenizer(run), config, weights, step, corrector)


def given_pair(generator: str, discriminator: str, max_length: int, log: Log = print) -> SavedPair:
    """Two folders or hub ids, as they are: their embeddings need not be tied. UserError where they do not fit together."""
    config = Config()
    config.model.generator, config.model.discriminator, config.data.max_length = generator, discriminator, max_length
    tokenizer = networks.given_tokenizer(config, log)
    pair, corrector = _load("--generator", generator, "--discriminator", discriminator, log)
    weights = f"{generator} and {discriminator}"
    return SavedPair(pair, tokenizer, resolve(config), weights, corrector=corrector)


def _load(
    option: str, generator: str, other_option: str, discriminator: str, log: Log
) -> tuple[Pair, ElectraForMaskedLM | None]:
    """A pair, and the corrector beside the discriminator's folder. ``log`` is told why one that is there cannot be used."""
    mine = load_network(option, ElectraForMaskedLM, generator)
    pair, corrector = Pair(mine, load_network(other_option, ElectraForPreTraining, discriminator)), None
    if beside := corrector_beside(discriminator):
        try:
            found = load_network(other_option, ElectraForMaskedLM, beside)
            require_same_encoder(found, pair.discriminator, f"{other_option}: {beside}")
            corrector = found
        except UserError as error:
            log(f"judged without the corrector beside the discriminator: {error}")
    return pair, corrector


def reference_generator(source: str, saved: SavedPair, max_length: int) -> ElectraForMaskedLM:
    """A generator that draws replacements for the pair's discriminator and is not judged itself. UserError where it cannot be
    loaded, its ids mean other tokens, or it is too short for the examples."""
    option, where = f"--reference_generator: {source}", ""
    generator, theirs = load_network("--reference_generator", ElectraForMaskedLM, source), load_tokenizer(source)
    here = len(saved.tokenizer), saved.pair.discriminator.config.vocab_size
    if conflict := vocabulary_conflict(saved.tokenizer, theirs):
        number, ours, other = conflict
        where = f"id {number} is {other!r} there and {ours!r} here"
    elif here != (len(theirs), generator.config.vocab_size):
        where = f"{len(theirs)} tokens there and {here[0]} tokens here"
    if where:
        raise UserError(f"{option} has another vocabulary than the pair ({where}): take a generator of the same one")
    positions = generator.config.max_position_embeddings
    if positions < max_length:
        raise UserError(f"{option} has {positions} positions, but the examples have up to {max_length} tokens")
    return generator


def run_config(run: Path) -> Config:
    """The configuration of a run; UserError where there is none."""
    if not (run / run_folder.CONFIG).is_file():
        raise UserError(f"{run} is not the folder of a run: there is no {run_folder.CONFIG} in it")
    return config_parser.recorded(run)


def held_out_identity(run: Path) -> dict:
    """held_out/held_out.json; empty for a run of before it was written."""
    return run_folder.read_json(run / run_folder.HELD_OUT / run_folder.HELD_OUT_IDENTITY)


def text_of_run(run: Path, config: Config, log: Log) -> Prepared:
    """The text that a run was trained and judged on: by its fingerprints where it is still prepared, else prepared again.
    UserError where it is gone, or has changed."""
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
        raise UserError(f"the text of {run} has changed since its training: restore it, or use --files")
    return prepared
