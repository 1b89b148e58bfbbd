"""From a model's outputs to predictions, and from predictions to the figures of scikit-learn, scipy and seqeval."""

import math
import warnings
from itertools import chain
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from electra_accel.finetuning.labels import ENTITY_TAG, OUTSIDE
from electra_accel.finetuning.rows import Row
from electra_accel.finetuning.tasks import IGNORED, Encoded, TaskData


def loss_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over the targets: cross-entropy, or the squared error of numbers.

    Args:
        logits: [rows, labels], tagging [rows, length, labels], regression [rows, 1]; any floating dtype.
        targets: [rows] or [rows, length] int64 with IGNORED; regression float32 [rows].

    Returns:
        0-d, float32.
    """
    if targets.is_floating_point():
        return functional.mse_loss(logits.float().squeeze(-1), targets, reduction="sum")
    flat = logits.float().flatten(end_dim=-2)
    return functional.cross_entropy(flat, targets.flatten(), ignore_index=IGNORED, reduction="sum")


def outputs(logits: Tensor, targets: Tensor) -> list[np.ndarray]:
    """What is kept of each row: probabilities [labels]; a number in scaled units; the best tag of each target but IGNORED.

    Where the logits are no numbers (NaN), so are these; of a tag, which is a whole number, -1 says it.
    """
    if targets.is_floating_point():
        return list(logits.float().squeeze(-1).cpu().numpy())
    if targets.ndim == 1:
        return list(logits.float().softmax(-1).cpu().numpy())
    best, known = logits.argmax(-1), (targets != IGNORED).cpu().numpy()
    best = best.masked_fill(logits.isnan().any(-1), -1).cpu().numpy()
    return [row[mask] for row, mask in zip(best, known, strict=True)]


def are_numbers(found: list[np.ndarray]) -> bool:
    """Whether all ``outputs`` are."""
    return all(np.isfinite(output).all() and (output.dtype.kind == "f" or (output >= 0).all()) for output in found)


def predictions(found: list[np.ndarray], rows: list[Row], encoded: Encoded, data: TaskData) -> list[dict[str, Any]]:
    """One record a row, as it stands in the predictions' file: ``row`` from 1, ``label``, ``predicted``, and ``probability``
    where labels are chosen. A word that has no token, or that was cut off, is predicted as outside."""
    records = []
    for i, (output, row) in enumerate(zip(found, rows, strict=True)):
        record: dict[str, Any] = {"row": i + 1, "label": row.label}
        if data.task.kind == "regression":
            record |= {"label": float(row.label), "predicted": float(output) * data.deviation + data.mean}
        elif data.task.kind == "tagging":
            tags = [OUTSIDE] * len(row.label)
            for word, tag in zip(encoded.words[i], output, strict=True):
                tags[word] = data.labels[tag]
            record["predicted"] = tags
        else:
            best = int(output.argmax())
            record |= {"predicted": data.labels[best], "probability": round(float(output[best]), 6)}
        records.append(record)
    return records


def figures(records: list[dict[str, Any]], kind: str) -> dict[str, float | None]:
    """Every figure of ``settings.METRICS`` for a kind of task; None where it is not defined (a constant prediction).

    Of tags that are no entities' (parts of speech) there is the accuracy only.
    """
    # Imported here: together they take seconds, which --help and mistakes should not wait for.
    import seqeval.metrics
    from scipy import stats
    from sklearn import metrics

    labels, predicted = [record["label"] for record in records], [record["predicted"] for record in records]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels that are never predicted, and of constant predictions
        if kind == "regression":
            found = {
                "spearman": stats.spearmanr(labels, predicted).statistic if len(labels) > 1 else math.nan,
                "pearson": stats.pearsonr(labels, predicted).statistic if len(labels) > 1 else math.nan,
            }
        elif kind == "tagging":
            right, guessed = list(chain(*labels)), list(chain(*predicted))
            found = {}
            if all(ENTITY_TAG.fullmatch(tag) for tag in set(right)):
                labels, predicted = ([list(map(_as_iobes, tags)) for tags in each] for each in (labels, predicted))
                found = {
                    "entity_f1": seqeval.metrics.f1_score(labels, predicted),
                    "entity_precision": seqeval.metrics.precision_score(labels, predicted),
                    "entity_recall": seqeval.metrics.recall_score(labels, predicted),
                }
            found["accuracy"] = metrics.accuracy_score(right, guessed)
        else:
            found = {
                "accuracy": metrics.accuracy_score(labels, predicted),
                "macro_f1": metrics.f1_score(labels, predicted, average="macro"),
                "matthews": metrics.matthews_corrcoef(labels, predicted),
            }
    return {name: float(value) if math.isfinite(value) else None for name, value in found.items()}


def _as_iobes(tag: str) -> str:
    """seqeval knows BILOU's tags of a last and of a lone word in its strict modes only, and there refuses the other schemes."""
    return {"L-": "E-", "U-": "S-"}.get(tag[:2], tag[:2]) + tag[2:]
