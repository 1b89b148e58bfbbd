"""A fine-tuned model as a Hugging Face folder for use: stock transformers loads it, and it predicts what was scored.

A regression is learnt in units of the training labels' deviation from their mean; that is folded into the head here, so that
the saved model gives the score itself.
"""

import copy
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData
from torch import nn
from transformers import PreTrainedModel

from electra_accel.engines import sharded
from electra_accel.errors import UserError
from electra_accel.finetuning.heads import build, is_encoder
from electra_accel.finetuning.job import Job
from electra_accel.finetuning.layer_rates import layer_decay, peak_learning_rate
from electra_accel.runs import run_folder
from electra_accel.runs.export import in_a_cell
from electra_accel.text.tokenizer import save_tokenizer

FINEST = 1e-5  # part of a label's size; fp32 tells 6e-8 of it
MODEL = "model"  # in the folder of a fine-tuning

CARD = """\
---
{{ card_data }}
---

# {{ task }}

`{{ architecture }}`, fine-tuned with electra-accel.

| | |
|---|---|
{% for key, value in facts.items() %}| {{ key }} | {{ value }} |
{% endfor %}
Test was scored once, with the epoch that dev chose. One seed: others differ.

## Use it

With stock transformers:

```python
import torch
from transformers import {{ auto }}, AutoTokenizer

source = "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(source)
model = {{ auto }}.from_pretrained(source).eval()
{% if kind == "tagging" %}
words = ["a", "text", "in", "words"]
inputs = tokenizer(words, is_split_into_words=True, truncation=True, return_tensors="pt")
with torch.no_grad():
    best = model(**inputs).logits[0].argmax(-1).tolist()
word_of = inputs.word_ids()  # the tag of a word is that of its first token
first = [i for i, word in enumerate(word_of) if word is not None and word != word_of[i - 1]]
print([(words[word_of[i]], model.config.id2label[best[i]]) for i in first])
{% else %}
{% if pair %}texts = ["one text", "another"], ["its partner", "the other's"]
{% else %}texts = (["one text", "another"],)
{% endif %}inputs = tokenizer(*texts, padding=True, truncation=True, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
{% if kind == "regression" %}print(logits.squeeze(-1).tolist())  # the scores, in the units of the labels
{% else %}print([model.config.id2label[i] for i in logits.argmax(-1).tolist()], logits.softmax(-1).tolist())
{% endif %}{% endif %}```
"""


def require_models(job: Job) -> None:
    """Raises UserError where the model of a fine-tuning is asked for that is finished without, or that no fp32 can give."""
    data, keeps = job.data, job.settings.run.save_models == "best"
    if keeps and data.deviation < FINEST * abs(data.mean):
        raise UserError(
            f"run.save_models best: {data.task.name}: the labels are {data.mean:g} on average and differ by {data.deviation:g} "
            "from it, finer than a saved model can tell in fp32: take their mean away from them first"
        )
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
        UserError: the head is none that a regression can be folded into; no space is left.
    """
    kind = job.data.task.kind
    model = build(job.encoder, job.data, job.seed).eval()
    sharded.load_weights(model, checkpoint)
    if kind == "regression":
        fold(model, job.data.mean, job.data.deviation)
    if kind != "tagging":
        model.config.problem_type = "regression" if kind == "regression" else "single_label_classification"
    auto = "AutoModelForTokenClassification" if kind == "tagging" else "AutoModelForSequenceClassification"
    card = ModelCard.from_template(
        ModelCardData(
            library_name="transformers",
            pipeline_tag="token-classification" if kind == "tagging" else "text-classification",
            base_model=None if job.encoder.untrained or Path(job.encoder.source).exists() else job.encoder.source,
        ),
        template_str=CARD,
        task=job.data.task.name,
        kind=kind,
        pair=len(job.data.task.text_columns) == 2,
        architecture=type(model).__name__,
        auto=auto,
        facts={key: in_a_cell(str(value)) for key, value in _facts(job, model, result).items()},
    )
    tokenizer, partial = copy.deepcopy(job.encoder.tokenizer), job.folder / f".{MODEL}.partial"
    tokenizer.model_max_length = job.data.task.max_length
    with run_folder.storage_errors(job.run):
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(partial)
        save_tokenizer(tokenizer, partial)
        card.save(partial / "README.md")
        run_folder.replace_folder(partial, job.folder / MODEL)


@torch.no_grad()
def fold(model: PreTrainedModel, mean: float, deviation: float) -> None:
    """Scale the head's last layer in place, so that the model gives ``deviation * score + mean`` where it gave ``score``.

    Raises:
        UserError: its head does not end in a linear layer with a bias and one output.
    """
    layers = [
        layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and not is_encoder(name, model)
    ]
    if not layers or layers[-1].out_features != 1 or layers[-1].bias is None:
        raise UserError(
            f"models: the head of {type(model).__name__} cannot be saved for a regression: leave run.save_models out"
        )
    last = layers[-1]
    last.bias.copy_(last.bias.double() * deviation + mean)
    last.weight.copy_(last.weight.double() * deviation)


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
