"""A task's data: splits without shared texts, labels, and the padded batches that a model learns from.

Each batch is padded to its longest example. Targets of a tagging task stand at the first piece of every word.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from electra_accel.data.split import text_hashes
from electra_accel.errors import UserError
from electra_accel.finetuning.config import FRACTIONS, TEXT_COLUMNS, Task
from electra_accel.finetuning.labels import OUTSIDE, alike, labels_of, require_labels, scale_of
from electra_accel.finetuning.rows import Row, has_lines_of_words, read_dataset, read_file
from electra_accel.randomness import Purpose, key, permute, uniform
from electra_accel.text.encode import normalise
from electra_accel.text.unknown import Unknown, measure

IGNORED = -100  # target of a token that no word begins with


@dataclass(frozen=True, eq=False)
class TaskData:
    """The rows of a task.

    Attributes:
        task: resolved.
        splits: train, dev and perhaps test.
        labels: all labels or tags, in the order of their ids; () for regression.
        mean, deviation: of the training labels of a regression, which is learnt in units of them; else 0 and 1.
        notes: lines for a person: sizes first, then what of the files was passed over, labels that look alike, texts that stand
            on both sides, and options that are not used.
    """

    task: Task
    splits: dict[str, list[Row]]
    labels: tuple[str, ...]
    mean: float
    deviation: float
    notes: tuple[str, ...]

    def fingerprint(self) -> str:
        """32 hexadecimal digits over the rows of all splits."""
        text = "\n".join(repr((name, rows)) for name, rows in self.splits.items())
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def rows(self, split: str, seed: int) -> list[Row]:
        """Those of a split; of train the first ``task.train_rows`` of ``seed``'s shuffle: fewer rows are a part of more."""
        rows = self.splits[split]
        if split != "train" or self.task.train_rows is None:
            return rows
        order = permute(np.arange(len(rows)), len(rows), key(seed, Purpose.SELECT))
        return [rows[i] for i in order[: self.task.train_rows]]


def load_task(task: Task) -> TaskData:
    """Read a resolved task, and take dev and test from the training rows where they are not given.

    A row goes where the hash of its texts says, so that equal texts stay together.

    Raises:
        UserError: files or data set cannot be used; fewer rows than task.train_rows; labels that no such task can have.
    """
    told: list[str] = []
    if task.dataset:
        splits = read_dataset(task)
    else:
        files = {"train": task.train_file, "dev": task.dev_file, "test": task.test_file}
        splits = {name: read_file(Path(path), task, told.append) for name, path in files.items() if path}
    for name, rows in splits.items():
        require_labels(task, name, rows)
    given = set(splits)
    rows = splits["train"]
    numbers = uniform(key(Purpose.SPLIT), text_hashes(_whole_texts(rows)))
    low = 0.0
    for name, fraction in (("dev", task.dev_fraction), ("test", task.test_fraction)):
        if name not in splits and fraction:
            splits[name] = _between(low, low + fraction, rows, numbers)
            low += fraction
    splits["train"] = _between(low, 1.0, rows, numbers)
    source = task.train_file or task.dataset
    if empty := [name for name in ("train", "dev", "test") if not splits.get(name, name == "test")]:
        remedy = f"task.{empty[0]}_file, or another task.{empty[0]}_fraction"
        if empty[0] == "train":
            remedy = "a smaller task.dev_fraction or task.test_fraction"
        raise UserError(f"{source}: none of its {len(rows)} rows is left for {empty[0]}; give {remedy}")
    if task.train_rows and task.train_rows > len(splits["train"]):
        raise UserError(
            f"{source} has {len(splits['train'])} rows to train on, fewer than task.train_rows {task.train_rows}"
        )
    labels = labels_of(task, splits)
    mean, deviation = scale_of(source, splits["train"]) if task.kind == "regression" else (0.0, 1.0)
    size, *notes = _notes(task, splits, given)
    return TaskData(task, splits, labels, mean, deviation, (size, *told, *alike(labels), *notes))


def _between(low: float, high: float, rows: list[Row], numbers: np.ndarray) -> list[Row]:
    return [rows[i] for i in np.flatnonzero((numbers >= low) & (numbers < high))]


def _whole_texts(rows: list[Row]) -> list[str]:
    return ["\n".join(row.texts) for row in rows]


def _notes(task: Task, splits: dict[str, list[Row]], given: set[str]) -> list[str]:
    """Args: given: the splits that were not taken from the training rows."""
    hashes = {name: text_hashes(_whole_texts(rows)) for name, rows in splits.items()}
    notes = [", ".join(f"{len(rows):,} {name}" for name, rows in splits.items()) + " rows"]
    for name, other in (("dev", "train"), ("test", "train"), ("test", "dev")):
        if name in splits and (both := int(np.isin(hashes[name], hashes[other]).sum())):
            notes.append(f"{both:,} of the {len(splits[name]):,} texts of {name} stand in {other} too")
    if task.kind in ("classification", "pair"):
        for name in (name for name in ("dev", "test") if name in splits):
            if missing := sorted({row.label for row in splits["train"]} - {row.label for row in splits[name]}):
                notes.append(
                    f"{name} has no row with the label {', '.join(map(repr, missing[:3]))}{', …' * (len(missing) > 3)}"
                )
    files = [path for path in (task.train_file, task.dev_file, task.test_file) if path]
    if files and all(has_lines_of_words(Path(path), task) for path in files):
        usual = (TEXT_COLUMNS["tagging"], "tags")
        if (task.text_columns, task.label_column) != usual:
            notes.append(
                "task.text_columns and task.label_column are not used: words stand first in a line and tags last"
            )
    for name, rows in splits.items():
        if empty := sum(not "".join(row.texts).strip() for row in rows):
            notes.append(f"{empty:,} of the {len(rows):,} rows of {name} have no text")
        if task.kind == "tagging" and (unread := _tagged_blanks(rows)):
            notes.append(
                f"{unread:,} words of {name} are blanks with a tag: no token stands for them, so they count as {OUTSIDE}"
            )
    for name, usual in FRACTIONS.items():
        if name in given and getattr(task, f"{name}_fraction") != usual:
            notes.append(f"task.{name}_fraction is not used: {name} rows are given")
    return notes


def _tagged_blanks(rows: list[Row]) -> int:
    return sum(
        tag != OUTSIDE and not word.strip() for row in rows for word, tag in zip(row.texts, row.label, strict=True)
    )


@dataclass(frozen=True)
class Encoded:
    """Rows as token ids, in their order.

    Attributes:
        ids, types: per row an int array [length].
        targets: per row the label's id (int64), the scaled number (float32), or [length] tag ids with IGNORED (int64).
        words: tagging: per row the word that each target but IGNORED belongs to.
        cut: rows that were longer than task.max_length.
        unknown: of the tokens.
    """

    ids: list[np.ndarray]
    types: list[np.ndarray] | None
    targets: list[np.ndarray]
    words: list[np.ndarray]
    cut: int
    pad_id: int
    unknown: Unknown = Unknown(0, 0)

    def __len__(self) -> int:
        return len(self.ids)

    def lengths(self) -> np.ndarray:
        """int64 [rows]: tokens."""
        return np.array([len(ids) for ids in self.ids])

    def weights(self) -> np.ndarray:
        """float64 [rows]: how many targets each row has."""
        return np.array([np.sum(target != IGNORED) if target.ndim else 1 for target in self.targets], np.float64)

    def batch(self, rows: np.ndarray) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Arguments of the model, int64 [len(rows), longest], and the targets, [len(rows)] or [len(rows), longest]."""
        inputs = {"input_ids": _padded([self.ids[i] for i in rows], self.pad_id)}
        inputs["attention_mask"] = _padded([np.ones_like(self.ids[i]) for i in rows], 0)
        if self.types is not None:
            inputs["token_type_ids"] = _padded([self.types[i] for i in rows], 0)
        targets = [self.targets[i] for i in rows]
        is_tagging = targets[0].ndim > 0
        return inputs, _padded(targets, IGNORED) if is_tagging else torch.from_numpy(np.stack(targets))


def _padded(rows: list[np.ndarray], value: int) -> torch.Tensor:
    table = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for row, content in zip(table, rows, strict=True):
        row[: len(content)] = content
    return torch.from_numpy(table)


def encode(rows: list[Row], data: TaskData, tokenizer: PreTrainedTokenizerFast) -> Encoded:
    """Tokenise, cut to task.max_length, and put the targets where they belong."""
    task, is_tagging = data.task, data.task.kind == "tagging"
    given = [[normalise(text) for text in row.texts] for row in rows]  # as pre-training does
    texts = given if is_tagging else [row[0] for row in given]
    seconds = [row[1] for row in given] if len(task.text_columns) == 2 else None
    found = tokenizer(
        texts,
        seconds,
        is_split_into_words=is_tagging,
        truncation=True,
        max_length=task.max_length,
        return_overflowing_tokens=False,
    )
    number = {label: i for i, label in enumerate(data.labels)}
    targets, words = [], []
    for i, row in enumerate(rows):
        if task.kind == "regression":
            targets.append(np.float32((float(row.label) - data.mean) / data.deviation))
        elif is_tagging:
            word_ids = np.array([-1 if word is None else word for word in found.word_ids(i)])
            first = (word_ids >= 0) & (word_ids != np.concatenate([[-1], word_ids[:-1]]))
            tags = np.array([number[tag] for tag in row.label])
            targets.append(np.where(first, tags[word_ids], IGNORED))
            words.append(word_ids[first])
        else:
            targets.append(np.int64(number[row.label]))
    types = found.get("token_type_ids") if "token_type_ids" in tokenizer.model_input_names else None
    return Encoded(
        ids=[np.array(ids) for ids in found["input_ids"]],
        types=types and [np.array(row) for row in types],
        targets=targets,
        words=words,
        cut=sum(bool(encoding.overflowing) for encoding in found.encodings),
        pad_id=tokenizer.pad_token_id,
        unknown=measure(found["input_ids"], tokenizer, (" ".join(row.texts) for row in rows)),
    )
