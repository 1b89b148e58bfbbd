"""One label a text."""

import math
from decimal import Decimal
from typing import Self

from electra_accel.errors import UserError
from electra_accel.finetuning.kinds.kind import Kind, Row, number_in


class Classification(Kind):
    name = "classification"
    learns = "one label a text"
    metrics = ("accuracy", "macro_f1", "matthews")
    problem = "single_label_classification"
    use = (
        Kind.use
        + "print([model.config.id2label[i] for i in logits.argmax(-1).tolist()], logits.softmax(-1).tolist())\n"
    )

    @classmethod
    def learn(cls, splits: dict[str, list[Row]], metric: str) -> Self:
        labels, rows = {row.label for row in splits["train"]}, len(splits["train"])
        if len(labels) < 2:
            raise UserError(f"one label only, {min(labels)!r}: nothing to learn (option task.label_column)")
        if len(labels) > max(20, rows // 2):
            raise UserError(
                f"{len(labels):,} different labels in {rows:,} rows; name another task.label_column, or task.kind regression"
            )
        if not all(math.isfinite(number_in(label)) for label in labels):
            return cls(tuple(sorted(labels)))
        ordered = sorted(labels, key=Decimal)  # not float, which takes large whole numbers for one
        if same := [both for both in zip(ordered, ordered[1:]) if Decimal(both[0]) == Decimal(both[1])]:
            one, other = same[0]
            raise UserError(
                f"the labels {one!r} and {other!r} are one number written in two ways; write it in one (option "
                "task.label_column)"
            )
        return cls(tuple(ordered))

    def knows(self, label: str) -> bool:
        return label in self.number

    def notes(self, splits: dict[str, list[Row]]) -> list[str]:
        found = []
        for name in (name for name in ("dev", "test") if name in splits):
            if missing := sorted({row.label for row in splits["train"]} - {row.label for row in splits[name]}):
                some = ", ".join(map(repr, missing[:3])) + ", …" * (len(missing) > 3)
                found.append(f"{name} has no row with the label {some}")
        return found

    def scores(self, labels: list[str], predicted: list[str]) -> dict[str, float]:
        from sklearn import metrics

        return {
            "accuracy": metrics.accuracy_score(labels, predicted),
            "macro_f1": metrics.f1_score(labels, predicted, average="macro"),
            "matthews": metrics.matthews_corrcoef(labels, predicted),
        }
