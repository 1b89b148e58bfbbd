"""A kind of task is one file: one that only this test knows is read, learnt, scored and named like the four of the package."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from electra_accel.errors import UserError
from electra_accel.finetuning.config import Settings
from electra_accel.finetuning.heads import build, open_encoder
from electra_accel.finetuning.kinds.kind import Kind, Row, label_in
from electra_accel.finetuning.kinds.registry import KINDS, by_kind
from electra_accel.finetuning.loop import score
from electra_accel.finetuning.tasks import encode, load_task
from electra_accel.text import columns
from tests.finetuning.small import make_encoder, rows, task, write_jsonl
from tests.helpers import ROOT, run_script


class Topics(Kind):
    """Any number of labels a text."""

    name, learns = "topics", "any number of labels a text"
    metrics = ("exact", "labels_right")
    label_column = "topics"
    cells = (columns.TEXT, columns.TAGS)
    problem = "multi_label_classification"

    @classmethod
    def row(cls, cells, metric):
        if not isinstance(cells[-1], list):
            raise UserError("no list of labels (option task.label_column)")
        return Row((cells[0],), tuple(sorted(map(label_in, cells[-1]))))

    @classmethod
    def learn(cls, splits, metric):
        return cls(tuple(sorted({label for row in splits["train"] for label in row.label})))

    def knows(self, label):
        return set(label) <= set(self.labels)

    def target(self, label):
        return np.array([name in label for name in self.labels], np.float32)

    def loss_sum(self, logits, targets):
        return binary_cross_entropy_with_logits(logits.float(), targets, reduction="sum")

    def outputs(self, logits, targets):
        return list(logits.float().sigmoid().cpu().numpy())

    def prediction(self, row, output, words):
        return {"predicted": [name for name, share in zip(self.labels, output, strict=True) if share > 0.5]}

    def scores(self, labels, predicted):
        right = [set(one) == set(other) for one, other in zip(labels, predicted, strict=True)]
        return {"exact": np.mean(right), "labels_right": float("nan")}


def with_topics(number: int, seed: int) -> list[dict]:
    """Texts with one, both or none of two words, which are their topics."""
    texts = [record["text"] for record in rows(number, seed)]
    for i in range(0, number, 3):
        texts[i] = f"bad {texts[i]} good" if i % 2 else "w1 w2"
    return [{"text": text, "topics": [word for word in ("bad", "good") if word in text.split()]} for text in texts]


@pytest.fixture
def topics(monkeypatch):
    monkeypatch.setitem(KINDS, "topics", Topics)


def test_a_new_kind_is_one_class(topics, tmp_path):
    """From a file to figures, with nothing else in the package changed."""
    files = {
        name: str(write_jsonl(tmp_path / f"{name}.jsonl", with_topics(100, i))) for i, name in enumerate(("a", "b"))
    }
    data = load_task(task(kind="topics", train_file=files["a"], dev_file=files["b"]))
    assert (data.task.label_column, data.task.metric, data.kind.labels) == ("topics", "exact", ("bad", "good"))
    encoder = open_encoder(str(make_encoder(tmp_path / "encoder", dropout=0.0)), "x")
    model = build(encoder, data, 1)
    assert model.config.id2label == {0: "bad", 1: "good"}
    train, dev = (encode(data.rows(name, 1), data, encoder.tokenizer) for name in ("train", "dev"))
    assert train.weights().tolist() == [1] * 100
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        inputs, targets = train.batch(np.arange(100))
        assert targets.shape == (100, 2) and targets.dtype == torch.float32
        losses.append(data.kind.loss_sum(model(**inputs).logits, targets) / 100)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] / 3
    engine = SimpleNamespace(model=model, world_size=1, rank=0, device="cpu", everywhere=lambda found: [found])
    job = SimpleNamespace(name="t/m/seed-1", data=data, settings=Settings())
    records = score(engine, dev, job)
    assert [record["label"] for record in records] == [row.label for row in data.splits["dev"]]
    figures = data.kind.figures(records)
    assert figures["exact"] > 0.8 and figures["labels_right"] is None


def test_a_new_kinds_mistakes_name_their_place(topics, tmp_path):
    for wrong, said in (({"text": "a", "topics": "bad"}, "no list of labels"), ({"text": "a"}, "no column 'topics'")):
        path = write_jsonl(tmp_path / "a.jsonl", [*with_topics(40, 1), wrong])
        with pytest.raises(UserError, match=rf"a\.jsonl, line 41: {said}"):
            load_task(task(kind="topics", train_file=str(path)))
    dev = [{"text": "a", "topics": ["bad"]}, {"text": "a", "topics": ["bad", "new"]}]
    files = {"train_file": with_topics(40, 1), "dev_file": dev}
    files = {name: str(write_jsonl(tmp_path / f"{name}.jsonl", records)) for name, records in files.items()}
    with pytest.raises(UserError, match=r"dev_file\.jsonl, row 2: dev has the label .*new"):
        load_task(task(kind="topics", **files))


def test_defaults_in_the_help(topics):
    assert by_kind(lambda kind: kind.label_column) == "label, tagging tags, topics topics"
    assert by_kind(lambda kind: " ".join(kind.text_columns)) == "text, pair sentence1 sentence2, tagging tokens"


def test_the_guide_knows_every_kind():
    """Its default columns, and its metrics, the main one first."""
    guide = (ROOT / "docs" / "finetuning.md").read_text("utf-8")
    for name, kind in KINDS.items():
        [row] = re.findall(rf"^\| `{name}` \|.*$", guide, re.M)
        _, _, columns, metrics = (cell.strip() for cell in row.strip("| ").split("|"))
        assert re.findall("`([^`]+)`", columns) == [*kind.text_columns, kind.label_column]
        assert tuple(re.findall("|".join(kind.metrics), metrics)) == kind.metrics


def test_help_and_mistakes_do_not_wait_for_torch():
    program = (
        "import sys; from electra_accel.finetuning.config_parser import parse\n"
        "try: parse(sys.argv[1:], 'x')\n"
        "finally: print(*({'torch', 'transformers', 'sklearn', 'scipy'} & {*sys.modules}), file=sys.stderr)"
    )
    shown = run_script("-c", program, "--help")
    assert (shown.returncode, shown.stderr.strip()) == (
        0,
        "",
    ) and "classification|pair|regression|tagging" in shown.stdout
