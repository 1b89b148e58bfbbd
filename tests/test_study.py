"""scripts/study.py: study files name real options, and a study is run, continued and put into a table and a chart."""

import json
import lzma
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from electra_accel.reports.study import read_study
from electra_accel.runs import run_folder
from tests.finetuning.small import make_encoder
from tests.helpers import ROOT
from tests.pretraining_runs import options, run_here, write_corpus

FILES = sorted((ROOT / "recipes" / "studies").glob("*.yaml"))
SCRIPT = "study.py"
LABELLED = ("train", "dev", "test")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_study_of_ours_is_ready_to_run(file, tmp_path, monkeypatch, capfd):
    """Each row and the fine-tuning pass the checks of the two scripts, and no two rows are the same."""
    for name in LABELLED:
        rows = "".join(f"w{i}\t{i % 2}\n" for i in range(2100))
        (tmp_path / f"nsmc_sentiment_{name}.tsv").write_text("text\tlabel\n" + rows)
    intents = "".join(f"w{i}\t{i % 7}\n" for i in range(3000))
    (tmp_path / "intent_3i4k_train.tsv").write_text("text\tlabel\n" + intents)
    with lzma.open(tmp_path / "nsmc_reviews.csv.xz", "wt") as reviews:
        reviews.write("id,sen\n1,good\n")
    networks = [make_encoder(tmp_path / name) for name in ("generator", "discriminator")]
    values = [f"data={tmp_path}", f"pair={tmp_path}", f"tokenizer={networks[0]}"]
    code, out, err = run_here([file, "--set", *values, "--dry_run"], ROOT, monkeypatch, capfd, SCRIPT)
    assert (code, err) == (0, ""), err
    study = read_study(str(file), {"data": "d", "pair": "p", "tokenizer": "t"})
    assert out.count("scripts/pretrain.py") == 2 * len(study.rows) == 2 * len({str(row.words) for row in study.rows})


def write_study(place: Path) -> None:
    """Two rows with as many FLOPs, and one that is not run."""
    changed = dict(train__steps=None, train__flops=1.2e11, eval__every=50, eval__batches=1, tracking__samples_every=50)
    fixed = dict(word[2:].split("=", 1) for word in options("text.txt", "", **changed, model__generator_width=None))
    del fixed["run.dir"]
    study = {
        "pretrain": fixed,
        "finetune": {
            **{f"task.{name}_file": "{data}/" + f"{name}.jsonl" for name in LABELLED},
            "task.kind": "classification",
            "task.name": "t",
            "train.epochs": 1,
            "run.seeds": [1],
        },
        "rows": [
            {"name": "base", "curve": "two networks"},
            {
                "name": "one-network",
                "options": {"objective.kind": "mlm"},
                "finetune": {"optim.learning_rate": "1e-3"},
                "curve": "one network",
            },
            {"name": "not-yet", "options": {"model.sharing": "none"}},
        ],
    }
    (place / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))


def write_data(place: Path) -> None:
    write_corpus(place / "text.txt", most=300)
    (place / "more.txt").write_text("a module\n")
    (place / "empty.csv").write_text("text\n")
    for name in LABELLED:
        records = [{"text": f"the module number {i} of {name}", "label": i % 2} for i in range(40)]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


LINE = ["study.yaml", "--set", "data=.", "--seeds", "1", "--rows", "base", "one-network"]


@pytest.mark.slow
def test_a_study_runs_goes_on_and_is_told(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    write_data(tmp_path)
    write_study(tmp_path)
    folder = tmp_path / "runs" / "study"
    for again in (False, True):
        code, out, err = run_here(LINE, tmp_path, monkeypatch, capfd, SCRIPT)
        assert code == 0, out + err
        assert ("runs/study/base-1 is finished" in out) is again
    found = json.loads((folder / "results.json").read_text())
    base, alone = found["base"], found["one-network"]
    assert base["seeds"].keys() == {"1"} and "auc" in base["mean"] and "auc" not in alone["mean"]
    for entry, run in ((base, "base-1"), (alone, "one-network-1")):
        last = run_folder.read_jsonl(folder / run / "metrics.jsonl")[-1]
        assert entry["mean"]["flops"] == last["train/flops"] == pytest.approx(1.2e11, rel=0.08)
        assert last["step"] > 10
    assert alone["mean"]["tokens"] > 1.05 * base["mean"]["tokens"]
    # A row with a fine-tuning rate of its own has a folder of its own, and a place in the same table.
    own = "tasks-optim.learning_rate=1e-3"
    for entry, model, tasks, rate in ((base, "base-1", "tasks", None), (alone, "one-network-1", own, 1e-3)):
        results = json.loads((folder / tasks / "results.json").read_text())["tasks"]["t"]["models"]
        assert results.keys() == {model}
        assert entry["mean"]["t/accuracy"] == results[model]["seeds"]["1"]["test"]["accuracy"]
        identity = json.loads((folder / tasks / "t" / model / "seed-1" / "identity.json").read_text())
        assert identity["optim.learning_rate"] == rate
    difference = alone["difference"]["t/accuracy"]
    assert difference["mean"] == pytest.approx(alone["mean"]["t/accuracy"] - base["mean"]["t/accuracy"])
    table = (folder / "results.md").read_text().splitlines()
    assert sum("| not run |" in line for line in table) == 1
    assert "| not-yet | --model.sharing=none | not run |" in table[4]
    html = (folder / "results.html").read_text()
    assert 'class="chart"' in html and "two networks" in html

    code, out, err = run_here(
        [*LINE, "--pretrain", "--run.seed 3 --optim.learning_rate 1e-4"], tmp_path, monkeypatch, capfd, SCRIPT
    )
    # What is finished is not taken for something else, and that is seen before anything runs.
    assert code == 2 and "row base: run.dir runs/study/base-1 " in err
    assert "scripts/pretrain.py" not in out
    code, out, err = run_here([*LINE, "--finetune", "--train.epochs 2"], tmp_path, monkeypatch, capfd, SCRIPT)
    assert code == 2 and "finetune, task t: " in err
    assert "runs/study/tasks/t/base-1/seed-1 " in err
    assert "train.epochs 1 -> 2" in err and "scripts/pretrain.py" not in out


ONE_PROCESS = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
ONE_PROCESS += [str(ROOT / "accelerate_configs" / "single.yaml"), "--main_process_port", "0"]


@pytest.mark.parametrize(
    ("launcher", "number"),
    [([], signal.SIGTERM), (ONE_PROCESS, signal.SIGTERM), ([], signal.SIGHUP)],
    ids=["python", "accelerate launch", "lost terminal"],
)
def test_a_study_that_is_asked_to_stop_passes_it_on(tmp_path, launcher, number):
    """With a launcher that dies of the signal and whose exit code is another than its script's."""
    write_data(tmp_path)
    write_study(tmp_path)
    how = ["--pretrain", "--train.flops 1e15 --data.num_workers 1", "--launcher", shlex.join(launcher)]
    out = tmp_path / "out.txt"  # no pipe, which whoever is left would hold open
    with open(out, "w") as file:
        process = subprocess.Popen(
            [sys.executable, ROOT / "scripts" / SCRIPT, *LINE, *how],
            cwd=tmp_path,
            env=os.environ | {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=file,
        )
    run = tmp_path / "runs" / "study" / "base-1"
    deadline = time.monotonic() + 200
    try:
        while len(run_folder.read_jsonl(run / "metrics.jsonl")) < 3 and time.monotonic() < deadline:
            assert process.poll() is None, out.read_text()
            time.sleep(0.5)
        assert len(processes_in(tmp_path)) >= 3 + bool(launcher)  # the study, its run, a loader worker
        process.send_signal(number)
        code, left = process.wait(60), processes_in(tmp_path)
        assert (code, left) == (75, []), out.read_text()
    finally:
        for each in processes_in(tmp_path):
            each.kill()
        process.wait(60)
    assert run_folder.read_status(run)["state"] == "preempted" and list((run / "checkpoints").glob("step-*"))


def processes_in(folder: Path) -> list[psutil.Process]:
    """All that work there, whoever their parents are."""
    return [each for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == str(folder)]


def test_a_launcher_that_fails_is_no_stop_though_the_run_was_stopped_before(tmp_path, monkeypatch, capfd):
    """Its exit code tells nothing, and neither does what an earlier run wrote."""
    write_data(tmp_path)
    write_study(tmp_path)
    run = tmp_path / "runs" / "study" / "base-1"
    run.mkdir(parents=True)
    run_folder.write_status(run, "preempted", 3, "signal SIGTERM", 75)
    line = [*LINE, "--launcher", shlex.join([sys.executable, "-c", "raise SystemExit(1)"])]
    code, _, err = run_here(line, tmp_path, monkeypatch, capfd, SCRIPT)
    assert code == 2 and "pretrain.py ended with exit code 1" in err, err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: [", "broken YAML"),
        ("{pretrain: {}, finetune: {}, rows: [], pretrain: {a.b: 1}}", "line 1: broken YAML: 'pretrain' stands"),
        ("{pretrain: {}, finetune: {}, rows: [{name: }]}", "row 1: a row has a name"),
        ("rows: []", "a study holds pretrain, finetune, rows"),
        ("{pretrain: {}, finetune: {}, rows: {a: b}}", "rows must be a list"),
        ("{pretrain: {}, finetune: {}, rows: []}", "no rows"),
        ("{pretrain: {}, finetune: {}, rows: [{name: a/b}]}", "row 1: a row has a name"),
        ("{pretrain: {}, finetune: {}, rows: [{name: a, steps: 3}]}", "unknown: steps"),
        ("{pretrain: {}, finetune: {}, rows: [{name: a}, {name: a}]}", "row 2: a stands there twice"),
        ("{pretrain: {}, finetune: {}, rows: [{name: a, against: b}]}", "none of the rows above: b"),
        ("{pretrain: {}, finetune: {}, rows: [{name: a, options: 3}]}", "options must be names and values"),
        ("{pretrain: {}, finetune: {}, rows: [{name: a, finetune: [b]}]}", "finetune must be names and values"),
        ("{pretrain: {}, finetune: {}, rows: [{name: tasks-a}]}", "tasks-a stands there twice, or begins as"),
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
    ("arguments", "message"),
    [
        (["--rows", "none"], "--rows none"),
        (["--set", "data"], "write NAME=VALUE"),
        (["--seeds", "1", "1"], "--seeds names one of them twice"),
        (["--pretrain", "--train.step 3"], "row base: command line: unknown option train.step"),
        (["--pretrain", "--train.epochs 3"], "row base: command line: train.epochs and train.flops exclude each other"),
        (["--finetune", "--task.kind pair --task.text_columns text"], "finetune: task.kind pair takes 2"),
        (["--launcher", "no-such-program launch"], "--launcher no-such-program: there is no such program"),
        (["--launcher", "python 'a"], "--launcher python 'a: No closing quotation"),
        (["--pretrain", '--run.note "a'], '--pretrain --run.note "a: No closing quotation'),
        (["--finetune", "--a 'b"], "--finetune --a 'b: No closing quotation"),
        (["--finetune", "--pretrain", "--train.steps 3"], "argument --finetune: expected one argument"),
        (["--seeds", "1", "-1"], "--seeds -1: give numbers from 0 on"),
        (["--set", "data=nowhere"], "finetune, task t: nowhere/train.jsonl: no such file"),
        (["--finetune", "--task.label_column mood"], "finetune, task t: train.jsonl, line 1: no column 'mood'"),
        (["--finetune", "--task.train_rows 41"], "finetune, task t: ./train.jsonl has 40 rows to train on, fewer than"),
        (["--pretrain", "--data.eval_files a.txt"], "row base: a.txt: no such file"),
        (["--pretrain", "--data.eval_files more.txt empty.csv"], "row base: empty.csv holds no text"),
        (["--rows", "not-yet", "--pretrain", "--data.train_files t.txt"], "row not-yet: t.txt: no such file"),
        (
            ["--pretrain", "--tokenizer.train_vocab_size null --tokenizer.path ./x"],
            "row base: ./x: no such tokenizer folder",
        ),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(tmp_path, monkeypatch, capfd, arguments, message):
    write_data(tmp_path)
    write_study(tmp_path)
    code, _, err = run_here(["study.yaml", "--set", "data=.", *arguments], tmp_path, monkeypatch, capfd, SCRIPT)
    assert code == 2 and message in err and err.count("\n") == 1, err
    assert not (tmp_path / "runs").exists()


def test_one_option_of_a_script_needs_no_blank_in_its_quotes(tmp_path, monkeypatch, capfd):
    write_data(tmp_path)
    write_study(tmp_path)
    line = ["study.yaml", "--set", "data=.", "--finetune", "--train.epochs=2", "--pretrain", "--cpu", "--dry_run"]
    code, out, err = run_here(line, tmp_path, monkeypatch, capfd, SCRIPT)
    assert code == 0, err
    lines = out.strip().splitlines()
    pretrain, finetune = ([line for line in lines if f"scripts/{name}.py" in line] for name in ("pretrain", "finetune"))
    assert len(pretrain) == 6 and all(" --cpu " in line for line in pretrain)
    # Rows with fine-tuning options of their own are fine-tuned apart; those of the command line come last.
    assert [" --optim.learning_rate=1e-3 --train.epochs=2 " in line for line in finetune] == [False, True]
    assert all(" --train.epochs=2 " in line for line in finetune)
