import os
import subprocess
import sys
import time

import pytest

from electra_accel.runs import checkpoint


def write(folder, step, text="weights"):
    partial = checkpoint.begin(folder, step)
    (partial / "model.bin").write_text(text)
    (partial / "rank").mkdir()
    (partial / "rank" / "0.bin").write_text("optimizer")
    return checkpoint.commit(folder, step)


def test_a_committed_checkpoint_verifies_and_is_the_newest(tmp_path):
    write(tmp_path, 5)
    newest = write(tmp_path, 12)
    assert checkpoint.verify(newest)["step"] == 12
    assert set(checkpoint.verify(newest)["files"]) == {"model.bin", "rank/0.bin"}
    assert checkpoint.newest_valid(tmp_path, pytest.fail) == newest


def shorten(path):
    (path / "model.bin").write_text("weig")


def alter(path):
    (path / "model.bin").write_text("Weights")


def remove(path):
    (path / "rank" / "0.bin").unlink()


def without_manifest(path):
    (path / checkpoint.MANIFEST).unlink()


def half_a_manifest(path):
    text = (path / checkpoint.MANIFEST).read_text()
    (path / checkpoint.MANIFEST).write_text(text[: len(text) // 2])


@pytest.mark.parametrize("damage", [shorten, alter, remove, without_manifest, half_a_manifest])
def test_a_damaged_checkpoint_is_named_and_skipped(tmp_path, damage):
    whole, broken = write(tmp_path, 5), write(tmp_path, 12)
    damage(broken)
    warnings = []
    assert checkpoint.newest_valid(tmp_path, warnings.append) == whole
    assert len(warnings) == 1 and str(broken) in warnings[0]


def test_an_interrupted_save_is_invisible_and_cleared_away(tmp_path):
    write(tmp_path, 5)
    (checkpoint.begin(tmp_path, 9) / "model.bin").write_text("half")
    assert [step for step, _ in checkpoint.existing(tmp_path)] == [5]
    checkpoint.prune(tmp_path, keep=1, protect=set(), warn=pytest.fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000005"]


def test_pruning_keeps_the_newest_and_the_protected(tmp_path):
    for step in (1, 2, 30, 4):
        write(tmp_path, step)
    checkpoint.prune(tmp_path, keep=2, protect={1}, warn=pytest.fail)
    assert [step for step, _ in checkpoint.existing(tmp_path)] == [1, 4, 30]


def test_later_checkpoints_are_set_aside_so_that_new_ones_survive_pruning(tmp_path):
    write(tmp_path, 500)
    shorten(write(tmp_path, 1000))
    checkpoint.set_aside(tmp_path, after_step=500)
    write(tmp_path, 600)
    checkpoint.prune(tmp_path, keep=1, protect=set(), warn=pytest.fail)
    assert [step for step, _ in checkpoint.existing(tmp_path)] == [600]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000600"]


def test_a_kill_at_any_moment_leaves_only_whole_checkpoints(tmp_path):
    """A child saves one checkpoint after another and is killed without warning; whatever is named like one verifies."""
    program = (
        "import sys, pathlib\n"
        "from electra_accel.runs import checkpoint\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "for step in range(1, 10_000):\n"
        "    partial = checkpoint.begin(folder, step)\n"
        "    (partial / 'model.bin').write_bytes(bytes(200_000))\n"
        "    checkpoint.commit(folder, step)\n"
        "    checkpoint.prune(folder, 2, set(), print)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], env={**os.environ, "PYTHONPATH": os.getcwd()}
    )
    deadline = time.monotonic() + 60
    while len(checkpoint.existing(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    child.kill()
    child.wait(timeout=30)
    found = checkpoint.existing(tmp_path)
    assert found
    for step, path in found:
        assert checkpoint.verify(path)["step"] == step


@pytest.fixture
def held(monkeypatch):
    """held(part): from now on no folder with ``part`` in its path can be emptied, as where an NFS client holds a file of it."""
    real, parts = os.unlink, []

    def unlink(path, *more, **options):
        place = os.readlink(f"/proc/self/fd/{options['dir_fd']}") if options.get("dir_fd") is not None else str(path)
        if any(part in place for part in parts):
            raise OSError(16, "Device or resource busy", str(path))
        real(path, *more, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    return parts.append


def test_one_that_cannot_be_deleted_is_named_once_and_gone_when_it_can(tmp_path, held, monkeypatch):
    for step in (1, 2, 3):
        write(tmp_path, step)
    held("step-00000001")
    warnings = []
    checkpoint.prune(tmp_path, 1, set(), warnings.append)
    assert len(warnings) == 1 and "step-00000001" in warnings[0] and "busy" in warnings[0]
    assert [step for step, _ in checkpoint.existing(tmp_path)] == [3], "the other one went, and none is half there"
    write(tmp_path, 4)
    checkpoint.prune(tmp_path, 1, set(), pytest.fail)
    monkeypatch.undo()
    checkpoint.prune(tmp_path, 1, set(), pytest.fail)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]


def test_what_an_interrupted_save_left_and_cannot_be_deleted_does_not_stop_the_next(tmp_path, held):
    (checkpoint.begin(tmp_path, 5) / "model.bin").write_text("half")
    held("step-00000005.partial")
    assert checkpoint.verify(write(tmp_path, 5))["step"] == 5
    held("step-00000007.set-aside")
    for text in ("one course", "another"):
        write(tmp_path, 7, text)
        checkpoint.set_aside(tmp_path, after_step=5)
    assert [step for step, _ in checkpoint.existing(tmp_path)] == [5]


@pytest.mark.parametrize("call", range(4))
def test_a_kill_while_the_same_step_is_saved_again_leaves_a_whole_one(tmp_path, monkeypatch, call):
    """Before and after each step of the exchange; the next save, and the next pruning, clear up."""
    write(tmp_path, 5, "first")
    count, real = [], os.rename

    def rename(source, target):
        if len(count) == call:
            raise KeyboardInterrupt
        count.append(1)
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    try:
        write(tmp_path, 5, "second")
    except KeyboardInterrupt:
        assert call < 3
    monkeypatch.undo()
    newest = checkpoint.newest_valid(tmp_path, pytest.fail)
    assert newest == checkpoint.path_of(tmp_path, 5) and checkpoint.verify(newest)["step"] == 5
    assert (newest / "model.bin").read_text() == ("first" if call < 2 else "second")
    write(tmp_path, 5, "third")
    assert (tmp_path / "step-00000005" / "model.bin").read_text() == "third"
    write(tmp_path, 6)
    checkpoint.prune(tmp_path, 1, set(), pytest.fail)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000006"]
