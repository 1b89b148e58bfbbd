"""The end of a run: which weights are exported, and what the model card says of them."""

from collections.abc import Callable
from pathlib import Path

from torch import nn
from transformers import ElectraForMaskedLM, ElectraForPreTraining

from electra_accel import run_folder
from electra_accel.config import Config
from electra_accel.data.prepare import Prepared
from electra_accel.export import export_pair
from electra_accel.model.pair import Pair
from electra_accel.model.sharing import tie_embeddings
from electra_accel.training import checkpoint, sharded
from electra_accel.training.engine import Engine
from electra_accel.training.progress import Progress


def export_run(
    config: Config, engine: Engine, progress: Progress, prepared: Prepared, folder: Path, warn: Callable[[str], None]
) -> dict[str, float]:
    """Export the last weights of a run, or, where ``eval.patience`` chose a best step, those. Called on every process.

    Returns:
        The held-out figures of the exported weights.
    """
    which, figures = f"step {progress.step} (the last)", progress.last
    source, best = (
        checkpoint.path_of(folder / run_folder.CHECKPOINTS, step) for step in (progress.step, progress.best_step)
    )
    if config.eval.patience and best != source and engine.on_main(lambda: _is_whole(best, warn)):
        which, figures = f"step {progress.best_step} (the best by {config.eval.metric})", progress.best_figures
        source = best
    train = prepared.manifest["splits"]["train"]
    facts = {
        "weights of": which,
        "training text": f"{train['documents']:,} documents, {train['tokens']:,} tokens",
        "tokens seen": f"{progress.tokens:,} in {progress.step:,} steps of {config.train.batch_tokens:,} token slots",
        "precision": engine.precision,
        **{f"held-out {name}": f"{figures[f'eval/{name}']:.4f}" for name in ("generator_accuracy", "auc")},
    }

    model = engine.unwrapped()

    def write() -> None:
        # From the checkpoint, because under some engines no process holds whole weights.
        pair = Pair(ElectraForMaskedLM(model.generator.config), ElectraForPreTraining(model.discriminator.config))
        tie_embeddings(*pair)
        sharded.load_weights(nn.ModuleDict(pair._asdict()), source)
        with run_folder.storage_errors(folder):
            export_pair(folder, *pair, prepared.tokenizer, facts)

    engine.on_main(write)
    return figures


def _is_whole(path: Path, warn: Callable[[str], None]) -> bool:
    try:
        checkpoint.verify(path)
    except checkpoint.Damaged as reason:
        warn(f"the best checkpoint {path} is damaged ({reason}): the last weights are exported instead")
        return False
    return True
