"""Exports of a run at its end, and of any of its checkpoints at any time; and what the exported folders say of themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from safetensors import SafetensorError
from transformers import CONFIG_NAME

from electra_accel import __version__
from electra_accel.engines.engine import Engine
from electra_accel.errors import UserError
from electra_accel.model.reading import is_path
from electra_accel.pretraining import config_parser, model_identity
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.cost import cost_text, vocabulary_text, warm_start_cost
from electra_accel.pretraining.progress import Progress
from electra_accel.runs import checkpoint, run_folder
from electra_accel.runs.export import ORIGIN, WHAT, model_card, repository, write_networks
from electra_accel.terminal import duration

CARD = Path(__file__).with_name("card.md.jinja")
# Figures that belong to a network, under the names of the hub.
METRICS = {"discriminator": ["roc_auc"]} | dict.fromkeys(("generator", "corrector", "encoder"), ["accuracy"])

# The figures in a card, in Markdown: of the folder of a run, a step, the name of a network, and a folder with its weights.
Figures = Callable[[Path, int, str, Path], str]
Log = Callable[[str], None]


def export_run(config: Config, engine: Engine, progress: Progress, folder: Path, figures: Figures, warn: Log) -> int:
    """Export the last weights of a run, or, where ``eval.patience`` chose a best step, those. Called on every process.

    Returns:
        The step of the exported weights.
    """

    def write() -> int:
        checkpoints = folder / run_folder.CHECKPOINTS
        step, chosen, best = progress.step, "the last", checkpoint.path_of(checkpoints, progress.best_step)
        if config.eval.patience and progress.best_step != step:
            try:
                checkpoint.verify(best)
                step, chosen = progress.best_step, f"the best by {config.eval.metric}"
            except checkpoint.Damaged as reason:
                warn(f"the best checkpoint {best} is damaged ({reason}): the last weights are exported instead")
        # From the checkpoint, because under some engines no process holds whole weights.
        with run_folder.storage_errors(folder):
            made = export_checkpoint(checkpoint.path_of(checkpoints, step), folder, figures, chosen=chosen)
        for name in WHAT.keys() - made:  # of an earlier run here, beside which nobody may take it
            if (folder / name / ORIGIN).is_file() and (left := run_folder.discard(folder / name)):
                warn(f"{left}; it is of an earlier run")
        return step

    return engine.on_main(write)


def checkpoint_to_export(given: Path, warn: Log) -> Path:
    """``given`` itself where it is a checkpoint, the newest whole one where it is a run's folder.

    Raises:
        UserError: neither, or none that is whole.
    """
    if not given.exists() and given.parent.name != run_folder.CHECKPOINTS:
        raise UserError(f"there is no folder {given}")
    if (given / run_folder.CONFIG).is_file():
        if newest := checkpoint.newest_valid(given / run_folder.CHECKPOINTS, warn):
            return newest
        run_folder.require_pre_training(given)
        raise UserError(f"{given} has no checkpoint yet; wait for its first one")
    if any((given / name / CONFIG_NAME).is_file() for name in ("", *WHAT)):
        raise UserError(f"{given} is an export already: stock transformers loads it; to export again, name its run")
    try:
        checkpoint.verify(given)
    except checkpoint.Damaged as reason:
        raise UserError(
            f"{given} is neither the folder of a run nor a whole checkpoint ({reason}); a run that goes on keeps only its "
            "newest ones (checkpoint.keep): name the run's folder"
        ) from reason
    return given


def export_checkpoint(
    path: Path,
    to: Path,
    figures: Figures = lambda *_: "",
    *,
    chosen: str = "a checkpoint",
    licence: str | None = None,
    source: str = "",
) -> list[str]:
    """Export a verified checkpoint that stands in its run folder; the run may go on meanwhile.

    Args:
        path: runs/x/checkpoints/step-…
        to: the folder in which discriminator/ and generator/, with a corrective head corrector/ too, or encoder/, are made.
        figures: a part of the cards.
        chosen: why these weights, in words.
        licence: of the weights, an identifier of the hub such as apache-2.0; None: not stated.
        source: repository on the hub that the cards' code loads from, as ``push_to_hub`` names it; "": the folder.

    Returns:
        The names of the exported folders.

    Raises:
        UserError: the checkpoint has no run folder around it, or went away; a file of the run is damaged.
        OSError: ``to`` cannot be written.
    """
    folder = path.resolve().parent.parent
    if not (folder / run_folder.CONFIG).is_file():
        raise UserError(
            f"{path} is not in a run folder, so its configuration is not known: export it from its run folder"
        )
    config = config_parser.recorded(folder)
    try:
        progress = Progress.from_json(checkpoint.read_state(path))
        networks = model_identity.networks_of(folder, path, config.model.sharing)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} went away while it was read: the run keeps only its newest checkpoints (checkpoint.keep); start again"
        ) from error
    if "network" in networks:  # one alone: a baseline's encoder, or a generator that is warm-started
        networks = {"generator" if config.warm_starts else "encoder": networks["network"]}
    to.mkdir(parents=True, exist_ok=True)
    origin = _origin(config, folder, progress, chosen, licence)

    def card(name: str, exported: Path) -> ModelCard:
        about = {
            "license": licence,
            "base_model": origin["base_models"].get(name),
            "metrics": METRICS[name],
            "tags": ["electra", "masked-language-modelling" if name == "encoder" else "replaced-token-detection"],
        }
        values = {
            "name": name,
            "what": WHAT[name],
            "figures": figures(folder, progress.step, name, exported),
            "source": f'"{repository(source, name)}"' if source else '"."  # this folder',
            "positions": networks[name].config.max_position_embeddings,
            "origin_file": ORIGIN,
        }
        return model_card(CARD, networks[name], origin["facts"], about, **values)

    write_networks(to, networks, model_identity.read_tokenizer(folder), card, origin=origin)
    return list(networks)


def _origin(config: Config, folder: Path, progress: Progress, chosen: str, licence: str | None) -> dict[str, Any]:
    """What ``electra_accel.json`` and the model card say: names and numbers, no text of the corpus, no paths of this machine.

    ``content`` names by digests what was read, ``held_out`` what ``figures`` were taken on; both as in the run's folder.
    ``figures`` are those of this very step, empty where it was not judged.
    """
    start = {"generator": None if config.warm_starts else config.model.generator}
    same_encoder = ("discriminator", "encoder", *["corrector"] * config.is_corrective)
    start |= dict.fromkeys(same_encoder, config.model.discriminator)
    held_out = sorted((folder / run_folder.HELD_OUT).glob("*.json"))
    known = [record.items() for record in run_folder.read_jsonl(folder / run_folder.METRICS, {progress.step})]
    figures = {key: value for record in known for key, value in record if key.startswith(("eval", "general"))}
    figures.pop("eval/calibration", None)
    return {
        "version": __version__,
        "run": folder.name,
        "run_id": progress.run_id,
        "step": progress.step,
        "chosen": chosen,
        "licence": licence,
        "base_models": {
            name: given for name, given in start.items() if given and not (is_path(given) or Path(given).exists())
        },
        "facts": {name: fact for name, fact in _facts(config, folder, progress, chosen, licence).items() if fact},
        "content": run_folder.read_json(folder / run_folder.CONTENT),
        "held_out": {file.stem: run_folder.read_json(file) for file in held_out},
        "figures": figures,
    }


def _facts(config: Config, folder: Path, progress: Progress, chosen: str, licence: str | None) -> dict[str, str | None]:
    """In words, by heading; None of what this run does not have."""
    data, model, objective = config.data, config.model, config.objective
    counts, mixed_in, warm_start = model_identity.read_text_counts(folder), None, None
    learnt = "masked language modelling" if config.is_mlm else "replaced token detection"
    if config.is_corrective:
        learnt += f", and naming the original tokens with weight {objective.corrective_weight:g}"
    precision = run_folder.read_json(folder / run_folder.ENVIRONMENT).get("precision")
    read = data.dataset or ", ".join(Path(name).name for name in data.train_files or [data.prepared])
    if "replay" in counts:  # with data.prepared the files have no names here
        names = ", ".join(Path(name).name for name in data.replay_files or [])
        mixed_in = f"{names}: " if names else ""
        mixed_in += f"{counts['replay']['documents']:,} documents, {data.replay_fraction:.0%} of the tokens of a pass"
    if config.warm_starts and not config.is_mlm:  # the folder of a run that began at another's checkpoint has no record
        spent = warm_start_cost(folder)
        cost = f"{cost_text(spent)}, beside the run's" if spent else "its cost was not recorded"
        warm_start = f"{model.warm_start_steps:,} steps: {cost}"
    return {
        "weights of": f"step {progress.step} ({chosen})",
        "started from": _start(config),
        "training text": f"{read}: {counts['train']['documents']:,} documents, {counts['train']['tokens']:,} tokens",
        "general text mixed in": mixed_in,
        "warm start of the generator": warm_start,
        "vocabulary": vocabulary_text(counts["vocabulary"]) if counts.get("vocabulary") else None,
        "tokens seen": f"{progress.tokens:,} in {progress.step:,} steps of {config.train.batch_tokens:,} token slots",
        "training time": f"{duration(progress.seconds)}, {duration(progress.device_seconds)} summed over processes",
        "objective": f"{learnt}; {objective.mask_prob:.0%} of the tokens selected, by {objective.mask_unit}",
        "embeddings of the two networks": None if config.is_mlm else model.sharing,
        "precision": {"no": "fp32"}.get(precision, precision),
        "licence": licence or "not stated",
    }


def _start(config: Config) -> str:
    """The networks that a run started from: hub ids as they are, folders by their last two parts."""
    model = config.model
    if not config.from_pair:
        return f"random weights, size {model.size}"
    names = {name: "/".join(Path(getattr(model, name) or "").parts[-2:]) for name in ("discriminator", "generator")}
    if config.warm_starts:
        names["generator"] = "none, one was trained first"
    elif config.is_mlm:
        names.pop("generator")
    revision = f" (revision {model.revision})" if model.revision else ""
    return ", ".join(f"{name} {source}" for name, source in names.items()) + revision
