"""scripts/study.py: study files name real options, and a study is run, continued and put into a table and a chart."""

import json

import pytest
import yaml

from electra_accel import run_folder
from electra_accel.config import Config, flatten
from electra_accel.downstream.settings_parser import parse
from electra_accel.downstream.study import read_study, words
from electra_accel.model.pair import build_encoder, build_pair
from electra_accel.training.networks import Pair, flops
from tests.helpers import ROOT
from tests.pretraining import options, run_here, write_corpus

FILES = sorted((ROOT / "recipes" / "studies").glob("*.yaml"))
SCRIPT = "study.py"
VALUES = {"data": "data", "pair": "pair", "tokenizer": "vocab.txt"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_study_names_real_options(file):
    study = read_study(file, VALUES)
    known = set(flatten(Config())) | {"config"}
    assert set(study.pretrain) <= known and (ROOT / study.pretrain["config"]).exists()
    for row in study.rows:
        assert set(row.options) <= known
    asked = parse(["--models", "x", *words(study.finetune)], description="")
    assert asked.tasks[0].train_file == "data/nsmc_sentiment_train.tsv" and asked.settings.run.seeds == [1, 2, 3]


def test_both_objectives_get_the_same_flops():
    rows = {
        row.name: row.options["train.steps"]
        for row in read_study(ROOT / "recipes/studies/rtd-against-mlm.yaml", VALUES).rows
    }
    shape = dict(vocab_size=8000, pad_token_id=0, max_length=64, dropout=0.1, seed=1)
    costs = []
    for pair in (
        build_pair("tiny", generator_width=None, sharing="tied", **shape),
        Pair(build_encoder("tiny", **shape), None),
    ):
        token, selected = flops(pair, context=25)
        costs.append(token + 0.3 * selected)
    for budget in ("short", "long"):
        assert rows[f"rtd-{budget}"] * costs[0] == pytest.approx(rows[f"mlm-{budget}"] * costs[1], rel=0.02)


def write_study(place):
    changed = dict(train__steps=6, eval__every=6, eval__batches=1, checkpoint__every=3, model__generator_width=None)
    fixed = dict(word[2:].split("=", 1) for word in options("text.txt", "", **changed))
    del fixed["run.dir"]
    study = {
        "pretrain": fixed,
        "finetune": {
            **{f"task.{name}_file": "{data}/" + f"{name}.jsonl" for name in ("train", "dev", "test")},
            "task.kind": "classification",
            "task.name": "t",
            "train.epochs": 1,
            "run.seeds": [1],
        },
        "rows": [
            {"name": "base", "curve": "two networks"},
            {"name": "one-network", "options": {"objective.kind": "mlm"}, "curve": "one network"},
            {"name": "not-yet", "options": {"model.sharing": "none"}},
        ],
    }
    (place / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))


def test_a_study_runs_goes_on_and_is_told(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    write_corpus(tmp_path / "text.txt", most=300)
    for name in ("train", "dev", "test"):
        records = [{"text": f"the module number {i}", "label": i % 2} for i in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    write_study(tmp_path)
    command = ["study.yaml", "--set", "data=.", "--seeds", "1", "--rows", "base", "one-network"]
    for again in (False, True):
        code, out, err = run_here(command, tmp_path, monkeypatch, capfd, SCRIPT)
        assert code == 0, out + err
        assert ("scripts/pretrain.py" in out) is not again
    folder = tmp_path / "runs" / "study"
    found = json.loads((folder / "results.json").read_text())
    base, alone = found["base"], found["one-network"]
    assert base["seeds"].keys() == {"1"} and "auc" in base["mean"] and "auc" not in alone["mean"]
    recorded = [
        r["train/flops"] for r in run_folder.read_jsonl(folder / "base-1" / "metrics.jsonl") if "train/flops" in r
    ]
    assert base["mean"]["flops"] == recorded[-1] > alone["mean"]["flops"] > 0
    tasks = json.loads((folder / "tasks" / "results.json").read_text())["tasks"]["t"]["models"]
    for entry, model in ((base, "base-1"), (alone, "one-network-1")):
        assert entry["mean"]["t/accuracy"] == tasks[model]["seeds"]["1"]["test"]["accuracy"]
    difference = alone["difference"]["t/accuracy"]
    assert difference["mean"] == pytest.approx(alone["mean"]["t/accuracy"] - base["mean"]["t/accuracy"])
    table = (folder / "results.md").read_text().splitlines()
    assert (
        sum("| not run |" in line for line in table) == 1 and "| not-yet | --model.sharing none | not run |" in table[4]
    )
    html = (folder / "results.html").read_text()
    assert 'class="chart"' in html and "two networks" in html


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: [", "not YAML"),
        ("rows: []", "a study holds pretrain, finetune, rows"),
        ("{pretrain: {}, finetune: {}, rows: {}}", "rows is not a list"),
        ("{pretrain: {}, finetune: {}, rows: []}", "no rows"),
        ("{pretrain: {}, finetune: {}, rows: [{name: a/b}]}", "row 1: a row has a name"),
        ("{pretrain: {}, finetune: {}, rows: [{name: a, steps: 3}]}", "unknown: steps"),
        ("{pretrain: {}, finetune: {}, rows: [{name: a}, {name: a}]}", "row 2: a stands there twice"),
        ("{pretrain: {}, finetune: {}, rows: [{name: a, against: b}]}", "none of the rows above: b"),
        ("{pretrain: {}, finetune: {}, rows: [{name: a, options: 3}]}", "options are no names and values"),
        ("{pretrain: {x: '{corpus}/a'}, finetune: {}, rows: [{name: a}]}", "--set corpus="),
        (None, "No such file"),
    ],
)
def test_a_broken_study_is_one_line(tmp_path, monkeypatch, capfd, text, message):
    if text is not None:
        (tmp_path / "bad.yaml").write_text(text)
    code, _, err = run_here(["bad.yaml"], tmp_path, monkeypatch, capfd, SCRIPT)
    assert code == 2 and message in err and err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--rows", "none"], "--rows none"), (["--set", "data"], "write NAME=VALUE")]
)
def test_a_mistake_on_the_command_line_is_one_line(tmp_path, monkeypatch, capfd, arguments, message):
    write_study(tmp_path)
    code, _, err = run_here(["study.yaml", "--set", "data=.", *arguments], tmp_path, monkeypatch, capfd, SCRIPT)
    assert code == 2 and message in err and err.count("\n") == 1, err
