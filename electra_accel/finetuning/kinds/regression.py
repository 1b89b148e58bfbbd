"""A number a text, or a pair of texts. It is learnt in units of the training labels' deviation from their mean."""

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from electra_accel.errors import UserError
from electra_accel.finetuning.kinds.kind import Kind, Row, number_in

LARGEST = 1e30  # label: the model that gives it computes in fp32, which ends at 3e38
SMALLEST = 1e-30  # difference between labels
FINEST = 1e-5  # deviation as a part of the mean that a saved model can tell; fp32 tells 6e-8 of it


class Regression(Kind):
    name = "regression"
    learns = "a number a text or pair"
    metrics = ("spearman", "pearson")
    takes = (1, 2)
    problem = "regression"
    use = Kind.use + "print(logits.squeeze(-1).tolist())  # the scores, in the units of the labels\n"

    def __init__(self, mean: float = 0.0, deviation: float = 1.0):
        super().__init__(("score",))
        self.mean, self.deviation = mean, deviation

    @classmethod
    def row(cls, cells: Sequence[Any], metric: str) -> Row:
        row = super().row(cells, metric)
        if not abs(number := number_in(row.label)) <= LARGEST:
            too_large = f"over {LARGEST:g}, too large for fp32: scale the labels down"
            said = "not a number" if math.isnan(number) else too_large
            raise UserError(f"{row.label[:40]!r} is {said} (option task.label_column, or task.kind)")
        return row

    @classmethod
    def learn(cls, splits: dict[str, list[Row]], metric: str) -> Self:
        numbers = np.array([float(row.label) for row in splits["train"]])
        if numbers.min() == numbers.max():  # their deviation may be a rounding error, not 0
            raise UserError(f"all training labels are {numbers[0]}: nothing to learn (option task.label_column)")
        if numbers.std() < SMALLEST:
            raise UserError(f"the training labels differ by less than {SMALLEST:g}, too little for fp32: scale them up")
        return cls(float(numbers.mean()), float(numbers.std()))

    def target(self, label: str) -> np.float32:
        return np.float32((float(label) - self.mean) / self.deviation)

    def loss_sum(self, logits, targets):
        from torch.nn.functional import mse_loss

        return mse_loss(logits.float().squeeze(-1), targets, reduction="sum")

    def outputs(self, logits, targets) -> list[np.ndarray]:
        return list(logits.float().squeeze(-1).cpu().numpy())

    def prediction(self, row: Row, output: np.ndarray, words: None) -> dict[str, Any]:
        return {"label": float(row.label), "predicted": float(output) * self.deviation + self.mean}

    def scores(self, labels: list[float], predicted: list[float]) -> dict[str, float]:
        from scipy.stats import pearsonr, spearmanr

        if len(labels) < 2:
            return dict.fromkeys(self.metrics, math.nan)
        return {"spearman": spearmanr(labels, predicted).statistic, "pearson": pearsonr(labels, predicted).statistic}

    def unsavable(self) -> str:
        if self.deviation >= FINEST * abs(self.mean):
            return ""
        return (
            f"the labels are {self.mean:g} on average and differ by {self.deviation:g} from it, finer than a saved model can "
            "tell in fp32: take their mean away from them first"
        )

    def finish(self, model) -> None:
        """Scale the head's last layer, so that the model gives the score itself."""
        import torch

        from electra_accel.model.reading import is_encoder

        head = [part for name, part in model.named_modules() if not is_encoder(name, model)]
        last = next((part for part in reversed(head) if isinstance(part, torch.nn.Linear)), None)
        if last is None or last.out_features != 1 or last.bias is None:
            raise UserError(
                f"models: the head of {type(model).__name__} cannot be saved for a regression: leave run.save_models out"
            )
        with torch.no_grad():
            last.bias.copy_(last.bias.double() * self.deviation + self.mean)
            last.weight.copy_(last.weight.double() * self.deviation)
