"""A run that is asked to stop saves, says so, and goes on later as if nothing had happened."""

import datetime
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest

from electra_accel.options.groups import deadline_time
from electra_accel.runs import run_folder, stopping
from electra_accel.runs.stopping import StopRequests
from tests.helpers import ROOT
from tests.pretraining_runs import exported_weights, finish, metrics, options, run_short, start, write_corpus

SHORT = {
    "train__steps": 12,
    "checkpoint__every": 100,
    "eval__every": 6,
    "eval__batches": 1,
    "tracking__samples_every": 6,
    "tracking__log_every": 4,
    "tokenizer__train_vocab_size": 400,
    "optim__warmup_steps": 0,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preemption")
    write_corpus(folder / "text.txt", most=300)
    return folder


@pytest.fixture
def train(place, monkeypatch, capfd):
    return run_short(SHORT, place, monkeypatch, capfd)


def test_stopped_between_two_log_lines_and_resumed(train, place, monkeypatch):
    """The same weights, and the same metrics.jsonl: figures of the steps before the stop are not lost."""
    assert train("whole")[0] == 0
    real, asked = StopRequests.reason, []

    def touch_the_stop_file(self):
        asked.append(1)
        if len(asked) == 7:  # in step 7: log lines are due after 4, 6 (evaluation), 8 and 12
            self.stop_file.touch()
        return real(self)

    monkeypatch.setattr(StopRequests, "reason", touch_the_stop_file)
    code, out, err = train("halves")
    assert code == 75, out + err
    assert "stopped at step 7 (file halves/stop)" in out + err
    status = run_folder.read_status(place / "halves")
    assert (status["state"], status["step"], status["exit_code"]) == ("preempted", 7, 75)
    assert not (place / "halves" / "discriminator").exists()
    assert [row["step"] for row in metrics(place / "halves")][-1] == 6

    code, out, err = train("halves")  # the stop file is still there: it was meant for the run before
    assert code == 0, out + err
    assert run_folder.read_status(place / "halves")["state"] == "done"
    assert metrics(place / "halves") == metrics(place / "whole")
    assert exported_weights(place / "halves") == exported_weights(place / "whole")


def test_deadline(train, place):
    code, out, err = train("late", run__deadline="0:00")
    assert code == 75, out + err
    assert "stopped at step 1 (run.deadline)" in out + err
    assert train("late", run__deadline="11:30")[0] == 0  # another deadline is no other run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_that_comes_twice_at_once_is_one_and_a_later_one_acts_as_ever(number, monkeypatch):
    met = []
    before = signal.signal(number, lambda *_: met.append(number))
    try:
        with StopRequests(None, None) as requests:
            assert requests.reason() == ""
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            assert requests.reason() == f"signal {signal.Signals(number).name}"
            assert met == []
            monkeypatch.setattr(stopping, "SAME_SIGNAL", 0.0)
            os.kill(os.getpid(), number)
            assert met == [number]
        os.kill(os.getpid(), number)
        assert met == [number, number]
    finally:
        signal.signal(number, before)


def test_a_lost_terminal_is_a_wish_to_stop_however_often_it_is_told(monkeypatch):
    met = []
    before = signal.signal(signal.SIGHUP, lambda *_: met.append(1))
    monkeypatch.setattr(stopping, "SAME_SIGNAL", 0.0)
    try:
        with StopRequests(None, None) as requests:
            os.kill(os.getpid(), signal.SIGHUP)
            assert requests.reason() == "signal SIGHUP"
            os.kill(os.getpid(), signal.SIGHUP)
            assert met == [], "shell and system both send it: the run is still saving"
        os.kill(os.getpid(), signal.SIGHUP)
        assert met == [1]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_stop_file_holds_where_the_launcher_starts_again(monkeypatch, tmp_path):
    """It takes a run that was asked to stop for one that failed."""
    for restarts, reason in (("1", f"file {tmp_path / 'stop'}"), ("0", "")):
        (tmp_path / "stop").touch()
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
        with StopRequests(tmp_path / "stop", None) as stop:
            assert stop.reason() == reason


def test_under_nohup_a_lost_terminal_is_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequests(None, None) as requests:
            os.kill(os.getpid(), signal.SIGHUP)
            assert requests.reason() == "" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("tee", "nohup"), [(False, False), (True, False), (False, True)])
def test_a_run_whose_terminal_is_lost_saves(place, tmp_path, tee, nohup):
    """As with a broken ssh: the shell and all that it runs get SIGHUP, and what is printed goes nowhere (EIO), or to a tee that
    is dead already (EPIPE). Under nohup it goes on."""
    changed = SHORT | {
        "train__steps": 100_000,
        "eval__every": 100_000,
        "tracking__log_every": 1,
        "tracking__samples": "none",
    }
    run = tmp_path / "run"
    script = [sys.executable, ROOT / "scripts" / "pretrain.py", *options("text.txt", run, **changed)]
    words = ("nohup " if nohup else "") + shlex.join(map(str, script)) + (f" | tee {tmp_path}/said" if tee else "")
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
        os.chdir(place)
        os.execvp("bash", ["bash", "-c", words])
    try:
        end = time.monotonic() + 150
        while len(metrics(run)) < 3 and time.monotonic() < end:
            time.sleep(0.05)
            with suppress(OSError):  # nohup's output goes to a file, and nobody holds the other end
                while select.select([terminal], [], [], 0)[0]:
                    os.read(terminal, 65536)
        steps = len(metrics(run))
        os.close(terminal)
        while run_folder.read_status(run)["state"] == "running" and time.monotonic() < end:
            time.sleep(0.05)
            if nohup and len(metrics(run)) > steps + 5:
                break
    finally:
        for process in _of(run):
            process.terminate()
        psutil.wait_procs([*_of(run), *([psutil.Process(pid)] if psutil.pid_exists(pid) else [])], 60)
    status = run_folder.read_status(run)
    assert (status["state"], status["exit_code"]) == ("preempted", 75)
    assert status["reason"] == ("signal SIGTERM" if nohup else "signal SIGHUP")
    assert (run / "checkpoints" / f"step-{status['step']:08d}" / "manifest.json").exists()


def test_one_of_two_processes_is_asked(place):
    """Both stop after the same step although only the second one got the signal; launched as on a cluster."""
    changed = SHORT | {"train__steps": 100_000, "tracking__log_every": 2, "eval__every": 100_000}
    arguments = options("text.txt", "two", **changed)
    launch = ["--config_file", ROOT / "accelerate_configs" / "ddp.yaml", "--num_processes", 2, "--main_process_port", 0]
    process = start(arguments, place, launch, begin=subprocess.Popen, WANDB_MODE="disabled")
    end = time.monotonic() + 150
    while len(metrics(place / "two")) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    (second,) = [p for p in psutil.Process(process.pid).children(recursive=True) if _variable(p, "RANK") == "1"]
    second.send_signal(signal.SIGUSR1)
    code, out, err = finish(process)
    assert code == 1  # accelerate launch knows no other
    status = run_folder.read_status(place / "two")
    assert (status["state"], status["reason"]) == ("preempted", "signal SIGUSR1"), out + err
    assert (place / "two" / "checkpoints" / f"step-{status['step']:08d}" / "manifest.json").exists()


@pytest.mark.parametrize("text", ["tomorrow", "11:xx", "25"])
def test_deadlines_that_are_none(text):
    with pytest.raises(ValueError):
        deadline_time(text)


def test_times_of_the_deadline():
    now = datetime.datetime.now()
    assert 5400 <= deadline_time("1:30") - now.timestamp() < 5410
    assert (
        deadline_time("2030-01-02T03:04+00:00") == datetime.datetime(2030, 1, 2, 3, 4, tzinfo=datetime.UTC).timestamp()
    )


def _of(run) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if f"--run.dir={run}" in (p.info["cmdline"] or [])]


def _variable(process, name):
    return process.environ().get(name)
