"""The labels of a task: which there are, in which order, and what no label of such a task can be."""

import math
import re
import unicodedata
from decimal import Decimal

import numpy as np

from electra_accel.errors import UserError
from electra_accel.finetuning.config import Task
from electra_accel.finetuning.rows import Row

OUTSIDE = "O"  # tag of words that nothing is known of
ENTITY_TAG = re.compile("O|[BIESLU]-.+")  # IOB, IOBES and BILOU
LARGEST = 1e30  # of a regression: the model that gives it computes in fp32, which ends at 3e38
SMALLEST = 1e-30  # difference between its labels


def require_labels(task: Task, split: str, rows: list[Row]) -> None:
    """Raises UserError where a label is no number or no entity's tag and should be; names file and row."""
    source = getattr(task, f"{split}_file") or f"{task.dataset}, {split}"
    for number, row in enumerate(rows, start=1):
        if task.kind == "regression" and not (_is_number(row.label) and abs(float(row.label)) <= LARGEST):
            wrong = (
                f"over {LARGEST:g}, too large for fp32: scale the labels down"
                if _is_number(row.label, finite=False)
                else "not a number"
            )
            raise UserError(
                f"{source}, row {number}: {row.label[:40]!r} is {wrong} (option task.label_column {task.label_column}, or "
                "task.kind)"
            )
        if _has_entities(task) and (wrong := [tag for tag in row.label if not ENTITY_TAG.fullmatch(tag)]):
            raise UserError(
                f"{source}, sentence {number}: the tag {wrong[0][:40]!r} is neither O nor B-TYPE or I-TYPE (E-, S-, L-, U-): "
                "entities cannot be told: convert the tags (remove header and comment lines), or give --task.metric accuracy"
            )


def labels_of(task: Task, splits: dict[str, list[Row]]) -> tuple[str, ...]:
    source = task.train_file or task.dataset
    if task.kind == "regression":
        return ()
    if task.kind == "tagging":  # a rare tag may stand in dev or test only
        found = {tag for rows in splits.values() for row in rows for tag in row.label}
        if len(found) < 2:
            raise UserError(f"{source}: one tag only, {min(found)!r}: nothing to learn")
        return tuple(sorted(found | {OUTSIDE} if _has_entities(task) else found))
    found = {row.label for row in splits["train"]}
    if len(found) < 2:
        raise UserError(
            f"{source}: column {task.label_column!r} holds one label only, {min(found)!r}: nothing to learn"
        )
    if len(found) > max(20, len(splits["train"]) // 2):
        raise UserError(
            f"{source}: column {task.label_column!r} holds {len(found):,} different labels in {len(splits['train']):,} rows; "
            "name another task.label_column, or task.kind regression"
        )
    _require_known(task, splits, found)
    if not all(_is_number(label) for label in found):
        return tuple(sorted(found))
    ordered = sorted(found, key=Decimal)  # not float, which takes large whole numbers for one
    if same := [both for both in zip(ordered, ordered[1:]) if Decimal(both[0]) == Decimal(both[1])]:
        raise UserError(
            f"{source}: the labels {same[0][0]!r} and {same[0][1]!r} are one number written in two ways; write it in one way "
            f"(option task.label_column {task.label_column})"
        )
    return tuple(ordered)


def alike(labels: tuple[str, ...]) -> list[str]:
    """A line about each set of labels that a reader may take for one: that they are not."""
    looks: dict[str, list[str]] = {}
    for label in labels:
        looks.setdefault(_looks(label), []).append(label)
    several = [" and ".join(map(repr, found)) for found in looks.values() if len(found) > 1]
    return [
        f"the labels {found} differ by case, width or blanks alone: each is a class of its own" for found in several
    ]


def _looks(label: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


def _has_entities(task: Task) -> bool:
    """Whether its tags are those of entities: those of parts of speech are judged by accuracy alone."""
    return task.kind == "tagging" and task.metric != "accuracy"


def _require_known(task: Task, splits: dict[str, list[Row]], known: set[str]) -> None:
    """Raises UserError where dev or test has a label that no training row has."""
    for name in set(splits) - {"train"}:
        unknown = [(number, row.label) for number, row in enumerate(splits[name], start=1) if row.label not in known]
        if not unknown:
            continue
        number, label = unknown[0]
        given = getattr(task, f"{name}_file") or (task.dataset and f"{task.dataset}, {name}")
        if given:
            twin = next((f"; there {other!r} has" for other in known if _looks(other) == _looks(label)), "")
            raise UserError(
                f"{given}, row {number}: {name} has the label {label!r}, which no training row has{twin} (option "
                "task.label_column)"
            )
        raise UserError(
            f"{task.train_file}: all rows with the label {label!r} went to {name}: it is too rare to be learnt; leave them "
            f"out, or give task.{name}_file"
        )


def scale_of(source: str, rows: list[Row]) -> tuple[float, float]:
    """Mean and standard deviation of the training labels."""
    numbers = np.array([float(row.label) for row in rows])
    if numbers.min() == numbers.max():  # their deviation may be a rounding error, not 0
        raise UserError(f"{source}: all training labels are {numbers[0]}: nothing to learn")
    if numbers.std() < SMALLEST:
        raise UserError(
            f"{source}: the training labels differ by less than {SMALLEST:g}, too little for fp32: scale them up"
        )
    return float(numbers.mean()), float(numbers.std())


def _is_number(text: str, finite: bool = True) -> bool:
    """Whether it is one; with ``finite``, also not too large for fp64."""
    try:
        number = float(text)
    except ValueError:
        return False
    return math.isfinite(number) or (not finite and any(map(str.isdigit, text)))  # 1e999, but not "inf"
