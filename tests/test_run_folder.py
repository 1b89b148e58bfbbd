import json
import os
import subprocess

import pytest

from electra_accel.errors import UserError
from electra_accel.runs import run_folder


def test_jsonl_is_cut_back_to_a_step_and_survives_an_unfinished_line(tmp_path):
    path = tmp_path / run_folder.METRICS
    for step in (0, 10, 20, 30):
        run_folder.append_jsonl(path, {"step": step, "text": "감정\n분석"})
    with open(path, "a") as file:
        file.write('{"step": 40, "te')  # killed while writing
    run_folder.cut_back(path, 20)
    run_folder.append_jsonl(path, {"step": 30, "text": "again"})
    assert [record["step"] for record in run_folder.read_jsonl(path)] == [0, 10, 20, 30]
    assert run_folder.read_jsonl(path)[-1]["text"] == "again"
    run_folder.cut_back(tmp_path / "missing.jsonl", 20)  # a run that was killed before it wrote anything


def test_status_is_replaced_whole(tmp_path):
    assert run_folder.read_status(tmp_path)["state"] == "new"
    run_folder.write_status(tmp_path, "running", 5)
    run_folder.write_status(tmp_path, "failed", 7, reason="no space", exit_code=2)
    status = run_folder.read_status(tmp_path)
    assert (status["state"], status["step"], status["reason"], status["exit_code"]) == ("failed", 7, "no space", 2)
    assert json.loads((tmp_path / run_folder.STATUS).read_text())["time"]
    assert [path.name for path in tmp_path.iterdir()] == [run_folder.STATUS]


COMPILER = "InductorError: C++ compile error\n\nCommand:\n" + "g++ -O3 kernel.cpp\n" * 5000  # 100 KB


@pytest.mark.parametrize("reason", [COMPILER, "no " * 120, "x" * 301])
def test_a_long_reason_is_one_line_that_names_the_file_with_the_rest(tmp_path, reason):
    run_folder.write_status(tmp_path, "failed", 7, reason, 1)
    line = run_folder.read_status(tmp_path)["reason"]
    assert len(line) <= 300 and "\n" not in line and line.split()[0][:100] == reason.split()[0][:100]
    assert run_folder.FAILURE in line
    assert (tmp_path / run_folder.FAILURE).read_text().rstrip() == reason.rstrip()


@pytest.mark.parametrize("reason", ["", "no space", "a reason\non two lines", "y" * 300])
def test_a_short_reason_is_all_on_its_line(tmp_path, reason):
    run_folder.write_status(tmp_path, "failed", 7, reason, 1)
    assert run_folder.read_status(tmp_path)["reason"] == " ".join(reason.split())
    assert [path.name for path in tmp_path.iterdir()] == [run_folder.STATUS]


def test_files_may_go_away_at_any_moment(tmp_path, monkeypatch):
    """Another process removes them between a look and the reading."""
    monkeypatch.setattr(type(tmp_path), "exists", lambda path: True)
    assert run_folder.read_json(tmp_path / "gone.json") == {}
    assert run_folder.read_jsonl(tmp_path / "gone.jsonl") == []


def test_a_folder_is_replaced_although_the_old_one_cannot_be_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError(16, "busy")))
    for text in ("one", "two", "three"):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "weights").write_text(text)
        run_folder.replace_folder(tmp_path / "new", tmp_path / "model")
        assert (tmp_path / "model" / "weights").read_text() == text
    monkeypatch.undo()
    (tmp_path / "new").mkdir()
    run_folder.replace_folder(tmp_path / "new", tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_cannot_hold_the_run_is_refused_before_any_work(tmp_path):
    run_folder.require_writable(tmp_path / "a" / "b", needed_bytes=1)
    assert list((tmp_path / "a" / "b").iterdir()) == []
    with pytest.raises(UserError, match="are free, the run needs about"):
        run_folder.require_writable(tmp_path, needed_bytes=10**18)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        run_folder.require_writable(tmp_path / "file" / "run", needed_bytes=1)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_the_users_line(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("this machine does not allow mounts")
    try:
        with pytest.raises(UserError, match="no space left"), run_folder.storage_errors(tmp_path):
            (tmp_path / "weights").write_bytes(bytes(200_000))
    finally:
        subprocess.run(["umount", tmp_path], check=True)
