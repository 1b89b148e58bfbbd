"""A fine-tuned model as a Hugging Face folder for use: stock transformers loads it, and it predicts what was scored."""

from pathlib import Path
from typing import Any

from jinja2 import Template
from transformers import PreTrainedModel

from electra_accel.engines import state
from electra_accel.errors import UserError
from electra_accel.finetuning.heads import build
from electra_accel.finetuning.job import Job
from electra_accel.finetuning.layer_rates import layer_decay, peak_learning_rate
from electra_accel.runs import run_folder
from electra_accel.runs.export import model_card, write_networks

MODEL = "model"  # in the folder of a fine-tuning

CARD = Path(__file__).with_name("card.md.jinja")


def require_models(job: Job) -> None:
    """Raises UserError where the model of a fine-tuning is asked for that is finished without, or that no fp32 can give."""
    keeps = job.settings.run.save_models == "best"
    if keeps and (reason := job.data.kind.unsavable()):
        raise UserError(f"run.save_models best: {job.data.task.name}: {reason}")
    if keeps and job.result() and not (job.folder / MODEL).is_dir():
        raise UserError(
            f"{job.folder} is finished, and its weights are gone: run.save_models best comes too late for it; leave the option "
            "out, or move that folder away to train it again"
        )


def save_model(job: Job, checkpoint: Path, result: dict[str, Any]) -> None:
    """Write the weights of a checkpoint into ``model/`` of the job's folder, which appears whole. On the main process.

    Args:
        result: of the fine-tuning, for the model card.

    Raises:
        UserError: the head does not allow it (``Kind.finish``); no space is left.
    """
    kind, encoder, task = job.data.kind, job.encoder, job.data.task
    model = build(encoder, job.data, job.seed).eval()
    state.load_weights(model, checkpoint)
    kind.finish(model)
    model.config.problem_type = kind.problem
    about = {
        "pipeline_tag": kind.pipeline,
        "base_model": None if encoder.untrained or Path(encoder.source).exists() else encoder.source,
    }
    values = {
        "task": task.name,
        "auto": f"AutoModel{kind.head}",
        "use": Template(kind.use, keep_trailing_newline=True).render(pair=len(task.text_columns) == 2),
    }
    card = model_card(CARD, model, _facts(job, model, result), about, **values)
    with run_folder.storage_errors(job.run):
        write_networks(job.folder, {MODEL: model}, encoder.tokenizer, lambda *_: card, max_length=task.max_length)


def _facts(job: Job, model: PreTrainedModel, result: dict[str, Any]) -> dict[str, Any]:
    """For the card: names and numbers, no texts, no paths of this machine."""
    task, encoder, optim = job.data.task, job.encoder, job.settings.optim
    start = encoder.name.removeprefix("untrained-") if Path(encoder.source).exists() else encoder.source
    figures = {
        split: ", ".join(f"{name} {value:.4f}" for name, value in result[split].items() if value is not None)
        for split in ("dev", "test")
        if split in result
    }
    return {
        "kind of task": task.kind,
        "fine-tuned from": f"the shape of {start}, untrained" if encoder.untrained else start,
        "training rows": f"{result['rows']['train']:,}, cut to {task.max_length} tokens",
        "weights of": f"epoch {result['best_epoch']} of {job.settings.train.epochs}, seed {job.seed}",
        "learning rate": f"{peak_learning_rate(optim, model.config):g}, layer-wise decay {layer_decay(optim, model.config):g}",
        **figures,
    }
