"""Every command of docs/finetuning.md runs as it stands there, on files that it names; only the work is cut short."""

import csv
import re
import shlex

import pytest

from electra_accel.finetuning import config_parser
from electra_accel.finetuning.config import Settings
from electra_accel.options.help import help_page
from tests.finetuning.small import rows, write_jsonl
from tests.helpers import ROOT
from tests.pretraining_runs import run_here, run_short, write_corpus

PAGE = ROOT / "docs" / "finetuning.md"
PRETRAIN = {
    "train__steps": 4,
    "eval__every": 4,
    "eval__batches": 1,
    "tracking__samples": "none",
    "tracking__trackers": "[]",
    "tokenizer__train_vocab_size": 400,
    "optim__warmup_steps": 0,
}
PAIR = {
    "model__size": None,
    "model__generator_width": None,
    "tokenizer__train_vocab_size": None,
    "model__generator": "runs/general/generator",
    "model__discriminator": "runs/general/discriminator",
}
FILES = {
    "train.tsv": {},
    "dev.tsv": {},
    "test.tsv": {},
    "pairs.csv": {"question": "text", "answer": "text", "fits": "label"},
    "scores.tsv": {"sentence1": "text", "sentence2": "text", "score": "score"},
    "tasks/nsmc_sentiment_train.tsv": {},
    "tasks/nsmc_sentiment_dev.tsv": {},
    "tasks/nsmc_sentiment_test.tsv": {},
    "tasks/korsts_train.tsv": {"sentence1": "text", "sentence2": "text", "score": "score"},
    "tasks/korsts_dev.tsv": {"sentence1": "text", "sentence2": "text", "score": "score"},
    "tasks/intent_3i4k_train.tsv": {},
}  # {file: {column: field of a row}}
SHORT = ["--train.epochs=1", "--task.max_length=32", "--run.seeds", "1", "2", "--tracking.trackers"]


def commands() -> list[list[str]]:
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", PAGE.read_text("utf-8"), re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line) for line in lines if line.strip()]


def write_files(place) -> None:
    records = rows(60)
    (place / "tasks").mkdir()
    for name, columns in FILES.items():
        columns = columns or {"text": "text", "label": "label"}
        with open(place / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="," if name.endswith(".csv") else "\t")
            writer.writerow(columns)
            writer.writerows([record[field] for field in columns.values()] for record in records)
    write_jsonl(place / "ner.jsonl", [{name: record[name] for name in ("tokens", "tags")} for record in records])
    sentences = ["".join(f"{word} {tag}\n" for word, tag in zip(r["tokens"], r["tags"])) for r in records]
    (place / "ner.conll").write_text("\n".join(sentences))
    (place / "recipes").symlink_to(ROOT / "recipes")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_command_runs(tmp_path, monkeypatch, capfd):
    """In order: later ones read what earlier ones made. What is launched on two processes is only read here."""
    write_files(tmp_path)
    write_corpus(tmp_path / "text.txt", most=300)
    for name, more in (("general", {}), ("books", PAIR)):
        code, out, err = run_short(PRETRAIN, tmp_path, monkeypatch, capfd)(f"runs/{name}", **more)
        assert code == 0, out + err
    ran = 0
    for words in commands():
        script = next(word for word in words if word.startswith("scripts/"))
        arguments = words[words.index(script) + 1 :]
        if words[0] == "accelerate":
            config_parser.parse(arguments, "")
            continue
        more = SHORT if script == "scripts/finetune.py" else []
        code, out, err = run_here([*arguments, *more], tmp_path, monkeypatch, capfd, script.removeprefix("scripts/"))
        assert code == 0, f"{words}\n{err}"
        ran += 1
    assert ran == 12
    assert "fine-tuned, it is " in (tmp_path / "exported/books/discriminator/README.md").read_text("utf-8").lower()
    assert (tmp_path / "runs/kept/scores/books/seed-2/model/config.json").exists()


def test_options_that_the_page_names_exist():
    text = PAGE.read_text("utf-8")
    known = help_page(Settings, "")
    groups = "task|run|optim|train|checkpoint|tracking"
    named = set(re.findall(rf"\b(?:{groups})\.[a-z_]+\b(?!\.)", text)) - {"train.tsv", "run.dir"}
    assert len(named) > 15 and [name for name in named if f"--{name} " not in known] == []
