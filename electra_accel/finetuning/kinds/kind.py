"""What a kind of task is: the interface that the files beside this one fill in, and what most of them share.

A new kind is one file with a subclass of ``Kind``, and its name in ``registry.py``. The options name the kinds, and ``--help``
should be quick: import torch, scikit-learn and the like inside the methods that need them.
"""

import math
import warnings
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from electra_accel.errors import UserError
from electra_accel.text.columns import LABEL, TEXT
from electra_accel.text.readers import LONE_SURROGATE
from electra_accel.text.writing import normalise_name

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BatchEncoding, PreTrainedModel

IGNORED = -100  # target of a token that has none


class Row(NamedTuple):
    """One labelled example.

    Attributes:
        texts: one text, or the two of a pair; of a kind with ``words`` the words.
        label: as it is written (a whole number as one: 1.0 is 1), or several.
    """

    texts: tuple[str, ...]
    label: str | tuple[str, ...]


class Kind:
    """One kind of task: the class reads rows and scores predictions, an instance knows what the training rows say.

    The defaults are those of one label a text, chosen from several.
    """

    name: str  # the value of task.kind
    learns: str  # in --help
    metrics: tuple[str, ...]  # the first one chooses the epoch unless task.metric names another
    text_columns: tuple[str, ...] = ("text",)  # default of task.text_columns
    label_column = "label"  # default of task.label_column
    takes: tuple[int, ...] = (1,)  # how many text columns there can be
    cells = (TEXT, LABEL)  # what a text column and the label column hold
    words = False  # whether a text is a list of words; then files may also have a word and its tag in a line
    head = "ForSequenceClassification"  # transformers has it as AutoModel<head>
    pipeline = "text-classification"  # what transformers calls the task
    problem: str | None = None  # problem_type in a saved model's config.json
    # The end of a model card's example: Python that predicts with `model` and `tokenizer`. A template that knows `pair`.
    use = """\
{% if pair %}texts = ["one text", "another"], ["its partner", "the other's"]
{% else %}texts = (["one text", "another"],)
{% endif %}inputs = tokenizer(*texts, padding=True, truncation=True, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
"""

    def __init__(self, labels: tuple[str, ...] = ()):
        self.labels = labels  # names of the head's outputs
        self.number = {label: i for i, label in enumerate(labels)}

    @classmethod
    def row(cls, cells: Sequence[Any], metric: str) -> Row:
        """The row of the cells of all text columns and the label column. UserError: what cannot be used.

        Args:
            metric: task.metric.
        """
        *texts, label = cells
        if wrong := [text for text in texts if not isinstance(text, str | None)]:
            raise UserError(f"the text is a {type(wrong[0]).__name__} (option task.text_columns)")
        if not (name := label_in(label)):
            raise UserError("no label (option task.label_column)")
        return Row(tuple(text_in(text or "") for text in texts), name)

    @classmethod
    def learn(cls, splits: dict[str, list[Row]], metric: str) -> Self:
        """Look at the rows, those of train above all. UserError: there is nothing to learn."""
        raise NotImplementedError

    def knows(self, label: Any) -> bool:
        """Whether a row of dev or test that has this label can be judged."""
        return True

    def notes(self, splits: dict[str, list[Row]]) -> list[str]:
        """Lines about the rows that a person should know."""
        return []

    def targets(self, rows: list[Row], tokens: "BatchEncoding") -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Of each row a number, or floats of one shape for all rows, or a whole number for every token (some IGNORED).

        Returns:
            The targets; and of a kind with ``words`` the word that each target but IGNORED belongs to, else [].
        """
        return [self.target(row.label) for row in rows], []

    def target(self, label: Any) -> Any:
        return np.int64(self.number[label])

    def loss_sum(self, logits: "Tensor", targets: "Tensor") -> "Tensor":
        """Sum over the targets, 0-d, float32. Here cross-entropy.

        Args:
            logits: [rows, outputs], of tokens [rows, length, outputs]; any floating dtype.
        """
        from torch.nn.functional import cross_entropy

        flat = logits.float().flatten(end_dim=-2)
        return cross_entropy(flat, targets.flatten(), ignore_index=IGNORED, reduction="sum")

    def outputs(self, logits: "Tensor", targets: "Tensor") -> list[np.ndarray]:
        """What is kept of each row; NaN, or -1 among whole numbers, where logits are NaN. Here probabilities [labels]."""
        return list(logits.float().softmax(-1).cpu().numpy())

    def predictions(self, rows: list[Row], outputs: list[np.ndarray], words: list[np.ndarray]) -> list[dict[str, Any]]:
        """One record a row, as in the predictions' file: ``row`` from 1, ``label``, ``predicted``, and what else is known."""
        return [
            {"row": i + 1, "label": row.label} | self.prediction(row, output, words[i] if words else None)
            for i, (row, output) in enumerate(zip(rows, outputs, strict=True))
        ]

    def prediction(self, row: Row, output: np.ndarray, words: np.ndarray | None) -> dict[str, Any]:
        best = int(output.argmax())
        return {"predicted": self.labels[best], "probability": round(float(output[best]), 6)}

    def figures(self, records: list[dict[str, Any]]) -> dict[str, float | None]:
        """The scores of ``predictions``; None where one is not defined (a correlation with a constant)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of labels that are never predicted, and of constant predictions
            found = self.scores(*([record[name] for record in records] for name in ("label", "predicted")))
        return {name: float(value) if math.isfinite(value) else None for name, value in found.items()}

    def scores(self, labels: list, predicted: list) -> dict[str, float]:
        """Those of ``metrics`` that such labels have. Higher is better."""
        raise NotImplementedError

    def unsavable(self) -> str:
        """Why no model of this task can be saved; "" where it can."""
        return ""

    def finish(self, model: "PreTrainedModel") -> None:
        """Change a trained model so that its logits are what is predicted. UserError: its head does not allow it."""


def are_numbers(outputs: list[np.ndarray]) -> bool:
    """Whether all ``Kind.outputs`` are."""
    return all(np.isfinite(output).all() and (output.dtype.kind == "f" or (output >= 0).all()) for output in outputs)


def number_in(label: str) -> float:
    """NaN where it is none: "inf" is a word, and 1e999 a number that is too large for fp64."""
    try:
        number = float(label)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) or any(map(str.isdigit, label)) else math.nan


def label_in(cell: Any) -> str:
    """A label or tag in its one way of writing; "" for a cell that holds none."""
    nothing = cell is None or (isinstance(cell, float) and math.isnan(cell))  # how tables write an empty cell
    return "" if nothing or isinstance(cell, list | dict) else normalise_name(text_in(cell))


def text_in(cell: Any) -> str:
    """As it is written, but 1.0 as 1: a table with an empty cell in it makes floats of whole numbers."""
    if isinstance(cell, Decimal):  # a column of them has one number of digits behind the point
        return f"{cell:f}".rstrip("0").rstrip(".") if cell % 1 else str(int(cell))
    whole = isinstance(cell, float) and cell.is_integer()
    return LONE_SURROGATE.sub("\ufffd", str(int(cell) if whole else cell))
