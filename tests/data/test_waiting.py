"""One process makes a folder and the others wait; with real processes, failing, dying and falling silent."""

import json
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path

import filelock
import pytest

from electra_accel.data import waiting
from electra_accel.data.waiting import build_once
from electra_accel.errors import UserError


def child(folder: str, name: str, seconds: float, fails: bool, silent_seconds: float) -> None:
    def build(temporary: Path) -> None:
        with open(f"{folder}.built", "a") as file:
            file.write(name)
        (temporary / "half").write_text("")
        time.sleep(seconds)
        if fails:
            raise UserError("the corpus is broken in line 7")
        (temporary / "whole").write_text("")

    try:
        build_once(Path(folder), build, lambda line: None, silent_seconds, dead_seconds=1, beat_seconds=0.1)
        result = "done" if (Path(folder) / "whole").exists() else "not there"
    except UserError as error:
        result = str(error)
    Path(f"{folder}.{name}").write_text(result)


def start(folder: Path, name: str, seconds: float = 0.5, fails: bool = False, silent_seconds: float = 60):
    process = multiprocessing.get_context("fork").Process(
        target=child, args=(str(folder), name, seconds, fails, silent_seconds)
    )
    process.start()
    return process


def results(folder: Path, processes: dict) -> dict[str, str]:
    for process in processes.values():
        process.join(60)
        assert not process.is_alive()
    return {name: Path(f"{folder}.{name}").read_text() for name in processes}


def test_one_of_many_processes_builds(tmp_path):
    folder = tmp_path / "data"
    assert set(results(folder, {name: start(folder, name) for name in "abcdefgh"}).values()) == {"done"}
    assert len((tmp_path / "data.built").read_text()) == 1
    assert {path.name for path in folder.iterdir()} == {"half", "whole"}
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".lock", ".failed") or ".tmp" in path.name]


def test_those_who_wait_fail_with_the_builders_message(tmp_path):
    folder = tmp_path / "data"
    found = results(folder, {name: start(folder, name, seconds=1, fails=True) for name in "abcd"})
    assert all("the corpus is broken in line 7" in message for message in found.values())
    assert not folder.exists() and not list(tmp_path.glob("*.lock")) and not list(tmp_path.glob("*.tmp-*"))
    assert results(folder, {"later": start(folder, "later")}) == {"later": "done"}


@pytest.mark.parametrize("exchanges", [True, False], ids=["this file system", "one that exchanges no files, as NFS"])
def test_a_dead_builder_of_this_host_is_replaced(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(filelock._soft, "exchange_names", lambda *_: False)
    folder = tmp_path / "data"
    first = start(folder, "a", seconds=60)
    while not list(tmp_path.glob("data.tmp-*/half")):
        time.sleep(0.05)
    others = {name: start(folder, name) for name in "bc"}
    os.kill(first.pid, signal.SIGKILL)
    first.join()  # reaped: until then its number is taken
    assert results(folder, others) == {"b": "done", "c": "done"}
    assert len((tmp_path / "data.built").read_text()) == 2 and not list(tmp_path.glob("data.tmp-*"))


def test_two_that_find_a_dead_builder_at_once_do_not_both_build(tmp_path, monkeypatch):
    """On a file system that exchanges no files, as NFS: one of them is slow, and meanwhile the other has begun."""
    monkeypatch.setattr(filelock._soft, "exchange_names", lambda *_: False)
    folder, judge = tmp_path / "data", waiting._is_dead

    def slow_judge(owner):
        if dead := judge(owner):
            time.sleep(2)
        return dead

    first = start(folder, "a", seconds=60)
    while not list(tmp_path.glob("data.tmp-*/half")):
        time.sleep(0.05)
    others = {"b": start(folder, "b", seconds=3)}
    monkeypatch.setattr(waiting, "_is_dead", slow_judge)
    others["c"] = start(folder, "c", seconds=3)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert results(folder, others) == {"b": "done", "c": "done"}
    assert (tmp_path / "data.built").read_text() in ("ab", "ac"), "on a busy machine the slow one may come first"
    assert not list(tmp_path.glob("data.tmp-*")) and not list(tmp_path.glob("*.breaking"))


def of_node17(lock: Path) -> None:
    """As filelock writes it elsewhere."""
    lock.write_text("filelock/2\npid=4242\nhost=node17\nmode=lease\ntoken=x\nduration=1000000000.0\nstart=1\n")


def test_a_silent_builder_elsewhere_is_named(tmp_path):
    lock = tmp_path / "data.lock"
    of_node17(lock)
    found = results(tmp_path / "data", {"a": start(tmp_path / "data", "a", silent_seconds=1)})
    assert all(part in found["a"] for part in ("node17", "4242", str(lock), "delete")) and lock.exists()


def test_a_builders_long_complaint_is_one_line_with_the_rest_beside_it(tmp_path):
    whole = "g++ failed:\n" + "a line of a compiler\n" * 5000

    def build(temporary):
        raise RuntimeError(whole)

    with pytest.raises(RuntimeError):
        build_once(tmp_path / "data", build, print)
    message = json.loads((tmp_path / "data.failed").read_text())["message"]
    assert len(message) <= 300 and "\n" not in message and "data.failed.log" in message
    assert whole in (tmp_path / "data.failed.log").read_text()
    build_once(tmp_path / "data", lambda temporary: None, print)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_lock_that_goes_away_between_two_looks(tmp_path, monkeypatch):
    """Its holder has ended just then: the next one takes over."""
    lock = tmp_path / "data.lock"
    of_node17(lock)
    real = filelock.SoftFileLease.owner.fget

    def read_and_lose(self):
        found = real(self)
        lock.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(filelock.SoftFileLease, "owner", property(read_and_lose))
    build_once(tmp_path / "data", lambda temporary: (temporary / "whole").write_text(""), print)
    assert (tmp_path / "data" / "whole").exists()


def test_a_lock_that_a_person_deletes_does_not_disturb_the_builder(tmp_path):
    def build(temporary):
        (tmp_path / "data.lock").unlink()
        time.sleep(0.3)

    build_once(tmp_path / "data", build, print, beat_seconds=0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_that_another_has_made_meanwhile_is_taken(tmp_path):
    def build(temporary):
        (temporary / "mine").write_text("")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "theirs").write_text("")

    build_once(tmp_path / "data", build, print)
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "theirs"]


def test_a_full_disk_leaves_no_empty_lock(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot write there: File too large"):
            build_once(tmp_path / "data", lambda temporary: None, lambda line: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
