"""Real faults of trackers: W&B's service is killed, its folder cannot be written, TensorBoard's disk is full. Runs go on."""

import os
import shutil
import subprocess
import time

import psutil
import pytest

from electra_accel.runs import run_folder
from tests.pretraining_runs import finish, metrics, options, start, wandb_rows, wandb_segments, write_corpus

SHORT = dict(
    train__steps=8, eval__every=4, eval__batches=1, tracking__samples_every=4, checkpoint__every=4, optim__warmup_steps=0,
    optim__schedule="constant", tokenizer__train_vocab_size=400, tracking__mode="offline",
)  # fmt: skip
TRACKERS = ["--tracking.trackers", "wandb", "tensorboard"]


@pytest.fixture
def place(tmp_path):
    write_corpus(tmp_path / "text.txt", most=300)
    return tmp_path


def steps_of(run) -> list[int]:
    return sorted({record["step"] for record in metrics(run)})


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_goes_on_without_the_tracker_that_fails(place):
    run = place / "run"
    process = start([*options("text.txt", "run", **SHORT), *TRACKERS], place, begin=subprocess.Popen)
    end = time.monotonic() + 150
    while not any(record["step"] == 2 for record in metrics(run)) and time.monotonic() < end:
        time.sleep(0.05)
    services = [each for each in psutil.Process(process.pid).children(recursive=True) if "wandb" in each.name()]
    for service in services:
        service.kill()
    code, out, err = finish(process)
    assert services and (code, err) == (0, ""), "not even a traceback of W&B's own at the end"
    assert out.count("warning: tracker wandb failed") == 1 and "is dropped" in out
    assert steps_of(run) == list(range(9)) and run_folder.read_status(run)["state"] == "done"

    def events() -> int:
        return sum(path.stat().st_size for path in run.rglob("events.out.tfevents.*"))

    before = events()
    shutil.rmtree(run / "wandb")
    (run / "wandb").write_text("no folder")
    more = [*options("text.txt", "run", **SHORT | {"train__steps": 12}), *TRACKERS]
    code, out, err = finish(start(more, place))
    assert code == 0 and "Traceback" not in err
    assert out.count("warning: tracker wandb could not be started") == 1 and str(run / "wandb") in out
    assert events() > before, "the other tracker was started"
    assert steps_of(run) == list(range(13))


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_of_tensorboard_leaves_wandb_alone(place):
    run = place / "run"
    arguments = [*options("text.txt", "run", **SHORT | {"tracking__project": "p"}), *TRACKERS]
    assert finish(start([*arguments, "--run.deadline=0:00"], place))[0] == 75
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", run / "p"], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (run / "p" / "ballast").write_bytes(b"0" * 4096)
        code, out, _ = finish(start(arguments, place))  # TensorBoard's own thread prints a traceback
    finally:
        subprocess.run(["umount", "-l", run / "p"], check=True)
    assert code == 0 and steps_of(run) == list(range(9))
    assert out.count("warning: tracker tensorboard") == 1 and "No space left" in out and "tracker wandb" not in out
    assert {row["train/step"] for row in wandb_rows(wandb_segments(run)[-1])} >= set(range(2, 9)), (
        "W&B was told the rest"
    )
