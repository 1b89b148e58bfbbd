"""Exports: of a run at its end, and of any of its checkpoints at any time; and what the model card says of them."""

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from transformers import CONFIG_NAME

from electra_accel.engines.engine import Engine
from electra_accel.errors import UserError
from electra_accel.pretraining import config_parser, model_identity
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.cost import cost_text, vocabulary_text, warm_start_cost
from electra_accel.pretraining.progress import Progress
from electra_accel.runs import checkpoint, run_folder
from electra_accel.runs.export import WHAT, export_networks
from electra_accel.terminal import duration

# The figures in a card, in Markdown: of the folder of a run, a step, the name of a network, and a folder with its weights.
Figures = Callable[[Path, int, str, Path], str]


def export_run(
    config: Config, engine: Engine, progress: Progress, folder: Path, figures: Figures, warn: Callable[[str], None]
) -> int:
    """Export the last weights of a run, or, where ``eval.patience`` chose a best step, those. Called on every process.

    Returns:
        The step of the exported weights.
    """
    step, best = progress.step, progress.best_step
    checkpoints = folder / run_folder.CHECKPOINTS
    which = f"step {step} (the last)"
    if config.eval.patience and best != step:
        if engine.on_main(lambda: _is_whole(checkpoint.path_of(checkpoints, best), warn)):
            which, step = f"step {best} (the best by {config.eval.metric})", best

    def write() -> None:
        # From the checkpoint, because under some engines no process holds whole weights.
        with run_folder.storage_errors(folder):
            export_checkpoint(checkpoint.path_of(checkpoints, step), folder, figures, which=which)

    engine.on_main(write)
    return step


def checkpoint_to_export(given: Path, warn: Callable[[str], None]) -> Path:
    """``given`` itself where it is a checkpoint, the newest whole one where it is a run's folder.

    Raises:
        UserError: neither, or none that is whole.
    """
    if not given.exists() and given.parent.name != run_folder.CHECKPOINTS:
        raise UserError(f"there is no folder {given}")
    if (
        any((given / name / CONFIG_NAME).is_file() for name in ("", *WHAT))
        and not (given / run_folder.CONFIG).is_file()
    ):
        raise UserError(f"{given} is an export already: stock transformers loads it; to export again, name its run")
    if (given / run_folder.CONFIG).is_file():
        newest = checkpoint.newest_valid(given / run_folder.CHECKPOINTS, warn)
        if newest is None:
            raise UserError(f"{given} has no checkpoint yet; wait for its first one")
        return newest
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
    which: str | None = None,
    licence: str | None = None,
    source: str = "",
) -> list[str]:
    """Export a verified checkpoint that stands in its run folder; the run may go on meanwhile.

    Args:
        path: runs/x/checkpoints/step-…
        to: the folder in which discriminator/ and generator/, or encoder/, are made.
        figures: a part of the cards.
        which: step of the weights in words, for the card.
        licence, source: as for ``export.export_networks``.

    Returns:
        The names of the exported folders.

    Raises:
        UserError: the checkpoint has no run folder around it, or went away.
        OSError: ``to`` cannot be written.
    """
    folder = path.resolve().parent.parent
    if not (folder / run_folder.CONFIG).is_file():
        raise UserError(f"{path} stands in no run folder: its configuration is not known; export it from there")
    config = config_parser.load(folder / run_folder.CONFIG)
    try:
        progress = _progress(path)
        networks = model_identity.networks_of(folder, path, config.model.sharing)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} went away while it was read: the run keeps only its newest checkpoints (checkpoint.keep); start again"
        ) from error
    if "network" in networks:  # one alone: a baseline's encoder, or a generator that is warm-started
        networks = {"generator" if config.warm_starts else "encoder": networks["network"]}
    starts = {"generator": None if config.warm_starts else config.model.generator}
    starts |= dict.fromkeys(("discriminator", "encoder"), config.model.discriminator)
    to.mkdir(parents=True, exist_ok=True)
    export_networks(
        to,
        networks,
        model_identity.read_tokenizer(folder),
        _facts(config, folder, progress, which or f"step {progress.step} (a checkpoint)", licence),
        figures=lambda name, exported: figures(folder, progress.step, name, exported),
        licence=licence,
        base_models={name: start for name, start in starts.items() if start and not Path(start).exists()},
        source=source,
    )
    return list(networks)


def _facts(config: Config, folder: Path, progress: Progress, which: str, licence: str | None) -> dict[str, str]:
    """What the model card says: names and numbers, no text of the corpus, no paths of this machine."""
    data, model, objective = config.data, config.model, config.objective
    counts, warm_start = model_identity.read_text_counts(folder), warm_start_cost(folder)
    precision = run_folder.read_json(folder / run_folder.ENVIRONMENT).get("precision")
    read = data.dataset or ", ".join(Path(name).name for name in data.train_files or [data.prepared])
    facts = {
        "weights of": which,
        "started from": _start(config),
        "training text": f"{read}: {counts['train']['documents']:,} documents, {counts['train']['tokens']:,} tokens",
        "general text mixed in": None,
        "warm start of the generator": None,
        "vocabulary": None,
        "tokens seen": f"{progress.tokens:,} in {progress.step:,} steps of {config.train.batch_tokens:,} token slots",
        "training time": f"{duration(progress.seconds)}, {duration(progress.device_seconds)} summed over processes",
        "objective": f"{'masked language modelling' if config.is_mlm else 'replaced token detection'}; "
        f"{objective.mask_prob:.0%} of the tokens selected, by {objective.mask_unit}",
        "embeddings of the two networks": None if config.is_mlm else model.sharing,
        "precision": {"no": "fp32"}.get(precision, precision),
        "licence": licence or "not stated",
    }
    if counts.get("vocabulary"):
        facts["vocabulary"] = vocabulary_text(counts["vocabulary"])
    if (
        config.warm_starts and not config.is_mlm
    ):  # its record is not in the folder of a run that began at another's checkpoint
        cost = f"{cost_text(warm_start)}, beside the run's" if warm_start else "its cost was not recorded"
        facts["warm start of the generator"] = f"{model.warm_start_steps:,} steps: {cost}"
    if "replay" in counts:  # with data.prepared the files have no names here
        names = ", ".join(Path(name).name for name in data.replay_files or [])
        mixed_in = f"{counts['replay']['documents']:,} documents, {data.replay_fraction:.0%} of the tokens of a pass"
        facts["general text mixed in"] = f"{names}: {mixed_in}" if names else mixed_in
    return {name: value for name, value in facts.items() if value}


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


def _progress(path: Path) -> Progress:
    return Progress.from_json(checkpoint.read_state(path))


def _is_whole(path: Path, warn: Callable[[str], None]) -> bool:
    try:
        checkpoint.verify(path)
    except checkpoint.Damaged as reason:
        warn(f"the best checkpoint {path} is damaged ({reason}): the last weights are exported instead")
        return False
    return True
