"""A task's data: splits without shared texts, labels, and the padded batches that a model learns from.

Each batch is padded to its longest example.
"""

import hashlib
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from electra_accel.data.split import text_hashes
from electra_accel.errors import UserError, named
from electra_accel.finetuning.config import FRACTIONS, Task
from electra_accel.finetuning.kinds.kind import IGNORED, Kind, Row
from electra_accel.finetuning.kinds.registry import KINDS
from electra_accel.finetuning.rows import has_lines_of_words, read_dataset, read_file
from electra_accel.randomness import Purpose, key, permute, uniform
from electra_accel.text.unknown import Unknown, measure
from electra_accel.text.writing import normalise


@dataclass(frozen=True, eq=False)
class TaskData:
    """The rows of a task.

    Attributes:
        task: resolved.
        splits: train, dev and perhaps test.
        kind: that of the task, which knows the labels.
        notes: lines for a person: sizes first, then what of the files was passed over, labels that look alike, texts that stand
            on both sides, and options that are not used.
    """

    task: Task
    splits: dict[str, list[Row]]
    kind: Kind
    notes: tuple[str, ...] = ()

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
        given = {name: f"{task.dataset}, {name}" for name in splits}
    else:
        files = {"train": task.train_file, "dev": task.dev_file, "test": task.test_file}
        given = {name: path for name, path in files.items() if path}
        splits = {name: read_file(Path(path), task, told.append) for name, path in given.items()}
    rows, source = splits["train"], task.train_file or task.dataset
    numbers = uniform(key(Purpose.SPLIT), _hashes(rows))
    low = 0.0
    for name, fraction in (("dev", task.dev_fraction), ("test", task.test_fraction)):
        if name not in splits and fraction:
            splits[name] = _between(low, low + fraction, rows, numbers)
            low += fraction
    splits["train"] = _between(low, 1.0, rows, numbers)
    if empty := [name for name in ("train", "dev", "test") if not splits.get(name, name == "test")]:
        remedy = f"task.{empty[0]}_file, or another task.{empty[0]}_fraction"
        if empty[0] == "train":
            remedy = "a smaller task.dev_fraction or task.test_fraction"
        raise UserError(f"{source}: none of its {len(rows)} rows is left for {empty[0]}; give {remedy}")
    if task.train_rows and task.train_rows > (left := len(splits["train"])):
        raise UserError(f"{source} has {left} rows to train on, fewer than task.train_rows {task.train_rows}")
    with named(source):
        kind = KINDS[task.kind].learn(splits, task.metric)
    _require_known(splits, given, source, kind)
    size, *notes = _notes(task, splits, given, kind)
    return TaskData(task, splits, kind, (size, *told, *notes))


def _hashes(rows: list[Row]) -> np.ndarray:
    return text_hashes(["\n".join(row.texts) for row in rows])


def _between(low: float, high: float, rows: list[Row], numbers: np.ndarray) -> list[Row]:
    return [rows[i] for i in np.flatnonzero((numbers >= low) & (numbers < high))]


def _require_known(splits: dict[str, list[Row]], given: dict[str, str], source: str, kind: Kind) -> None:
    """Raises UserError where dev or test has a label that no training row has. Args: given: places of the splits that are."""
    for name in ("dev", "test"):
        for number, label in enumerate((row.label for row in splits.get(name, [])), start=1):
            if kind.knows(label):
                continue
            if name not in given:
                raise UserError(
                    f"{source}: all rows with the label {label!r} went to {name}: it is too rare to be learnt; leave them "
                    f"out, or give task.{name}_file"
                )
            twin = next((f"; there {other!r} has" for other in kind.labels if _looks(other) == _looks(label)), "")
            raise UserError(
                f"{given[name]}, row {number}: {name} has the label {label!r}, which no training row has{twin} (option "
                "task.label_column)"
            )


def _looks(label: object) -> str:
    """Equal for labels that a reader may take for one."""
    return " ".join(unicodedata.normalize("NFKC", str(label)).casefold().split())


def _notes(task: Task, splits: dict[str, list[Row]], given: dict[str, str], kind: Kind) -> list[str]:
    notes = [", ".join(f"{len(rows):,} {name}" for name, rows in splits.items()) + " rows"]
    looks: dict[str, list[str]] = {}
    for label in kind.labels:
        looks.setdefault(_looks(label), []).append(repr(label))
    for alike in (" and ".join(labels) for labels in looks.values() if len(labels) > 1):
        notes.append(f"the labels {alike} differ by case, width or blanks alone: each is a class of its own")
    hashes = {name: _hashes(rows) for name, rows in splits.items()}
    for name, other in (("dev", "train"), ("test", "train"), ("test", "dev")):
        if name in splits and (both := int(np.isin(hashes[name], hashes[other]).sum())):
            notes.append(f"{both:,} of the {len(splits[name]):,} texts of {name} stand in {other} too")
    notes += kind.notes(splits)
    usual = (task.text_columns, task.label_column) == ([*kind.text_columns], kind.label_column)
    if not (usual or task.dataset) and all(has_lines_of_words(Path(path), task) for path in given.values()):
        notes.append("task.text_columns and task.label_column are not used: words stand first in a line and tags last")
    for name, rows in splits.items():
        if empty := sum(not "".join(row.texts).strip() for row in rows):
            notes.append(f"{empty:,} of the {len(rows):,} rows of {name} have no text")
    for name, fraction in FRACTIONS.items():
        if name in given and getattr(task, f"{name}_fraction") != fraction:
            notes.append(f"task.{name}_fraction is not used: {name} rows are given")
    return notes


@dataclass(frozen=True)
class Encoded:
    """Rows as token ids, in their order.

    Attributes:
        rows: of a split.
        ids, types: per row an int array [length].
        targets, words: as ``Kind.targets`` gives them.
        cut: rows that were longer than task.max_length.
        unknown: of the tokens.
    """

    rows: list[Row]
    ids: list[np.ndarray]
    types: list[np.ndarray] | None
    targets: list[np.ndarray]
    words: list[np.ndarray]
    cut: int
    pad_id: int
    unknown: Unknown

    def __len__(self) -> int:
        return len(self.rows)

    def lengths(self) -> np.ndarray:
        """int64 [rows]: tokens."""
        return np.array([len(ids) for ids in self.ids])

    def weights(self) -> np.ndarray:
        """float64 [rows]: how many targets each row has."""
        known = [np.sum(target != IGNORED) for target in self.targets] if self._of_tokens else np.ones(len(self))
        return np.array(known, np.float64)

    def batch(self, rows: np.ndarray, device="cpu") -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Arguments of the model, int64 [len(rows), longest], and the targets, [len(rows), …] or [len(rows), longest]."""
        inputs = {"input_ids": _padded([self.ids[i] for i in rows], self.pad_id)}
        inputs["attention_mask"] = _padded([np.ones_like(self.ids[i]) for i in rows], 0)
        if self.types is not None:
            inputs["token_type_ids"] = _padded([self.types[i] for i in rows], 0)
        targets = [self.targets[i] for i in rows]
        wanted = _padded(targets, IGNORED) if self._of_tokens else torch.from_numpy(np.stack(targets))
        return {name: tensor.to(device) for name, tensor in inputs.items()}, wanted.to(device)

    @property
    def _of_tokens(self) -> bool:
        """Whether a target is a whole number for every token."""
        return self.targets[0].ndim > 0 and self.targets[0].dtype.kind == "i"


def _padded(rows: list[np.ndarray], value: int) -> torch.Tensor:
    table = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for row, content in zip(table, rows, strict=True):
        row[: len(content)] = content
    return torch.from_numpy(table)


def encode(rows: list[Row], data: TaskData, tokenizer: PreTrainedTokenizerFast) -> Encoded:
    """Tokenise, cut to task.max_length, and put the targets where they belong."""
    texts = [[normalise(text) for text in row.texts] for row in rows]  # as pre-training does
    found = tokenizer(
        texts if data.kind.words else [row[0] for row in texts],
        [row[1] for row in texts] if len(data.task.text_columns) == 2 else None,
        is_split_into_words=data.kind.words,
        truncation=True,
        max_length=data.task.max_length,
        return_overflowing_tokens=False,
    )
    targets, words = data.kind.targets(rows, found)
    types = found.get("token_type_ids") if "token_type_ids" in tokenizer.model_input_names else None
    return Encoded(
        rows=rows,
        ids=[np.array(ids) for ids in found["input_ids"]],
        types=types and [np.array(row) for row in types],
        targets=targets,
        words=words,
        cut=sum(bool(encoding.overflowing) for encoding in found.encodings),
        pad_id=tokenizer.pad_token_id,
        unknown=measure(found["input_ids"], tokenizer, (" ".join(row.texts) for row in rows)),
    )
