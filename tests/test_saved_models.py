"""Fine-tuned models on disk: without our package, stock transformers predicts from them what was scored on test."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from electra_accel.errors import UserError
from electra_accel.finetuning.kinds.regression import Regression
from tests.finetuning.small import make_encoder, rows, write_jsonl
from tests.pretraining_runs import run_here

COLUMNS = {
    "classification": ["text"],
    "pair": ["text", "text"],
    "regression": ["text"],
    "tagging": ["tokens"],
}
# Our package cannot be imported there; it is installed for whoever runs the tests.
STOCK = """
import json, os, re, sys
sys.modules["electra_accel"] = None
import torch, transformers
transformers.logging.set_verbosity_error()
columns, place = json.loads(sys.argv[1]), os.getcwd()
rows = [json.loads(line) for line in open("test.jsonl")]
for kind, names in columns.items():
    os.chdir(os.path.join(place, kind, "t", "first", "seed-1", "model"))
    auto = "AutoModelFor" + ("Token" if kind == "tagging" else "Sequence") + "Classification"
    model, found = getattr(transformers, auto).from_pretrained(".", output_loading_info=True)
    assert not any(found.values()), found
    tokenizer = transformers.AutoTokenizer.from_pretrained(".")
    assert len(tokenizer("w1 " * 200, truncation=True).input_ids) == 20
    predicted = []
    for row in rows:
        texts = [row[name] for name in names]
        inputs = tokenizer(*texts, is_split_into_words=kind == "tagging", truncation=True, return_tensors="pt")
        with torch.no_grad():
            logits = model.eval()(**inputs).logits[0]
        if kind == "regression":
            predicted.append(logits.item())
        elif kind == "tagging":
            first = {word: i for i, word in reversed(list(enumerate(inputs.word_ids()))) if word is not None}
            tags = [model.config.id2label[best] for best in logits.argmax(-1).tolist()]
            predicted.append([tags[first[word]] if word in first else "O" for word in range(len(texts[0]))])
        else:
            predicted.append(model.config.id2label[logits.argmax().item()])
    json.dump(predicted, open(os.path.join(place, f"{kind}.json"), "w"))
    code = re.findall("```python\\n(.*?)```", open("README.md").read(), re.DOTALL)
    assert len(code) == 1
    exec(code[0], {})
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    make_encoder(folder / "first" / "discriminator")
    for name, number in (("train", 300), ("dev", 40), ("test", 50)):
        write_jsonl(folder / f"{name}.jsonl", rows(number, seed=number))
    return folder


def line(kind: str, *more: str) -> list[str]:
    files = [f"--task.{name}_file={name}.jsonl" for name in ("train", "dev", "test")]
    words = ["--models", "first/discriminator", f"--task.kind={kind}", *files, "--task.name=t", f"--run.dir={kind}"]
    words += ["--task.text_columns", *COLUMNS[kind], "--task.max_length=20", "--run.seeds", "1", "--tracking.trackers"]
    words += ["--task.label_column=score"] * (kind == "regression")
    return [*words, "--optim.learning_rate=5e-3", "--optim.layer_decay=1", "--train.epochs=6", *more]


def test_stock_transformers_predicts_what_was_scored(place, monkeypatch, capfd):
    for kind in COLUMNS:
        code, _, err = run_here(line(kind, "--run.save_models=best"), place, monkeypatch, capfd, "finetune.py")
        assert code == 0, err
    command = [sys.executable, "-I", "-c", STOCK, json.dumps(COLUMNS)]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    for kind in COLUMNS:
        folder = place / kind / "t" / "first" / "seed-1"
        assert not (folder / "checkpoints").exists()
        scored = [json.loads(row)["predicted"] for row in (folder / "predictions-test.jsonl").read_text().splitlines()]
        predicted = json.loads((place / f"{kind}.json").read_text())
        assert len(scored) == 50 and len({str(each) for each in scored}) > 1, "not one answer to all"
        assert predicted == (pytest.approx(scored, abs=1e-5) if kind == "regression" else scored)
    card = (place / "pair" / "t" / "first" / "seed-1" / "model" / "README.md").read_text("utf-8")
    found = json.loads((place / "pair" / "results.json").read_text())["tasks"]["t"]["models"]["first"]["seeds"]["1"]
    assert f"| test | accuracy {found['test']['accuracy']:.4f}, " in card and str(place) not in card
    assert f"| weights of | epoch {found['best_epoch']} of 6, seed 1 |" in card
    assert "base_model" not in card and "| fine-tuned from | first |" in card


def test_too_late(place, monkeypatch, capfd):
    """Without the option nothing is kept, and later it cannot be had."""
    late = [*line("classification"), "--run.dir=late", "--train.epochs=1"]
    code, _, err = run_here(late, place, monkeypatch, capfd, "finetune.py")
    assert code == 0 and not (place / "late" / "t" / "first" / "seed-1" / "model").exists()
    code, _, err = run_here([*late, "--run.save_models=best"], place, monkeypatch, capfd, "finetune.py")
    assert code == 2 and "late/t/first/seed-1 " in err and err.count("\n") == 1


def test_labels_finer_than_fp32_are_not_saved(place, monkeypatch, capfd):
    """Trained they can be: the model that is saved would give all of them as one number."""
    for name in ("train", "dev", "test"):
        records = [json.loads(row) for row in (place / f"{name}.jsonl").read_text().splitlines()]
        write_jsonl(place / f"far-{name}.jsonl", [row | {"score": 1e9 + row["score"]} for row in records])
    far = [f"--task.{name}_file=far-{name}.jsonl" for name in ("train", "dev", "test")]
    words = [*line("regression"), *far, "--run.dir=far", "--dry_run"]
    code, _, err = run_here([*words, "--run.save_models=best"], place, monkeypatch, capfd, "finetune.py")
    assert code == 2 and err.count("\n") == 1 and "run.save_models" in err and "1e+09" in err
    code, _, err = run_here(words, place, monkeypatch, capfd, "finetune.py")
    assert (code, err) == (0, "")


def test_only_a_head_with_one_output_is_folded(place):
    model = AutoModelForSequenceClassification.from_pretrained(place / "first" / "discriminator", num_labels=1).eval()
    ids = torch.tensor([[2, 5, 6, 3]])
    with torch.no_grad():
        before = model(ids).logits
        Regression(2.5, 1.3).finish(model)
        assert model(ids).logits == pytest.approx(1.3 * before + 2.5, abs=1e-6)
    two = AutoModelForSequenceClassification.from_pretrained(place / "first" / "discriminator", num_labels=2)
    with pytest.raises(UserError, match="cannot be saved for a regression"):
        Regression(0, 1).finish(two)
