"""W&B sweeps: the files are what W&B takes and name real options; a grid runs without a server, as a study."""

import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from electra_accel.options.declare import flatten
from electra_accel.pretraining.config import Config
from tests.helpers import ROOT
from tests.pretraining_runs import options, run_here, wandb_segments, write_corpus

SWEEPS = sorted((ROOT / "recipes" / "sweeps").glob("*.yaml"))
GRID = ROOT / "recipes" / "sweeps" / "grid.yaml"
# W&B's own schema, as far as our files use it (config/schema.json of its package `sweeps` 0.3.0, which needs NumPy 1).
MACROS = {"${env}", "${interpreter}", "${program}", "${args}", "${args_no_hyphens}", "${args_no_boolean_flags}"}
PARAMETERS = [{"values"}, {"value"}, {"min", "max"}, {"min", "max", "distribution"}]
DISTRIBUTIONS = {"uniform", "log_uniform_values"}


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_a_sweep_file_is_what_wandb_takes(file):
    sweep = yaml.safe_load(file.read_text())
    assert set(sweep) == {"program", "name", "method", "metric", "parameters", "command"}
    assert sweep["method"] in ("grid", "random", "bayes") and sweep["metric"]["goal"] in ("maximize", "minimize")
    assert set(sweep["metric"]) == {"name", "goal"}
    for parameter in sweep["parameters"].values():
        assert set(parameter) in PARAMETERS
        assert sweep["method"] == "random" or "values" in parameter
        if "min" in parameter:
            assert parameter["distribution"] in DISTRIBUTIONS
            assert isinstance(parameter["min"], float) and 0 < parameter["min"] < parameter["max"]
        else:
            assert isinstance(parameter["values"], list) and len(parameter["values"]) > 1
    assert {word for word in sweep["command"] if str(word).startswith("$")} <= MACROS
    assert {"${program}", "${args}"} <= set(sweep["command"])


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_a_sweep_file_launches_the_script_with_real_options(file):
    sweep = yaml.safe_load(file.read_text())
    command = [str(part) for part in sweep["command"]]
    assert command[1:3] == ["accelerate", "launch"] and command[-1] == "${args}"
    for option in ("--config_file", "--config"):
        assert (ROOT / command[command.index(option) + 1]).exists()
    assert (ROOT / sweep["program"]).exists()
    known = flatten(Config())
    assert set(sweep["parameters"]) <= set(known)
    assert {
        "optim.learning_rate",
        "objective.mask_prob",
        "objective.discriminator_weight",
        "model.generator_width",
    } == set(sweep["parameters"])


def test_the_grid_is_every_combination_in_a_command_that_the_script_takes(monkeypatch, capfd):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    code, out, err = run_here([GRID, "--seeds", "1", "--dry_run"], ROOT, monkeypatch, capfd, "study.py")
    assert code == 0, err
    printed = out.splitlines()
    assert len(printed) == len({line.partition("--run.dir")[0] for line in printed}) == 16
    assert all(line.startswith("accelerate launch --config_file accelerate_configs/single.yaml") for line in printed)
    words = printed[-1].split()
    script = next(at for at, word in enumerate(words) if word.endswith("scripts/pretrain.py"))
    assert words[-2:] == ["--run.dir", "runs/grid/trial-16-1"] and "--tracking.group=electra-grid" in words
    code, out, err = run_here([*words[script + 1 :], "--print_config"], ROOT, monkeypatch, capfd)
    assert code == 0, err
    config = yaml.safe_load(out)
    assert config["optim"]["learning_rate"] == 4e-3 and config["objective"]["mask_prob"] == 0.5
    assert config["objective"]["discriminator_weight"] == 50 and config["model"]["generator_width"] == 0.5


def test_two_trials_run_one_after_the_other_and_are_recorded_apart(tmp_path, monkeypatch, capfd):
    write_corpus(tmp_path / "text.txt", most=300)
    short = dict(train__steps=2, optim__learning_rate=None, optim__warmup_steps=1, eval__every=2, eval__batches=1)
    fixed = [word for word in options("text.txt", tmp_path, **short) if not word.startswith("--run.dir")]
    sweep = {
        "program": str(ROOT / "scripts/pretrain.py"),
        "name": "two",
        "method": "grid",
        "parameters": {"optim.learning_rate": {"values": [1e-3, 5e-4]}, "objective.mask_prob": {"value": 0.3}},
        "command": [
            *("${env}", "accelerate", "launch", "--config_file", str(ROOT / "accelerate_configs/cpu.yaml")),
            *("--main_process_port", 0, "${program}", "${args}", *fixed),
        ],
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code, out, err = run_here(["sweep.yaml", "--seeds", "7"], tmp_path, monkeypatch, capfd, "study.py")
    assert code == 0, out + err
    rates = []
    for number in (1, 2):
        run = tmp_path / "runs" / "sweep" / f"trial-{number}-7"
        config = yaml.safe_load((run / "config.yaml").read_text())
        rates.append(config["optim"]["learning_rate"])
        assert (config["objective"]["mask_prob"], config["run"]["seed"]) == (0.3, 7)
        assert json.loads((run / "status.json").read_text())["state"] == "done"
        (records,) = wandb_segments(run)
        started = next(record["run"] for record in records if record["type"] == "run")
        assert (started["project"], started["run_group"], started["display_name"]) == ("electra-accel", "two", run.name)
    assert rates == [1e-3, 5e-4]
    found = json.loads((run.parent / "results.json").read_text())
    assert [entry["mean"].keys() >= {"auc", "tokens"} for entry in found.values()] == [True, True]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method: [", "broken YAML"),
        ("{name: x, name: y}", "line 1: broken YAML: 'name' stands"),
        ("{method: grid}", "a sweep has parameters"),
        ("{name: x, program: p, method: bayes, parameters: {}}", "method bayes needs W&B"),
        ("{program: pretrain.py, method: grid, parameters: {a: 3}}", "parameters.a has neither a value nor a list"),
        (
            "{program: pretrain.py, method: grid, parameters: {a: {values: 3}}}",
            "parameters.a has neither a value nor a list",
        ),
        ("{program: pretrain.py, method: grid, parameters: [a]}", "a sweep has parameters"),
        ("{program: other.py, method: grid, parameters: {}}", "program is not scripts/pretrain.py"),
        ("{program: pretrain.py, method: grid, parameters: {}, command: 3}", "in the list command"),
        ("{program: pretrain.py, method: grid, parameters: {a.b: {value: 3}}}", "unknown option a.b"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_grid_is_one_line(tmp_path, monkeypatch, capfd, text, words):
    if text is not None:
        (tmp_path / "bad.yaml").write_text(text)
    code, _, err = run_here(["bad.yaml"], tmp_path, monkeypatch, capfd, "study.py")
    assert code == 2 and words in err and err.count("\n") == 1, err
