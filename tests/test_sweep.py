"""W&B sweeps: the files name real options, and a grid runs without a server by the commands that an agent would execute."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from electra_accel.options.declare import flatten
from electra_accel.pretraining.config import Config
from tests.helpers import ROOT, run_command
from tests.pretraining_runs import options, wandb_segments, write_corpus

SWEEPS = sorted((ROOT / "recipes" / "sweeps").glob("*.yaml"))
DRIVER = ROOT / "scripts" / "sweep.py"


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


def test_the_grid_is_every_combination_in_a_command_that_the_script_takes(tmp_path):
    printed = subprocess.run(
        [sys.executable, DRIVER, ROOT / "recipes/sweeps/grid.yaml", "--dry_run"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.splitlines()
    assert len(printed) == len(set(printed)) == 16
    words = printed[-1].split()
    script = words.index("scripts/pretrain.py")
    check = [sys.executable, ROOT / "scripts/pretrain.py", *words[script + 1 :], "--print_config"]
    shown = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True).stdout
    config = yaml.safe_load(shown)
    assert config["optim"]["learning_rate"] == 1e-3 and config["objective"]["mask_prob"] == 0.45
    assert config["objective"]["discriminator_weight"] == 50 and config["model"]["generator_width"] == 0.5


def test_two_trials_run_one_after_the_other_and_are_recorded_apart(tmp_path):
    write_corpus(tmp_path / "text.txt", most=300)
    fixed = [
        word
        for word in options(
            "text.txt",
            tmp_path,
            train__steps=2,
            optim__learning_rate=None,
            optim__warmup_steps=1,
            eval__every=2,
            eval__batches=1,
        )
        if not word.startswith("--run.dir")
    ]
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
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"OMP_NUM_THREADS": "1", "PATH": path, "WANDB_MODE": "offline"}
    ended = run_command([sys.executable, DRIVER, "sweep.yaml"], tmp_path, timeout=250, **environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rates = []
    for number in (1, 2):
        run = tmp_path / "runs" / f"sweep-two-{number}"
        config = yaml.safe_load((run / "config.yaml").read_text())
        rates.append(config["optim"]["learning_rate"])
        assert config["objective"]["mask_prob"] == 0.3
        assert json.loads((run / "status.json").read_text())["state"] == "done"
        (records,) = wandb_segments(run)
        started = next(record["run"] for record in records if record["type"] == "run")
        assert (started["project"], started["run_group"], started["display_name"]) == ("electra-accel", "two", run.name)
    assert rates == [1e-3, 5e-4]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method: [", "broken YAML"),
        ("{name: x, name: y}", "line 1: broken YAML: 'name' stands"),
        ("name: x", "no program, method, parameters"),
        ("{name: x, program: p, method: bayes, parameters: {}}", "method bayes needs W&B"),
        ("{name: x, program: p, method: grid, parameters: {a: 3}}", "parameters.a has neither a value nor a list"),
        (
            "{name: x, program: p, method: grid, parameters: {a: {values: 3}}}",
            "parameters.a has neither a value nor a list",
        ),
        ("{name: x, program: p, method: grid, parameters: [a]}", "no parameters"),
        ("{name: 3, program: p, method: grid, parameters: {}}", "no name"),
        ("{name: x, program: p, method: grid, parameters: {}, command: 3}", "command is not a list"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_grid_is_one_line(tmp_path, text, words):
    if text is not None:
        (tmp_path / "bad.yaml").write_text(text)
    ended = subprocess.run([sys.executable, DRIVER, tmp_path / "bad.yaml"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and words in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
