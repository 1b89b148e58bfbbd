import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import GeneralTracker, get_available_trackers

from electra_accel.errors import UserError
from electra_accel.options.groups import Tracking
from electra_accel.runs import run_folder
from electra_accel.tracking.recorder import Recorder, _log_samples
from electra_accel.tracking.samples import Reconstruction
from electra_accel.tracking.trackers import destination, usable_trackers, wandb_mode, wandb_settings
from tests.pretraining_runs import wandb_rows, wandb_segments

WANDB = {"name": "x", "id": "y", "job_type": "", "tags": []}


@pytest.fixture
def no_account(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))


def test_trackers_are_those_named_and_an_empty_list_is_none():
    warnings = []
    default = usable_trackers(None, warnings.append)
    assert (default, len(warnings)) in ((["wandb"], 0), ([], 1))
    assert usable_trackers([], pytest.fail) == []
    installed = [str(name) for name in get_available_trackers()]
    assert usable_trackers(installed, pytest.fail) == installed


@pytest.mark.parametrize("name", ["json", "all", "Wandb"])
def test_a_tracker_that_nobody_knows_is_one_line_with_all_names(name):
    with pytest.raises(UserError, match=f"tracking.trackers: {name} is none of .*tensorboard, wandb"):
        usable_trackers(["wandb", name], pytest.fail)


def test_the_mode_of_wandb_is_the_environments_then_the_options_then_by_the_key(no_account, monkeypatch):
    assert wandb_mode(None) == "offline"
    assert wandb_mode("online") == "online"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert wandb_mode(None) == "online"
    assert wandb_mode("offline") == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode("online") == "disabled"


@pytest.mark.parametrize(
    ("variables", "mode", "uploads"),
    [
        ({"WANDB_MODE": "dryrun"}, "offline", "will be uploaded to W&B if you sync"),
        ({"WANDB_MODE": "run"}, "online", "are uploaded"),
        ({"WANDB_MODE": "shared"}, "shared", "are uploaded"),
        ({"WANDB_MODE": "disabled"}, "disabled", ""),
        ({"WANDB_MODE": ""}, "online", "are uploaded"),
        ({"WANDB_DISABLED": "true"}, "disabled", ""),
        ({"WANDB_DISABLED": "1", "WANDB_MODE": "online"}, "disabled", ""),
        ({"WANDB_DISABLED": "false"}, "online", "are uploaded"),
    ],
)
def test_the_mode_by_all_its_names(no_account, monkeypatch, variables, mode, uploads):
    """As W&B takes them; WANDB_DISABLED as the Trainer of transformers does."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert usable_trackers(["wandb"], pytest.fail) == ["wandb"]
    assert wandb_mode("online") == mode
    said = destination(Tracking(mode="online"), ["wandb"], Path("runs/x"))
    assert f"W&B {mode}," in said and uploads in said and ("uploaded" in said) == bool(uploads)
    assert os.environ.get("WANDB_MODE") != "", "W&B would refuse it"


def test_a_mode_that_wandb_does_not_know_is_named_before_the_run_begins(no_account, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(UserError, match="WANDB_MODE=ofline.*online, offline"):
        usable_trackers(["wandb"], pytest.fail)
    assert usable_trackers(["tensorboard"] * ("tensorboard" in get_available_trackers()), pytest.fail) is not None


def test_a_key_in_netrc_counts(no_account, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password " + "0" * 40)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_mode(None) == "online"


@pytest.mark.parametrize(
    ("mode", "samples", "words"),
    [
        ("online", "all", "sentences of the held-out text are uploaded to W&B"),
        ("offline", "all", "will be uploaded to W&B if you sync the run"),
        ("online", "local", None),
        ("offline", "none", None),
        ("disabled", "all", None),
    ],
)
def test_sentences_that_leave_the_machine_are_announced(no_account, mode, samples, words):
    said = destination(Tracking(mode=mode, samples=samples), ["wandb"], Path("runs/x"))
    assert f"W&B {mode}, project electra-accel" in said
    assert ("wandb sync runs/x/wandb/offline-run-*" in said) == (mode == "offline")
    if words:
        assert words in said and "--tracking.samples local" in said
    else:
        assert "sentences" not in said


def test_without_wandb_nothing_is_announced(no_account):
    assert destination(Tracking(mode="online"), [], Path("runs/x")) == "metrics.jsonl"
    assert destination(Tracking(mode="online"), ["tensorboard"], Path("runs/x")) == "metrics.jsonl, tensorboard"


SENTENCE = Reconstruction(
    original=["an", "old", "word"],
    shown=["an", "[MASK]", "word"],
    generated=["an", "odd", "word"],
    best=["", "old", ""],
    selected=[False, True, False],
    masked=[False, True, False],
    probability=[0.1, 0.9, 0.1],
)


def test_trackers_get_what_the_discriminator_would_put_there_where_it_was_asked():
    axes, told = {"train/step": 3}, {}
    for corrected in ([], ["", "old", ""]):
        sample = dataclasses.replace(SENTENCE, corrected=corrected)
        for name in ("wandb", "tensorboard"):
            tracker = SimpleNamespace(name=name, log=lambda values, step=None, name=name: told.update({name: values}))
            _log_samples(tracker, [sample], axes)
        table = told["wandb"]["samples/reconstructions"]
        assert table.columns[-2:] == (["probabilities", "corrected"] if corrected else ["verdict", "probabilities"])
        assert len(table.data[0]) == len(table.columns)
        assert (table.data[0][-1] == "an [old]= word") == bool(corrected)
        text = told["tensorboard"]["samples/reconstructions"]
        assert text.startswith("- an [odd]+ word" + "; corrected: an [old]= word" * bool(corrected) + " (1 caught")


class Failing(GeneralTracker):
    """A tracker whose server goes away after the first row."""

    name, requires_logging_directory, tracker = "failing", False, None

    def __init__(self):
        super().__init__()
        self.rows = 0

    def start(self): ...

    def store_init_configuration(self, values): ...

    def log(self, values, step=None, **keywords):
        if self.rows:
            raise ConnectionError("the server went away")
        self.rows += 1


def test_a_tracker_that_fails_never_stops_training(tmp_path):
    warnings, tracker = [], Failing()
    recorder = Recorder(Accelerator(cpu=True, log_with=[tracker]), tmp_path, samples="all", warn=warnings.append)
    recorder.start(Tracking(), {}, 0, WANDB)
    for step in (1, 2, 3):
        recorder.metrics({"train/loss": 1.0, "train/step": step, "train/tokens": step})
    recorder.close()
    AcceleratorState._reset_state(reset_partial_state=True)  # it is one for the whole process
    assert tracker.rows == 1
    assert len(warnings) == 1 and "the server went away" in warnings[0]
    assert [record["step"] for record in run_folder.read_jsonl(tmp_path / run_folder.METRICS)] == [1, 2, 3]


@pytest.mark.parametrize("mode", ["online", "run"])
def test_wandb_without_a_network_is_recorded_offline(tmp_path, monkeypatch, mode):
    """A key is stored, as on many clusters, but the compute node reaches nothing."""
    for name, value in {
        "WANDB_API_KEY": "0" * 40,
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_INIT_TIMEOUT": "3",
        "WANDB_MODE": mode,
    }.items():
        monkeypatch.setenv(name, value)
    wandb.teardown()  # an earlier test's W&B keeps the timeout of 90 s that it began with
    warnings = []
    recorder = Recorder(Accelerator(cpu=True, log_with="wandb"), tmp_path, samples="all", warn=warnings.append)
    said = recorder.start(Tracking(), {}, 0, WANDB)
    recorder.metrics({"train/loss": 1.0, "train/step": 1, "train/tokens": 5})
    recorder.close()
    AcceleratorState._reset_state(reset_partial_state=True)
    assert len(warnings) == 1 and "W&B cannot be reached" in warnings[0], warnings
    assert "W&B offline" in said
    (records,) = wandb_segments(tmp_path)
    assert [row["train/loss"] for row in wandb_rows(records)] == [1.0]


def test_names_of_folders_are_cut_to_what_wandb_takes(no_account, tmp_path):
    given = {"name": "n" * 216, "id": "x", "job_type": "pre-training", "tags": ["t" * 100, "t" * 99, "", None, "a"]}
    cut = wandb_settings(Tracking(), tmp_path, given)
    assert (cut["name"], cut["job_type"], cut["tags"]) == ("n" * 128, "pre-training", ["t" * 64, "a"])
    assert "group" not in cut
    wandb.Settings(run_name=cut["name"], run_tags=cut["tags"])
    with pytest.raises(ValueError, match="64"):
        wandb.Settings(run_tags=["t" * 100])


def test_variables_of_wandb_come_first(no_account, monkeypatch, tmp_path):
    """For every job; what the job says comes last."""
    given = {"name": "n", "id": "x", "group": "of the job", "job_type": "fine-tuning", "tags": ["task"]}
    for value, wanted in ((None, "of the job"), ("g", "g")):
        assert wandb_settings(Tracking(group=value), tmp_path, given)["group"] == wanted
    for name in ("RUN_GROUP", "JOB_TYPE", "TAGS", "NOTES"):
        monkeypatch.setenv(f"WANDB_{name}", name)
    found = wandb_settings(Tracking(group="g", tags=["a"], notes="n"), tmp_path, given)
    assert [found[name] for name in ("group", "job_type", "notes")] == ["RUN_GROUP", "JOB_TYPE", "NOTES"]
    assert found["tags"] == ["a", "TAGS", "task"]
