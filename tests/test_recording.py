"""What a run leaves while it goes on: the bar on a terminal, checkpoints by the clock, and where sentences go."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from electra_accel.runs import checkpoint, run_folder
from electra_accel.runs.schedule import learning_rate
from tests.helpers import ROOT
from tests.pretraining_runs import finish, metrics, options, start, wandb_rows, wandb_segments, write_corpus

STEPS, PEAK, WARMUP = 6, 1e-3, 2
LINES, HELD_OUT, IN_BOTH = 400, 40, 15
COMMON = {
    "data__train_files": "reference.txt",
    "data__eval_files": "held_out.txt",
    "data__eval_fraction": None,
    "train__steps": STEPS,
    "optim__warmup_steps": WARMUP,
    "optim__learning_rate": PEAK,
    "eval__every": 1000,
    "checkpoint__every": 1000,
    "checkpoint__keep": 100,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs at once: {name: (run folder, output)}. "terminal" has a terminal for its output, "file" a pipe."""
    place = tmp_path_factory.mktemp("recording")
    write_corpus(place / "all.txt", most=LINES)
    lines = (place / "all.txt").read_text().splitlines()
    (place / "held_out.txt").write_text("\n".join(lines[:HELD_OUT]))
    (place / "reference.txt").write_text("\n".join(lines[HELD_OUT - IN_BOTH :]))
    by_the_clock = {"checkpoint__minutes": 1e-6, "tracking__samples": "none", "optim__schedule": "cosine"}
    on_terminal = options("reference.txt", place / "terminal", **COMMON, **by_the_clock)
    into_file = options("reference.txt", place / "file", **COMMON, tracking__samples="local")
    into_file += ["--tracking.trackers", "wandb", "tensorboard"]
    command = [sys.executable, str(ROOT / "scripts" / "pretrain.py"), *on_terminal]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "150", "LINES": "40"}
    environment.pop("CI", None)
    process = subprocess.Popen(
        command, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, text=True
    )
    os.close(theirs)
    other = start(into_file, place)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # Linux' end of file on a terminal whose other end is closed
        os.close(ours)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 0, shown.decode()[-3000:] + errors
    code, out, err = finish(other)
    assert code == 0, out + err
    return {"terminal": (place / "terminal", shown.decode()), "file": (place / "file", out)}


def sample_tables(run: Path) -> list[dict]:
    (records,) = wandb_segments(run)
    return [row for row in wandb_rows(records) if any(name.startswith("samples/") for name in row)]


def test_the_bar_is_shown_on_a_terminal_alone(runs):
    _, shown = runs["terminal"]
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    bars = [line for line in re.split(r"[\r\n]", text) if re.match(rf"[━╸╺ ]+\d/{STEPS}", line)]
    last = rf"{STEPS}/{STEPS} 0s left  loss [\d.]+  ROC-AUC [\d.]+  [\d,]+ tokens/s  data wait \d+%"
    assert any(re.search(last, line) for line in bars), bars
    assert f"step {STEPS}/{STEPS}  loss" in text, "log lines stand above the bar"
    _, out = runs["file"]
    assert "\x1b" not in out and "━" not in out


def test_checkpoints_are_written_when_the_minutes_have_passed(runs):
    steps = {name: [step for step, _ in checkpoint.existing(run / "checkpoints")] for name, (run, _) in runs.items()}
    assert steps == {"terminal": list(range(1, STEPS + 1)), "file": [STEPS]}


@pytest.mark.parametrize(("name", "schedule"), [("terminal", "cosine"), ("file", "linear")])
def test_the_learning_rate_follows_its_schedule(runs, name, schedule):
    shape = dict(peak=PEAK, warmup_steps=WARMUP, total_steps=STEPS, schedule=schedule)
    rates = [record["train/learning_rate"] for record in metrics(runs[name][0]) if "train/learning_rate" in record]
    assert rates == [learning_rate(step, **shape) for step in range(STEPS)]
    assert (rates[3] > PEAK * 0.6 + 1e-6) == (schedule == "cosine"), "a cosine stays high longer than a line"


def test_tensorboard_holds_what_metrics_jsonl_holds(runs):
    """Read with its own event reader."""
    run, out = runs["file"]
    assert "metrics.jsonl, tensorboard, W&B offline" in out
    # The hyperparameters have a file of their own.
    events = max(run.rglob("events.out.tfevents.*"), key=lambda file: file.stat().st_size)
    reader = EventAccumulator(str(events.parent))
    reader.Reload()
    for prefix in ("train/", "eval/", "speed/"):
        held_out = prefix == "eval/"
        records = [r for r in run_folder.read_jsonl(run / run_folder.METRICS) if ("eval/auc" in r) == held_out]
        names = [name for name in records[-1] if name.startswith(prefix) and name != "eval/calibration"]
        assert len(names) > 4
        for name in names:
            written = {r["step"]: r[name] for r in records if r.get(name) is not None}
            logged = {event.step: event.value for event in reader.Scalars(name)}
            assert logged.keys() >= written.keys()
            assert all(logged[step] == pytest.approx(value, rel=1e-5) for step, value in written.items()), name


def test_held_out_files_are_held_out(runs):
    """data.eval_files: texts that are in the training text too are left out of them, and nothing else is held out."""
    (manifest,) = runs["file"][0].parent.glob("prepared/*/manifest.json")
    splits = json.loads(manifest.read_text())["splits"]
    documents = {name: split["documents"] for name, split in splits.items()}
    assert documents == {"train": LINES - HELD_OUT + IN_BOTH, "held_out": HELD_OUT - IN_BOTH}
    assert f"held out  {splits['held_out']['examples']} examples" in runs["file"][1]


def test_sentences_stay_where_tracking_samples_says(runs):
    run, out = runs["terminal"]
    assert not (run / run_folder.SAMPLES).exists() and sample_tables(run) == [] and "  input    : " not in out
    run, out = runs["file"]
    samples = run_folder.read_jsonl(run / run_folder.SAMPLES)
    assert samples and sample_tables(run) == [] and "  input    : " in out
    (log,) = run.glob("wandb/offline-run-*/run-*.wandb")
    held_by_wandb = log.read_bytes() + b"".join(path.read_bytes() for path in log.parent.rglob("*.log"))
    assert b"train/loss" in held_by_wandb
    assert not [s for s in samples if s["output"].encode() in held_by_wandb], "W&B copies what a terminal shows"
    for _, out in runs.values():
        assert "W&B offline" in out and "tracking.samples" not in out
