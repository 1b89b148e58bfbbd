"""A run goes on wherever its text and its networks stand now, and is refused where they hold something else."""

import os
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from electra_accel.pretraining.config import Config
from electra_accel.pretraining.config_parser import default_folder, keep_recorded, load, parse, recorded
from electra_accel.runs import run_folder
from tests.helpers import ROOT, run_command
from tests.pretraining_runs import exported_weights, metrics, options, run_here, write_corpus

SHORT = {"train__steps": 2, "eval__every": 50, "tracking__samples_every": 50, "tracking__trackers": "[]"}
SHORT |= {"optim__warmup_steps": 1, "optim__schedule": "constant"}
LONGER = SHORT | {"train__steps": 3}


@pytest.fixture
def run(tmp_path: Path, monkeypatch, capfd):
    """``run(folder, text, cwd, option=…)`` -> exit code, stdout, stderr, of a run from scratch."""
    write_corpus(tmp_path / "text.txt", most=150)
    return lambda folder, text="text.txt", cwd=tmp_path, **changed: run_here(
        options(text, folder, **changed), cwd, monkeypatch, capfd
    )


def test_the_same_text_at_another_place_is_the_same_run(run, tmp_path: Path):
    assert run("whole", **LONGER)[0] == 0
    wanted = exported_weights(tmp_path / "whole")
    assert run("first", **SHORT)[0] == 0
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    shutil.copyfile(tmp_path / "text.txt", scratch / "copy.txt")  # another name and time of modification
    (scratch / "link.txt").symlink_to(tmp_path / "text.txt")
    for number, (text, cwd) in enumerate(
        [("./text.txt", tmp_path), (tmp_path / "text.txt", tmp_path), ("copy.txt", scratch), ("link.txt", scratch)]
    ):
        folder = tmp_path / f"run-{number}"
        shutil.copytree(tmp_path / "first", folder)
        code, out, err = run(folder, text, cwd, **LONGER)
        assert code == 0, err
        assert f"data.train_files: ['text.txt'] -> ['{text}']" in out
        assert exported_weights(folder) == wanted
    code, _, err = run(folder, "text.txt", scratch, **LONGER)
    assert (code, err.count("\n")) == (2, 1) and "text.txt: no such file" in err


def test_another_text_is_refused_also_under_the_same_name(run, tmp_path: Path):
    assert run("first", **SHORT)[0] == 0
    text = (tmp_path / "text.txt").read_text("utf-8")
    other = text.replace("the", "a")
    before = {path: path.read_bytes() for path in (tmp_path / "first").rglob("*") if path.is_file()}
    for name in ("other.txt", "text.txt"):
        (tmp_path / name).write_text(other, "utf-8")
        code, _, err = run("first", name, **LONGER)
        assert (code, err.count("\n")) == (2, 1)
        assert "run.dir first " in err and "the training text" in err
        code, _, err = run("new", name, run__resume="first/checkpoints/step-00000002", **LONGER)
        assert code == 2 and "the training text" in err and not (tmp_path / "new").exists()
    assert {path: path.read_bytes() for path in before} == before
    (tmp_path / "first" / run_folder.CONTENT).unlink()  # as of an earlier version, which compared names
    code, _, err = run("first", "other.txt", **LONGER)
    assert code == 2 and "data.train_files: ['text.txt'] -> ['other.txt']" in err


def test_a_given_pair_is_what_its_files_hold(run, tmp_path: Path):
    """However its folder is written, and not what was put there since."""
    assert run("general", **SHORT)[0] == 0
    shutil.copytree(tmp_path / "general", tmp_path / "copy")
    (tmp_path / "latest").symlink_to("general")

    def adapt(place: str, **changed) -> tuple[int, str, str]:
        pair = {
            f"model__{role}": f"{place}/{role}{'/' * (place == './general')}" for role in ("generator", "discriminator")
        }
        scratch = {"tokenizer__train_vocab_size": None, "model__size": None, "model__generator_width": None}
        return run("adapted", **pair, **scratch, **changed)

    assert adapt("general", **SHORT)[0] == 0
    for steps, place in enumerate(["./general", str(tmp_path / "general"), "latest", "copy"], start=3):
        code, out, err = adapt(place, **SHORT | {"train__steps": steps})
        assert code == 0, err
        assert "model.discriminator: " in out and "the same content" in out
    weights = tmp_path / "copy" / "discriminator" / "model.safetensors"
    os.replace(tmp_path / "general" / "generator" / "model.safetensors", weights)
    code, _, err = adapt("copy", **SHORT | {"train__steps": 9})
    assert (code, err.count("\n")) == (2, 1) and "the given discriminator has other content" in err


def test_a_run_goes_on_with_more_or_fewer_steps_without_its_own_warmup(run, tmp_path: Path):
    """The default warmup is a tenth of the steps: the recorded one stays."""
    shape = SHORT | {"optim__warmup_steps": None}
    assert run("own", **shape | {"train__steps": 20})[0] == 0
    for steps in (30, 10):
        code, _, err = run("own", **shape | {"train__steps": steps})
        assert code == 0, err
        assert load(tmp_path / "own" / run_folder.CONFIG).optim.warmup_steps == 2
    at = sorted((tmp_path / "own" / "checkpoints").glob("step-*"))[0]
    code, _, err = run("branch", **shape | {"train__steps": 40, "run__resume": at})
    assert code == 0, err
    code, _, err = run("own", **shape | {"train__steps": 30, "optim__warmup_steps": 3})
    assert code == 2 and "optim.warmup_steps: 2 -> 3" in err


def test_a_configuration_that_is_no_runs_gives_no_warmup(tmp_path: Path, monkeypatch):
    """``auto`` is no path, though a file may stand where it would lead to."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / run_folder.CONFIG).write_text("optim: {warmup_steps: 1}")
    monkeypatch.chdir(tmp_path / "a" / "b")
    config = Config()
    keep_recorded(config, tmp_path / "new")
    assert config.optim.warmup_steps is None


def test_a_requeued_job_keeps_what_its_run_recorded(tmp_path: Path, monkeypatch):
    """Slurm gives it the same job id, and so the same folder, though no --run.dir was given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    folder = Path(default_folder("own"))
    folder.mkdir(parents=True)
    (folder / run_folder.CONFIG).write_text("optim: {kind: adamw, learning_rate: 7e-4}")
    config = Config()
    keep_recorded(config, Path(default_folder("own")))
    assert (config.optim.kind, config.optim.learning_rate) == ("adamw", 7e-4)


@pytest.mark.parametrize(("before", "now"), [("false", "off"), ("true", "model"), ("layers", "layers")])
def test_a_run_of_an_earlier_version_goes_on_with_the_value_that_it_meant(tmp_path: Path, before: str, now: str):
    (tmp_path / run_folder.CONFIG).write_text(f"train: {{compile: {before}}}")
    assert recorded(tmp_path).train.compile == now
    assert parse(["--config", str(tmp_path / run_folder.CONFIG)], "").config.train.compile == now


def test_a_run_of_an_earlier_version_keeps_its_defaults(run, tmp_path: Path):
    """Those that it recorded; and where there was no choice, which it did not record: AdamW, and no corrective loss."""
    shape = dict(optim__learning_rate=None, model__generator_width=None)
    then = dict(model__sharing="tied", model__generator_width=0.5, objective__discriminator_weight=50)
    assert run("first", **SHORT | shape | then, optim__kind="adamw", objective__corrective_weight=0)[0] == 0
    file = tmp_path / "first" / run_folder.CONFIG
    earlier = {"corrective_weight": None, "matrix_learning_rate": None, "kind": None, "generator_width": "null"}
    earlier |= {"learning_rate": "0.0007"}
    lines, group = [], ""
    for line in file.read_text("utf-8").splitlines():
        group, name = (group, line.split(":")[0].strip()) if line.startswith(" ") else (line, "")
        value = earlier.get(name, "as it is") if group in ("optim:", "objective:", "model:") else "as it is"
        if line.strip() != "kind: rtd" and value != "as it is":
            line = value and f"  {name}: {value}"
        lines += [line] if line is not None else []
    file.write_text("\n".join(lines) + "\n", "utf-8")
    code, _, err = run("first", **LONGER, **shape)
    assert code == 0, err
    found = load(file)
    assert (found.optim.kind, found.optim.learning_rate, found.optim.matrix_learning_rate) == ("adamw", 7e-4, None)
    assert (found.objective.corrective_weight, found.objective.discriminator_weight) == (0, 50)
    assert (found.model.sharing, found.model.generator_width) == ("tied", 0.5)
    code, _, err = run("first", **LONGER, **shape, optim__kind="muon")
    assert code == 2 and "optim.kind: adamw -> muon" in err
    assert run("second", **SHORT)[0] == 0
    code, _, err = run("second", **LONGER, objective__kind="mlm", model__generator_width=None)
    assert code == 2 and "objective.kind: rtd -> mlm" in err
    code, _, err = run("second", **LONGER, optim__kind="adamw")
    assert code == 2 and "optim.kind: muon -> adamw" in err


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("faketime"), reason="needs the package faketime")
def test_a_run_goes_on_on_another_host_whose_clock_is_an_hour_behind(run, tmp_path: Path):
    if subprocess.run(["unshare", "--uts", "true"], capture_output=True).returncode:
        pytest.skip("needs a host name of its own (root)")
    assert run("whole", **LONGER)[0] == 0
    assert run("run", **SHORT)[0] == 0
    words = [sys.executable, str(ROOT / "scripts" / "pretrain.py"), *options("text.txt", "run", **LONGER)]
    told = f"hostname elsewhere && exec faketime -f -1h {shlex.join(words)}"
    environment = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = run_command(["unshare", "--uts", "sh", "-c", told], tmp_path, 240, **environment)
    assert done.returncode == 0, done.stderr
    assert "elsewhere" in (tmp_path / "run" / run_folder.ENVIRONMENT).read_text("utf-8")
    before = datetime.fromisoformat(run_folder.read_status(tmp_path / "run")["time"])
    assert datetime.now(UTC) - before > timedelta(minutes=50)
    assert exported_weights(tmp_path / "run") == exported_weights(tmp_path / "whole")
    trained = [[line for line in metrics(tmp_path / name) if "train/loss" in line] for name in ("run", "whole")]
    assert trained[0] == trained[1]
