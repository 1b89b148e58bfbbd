"""A power cut keeps what was flushed, and any of the names given since: what is renamed into place was flushed before."""

import os
from pathlib import Path

import pytest

from electra_accel.data.waiting import build_once
from electra_accel.durable import flush, sweep
from electra_accel.runs import checkpoint, run_folder
from tests.pretraining_runs import options, run_here, write_corpus


@pytest.fixture
def renamed(monkeypatch, tmp_path):
    """What was renamed into place -> files and folders of it that were not flushed before, or were written to after that."""
    flushed, found = set(), {}

    def version(status: os.stat_result) -> tuple[int, int]:
        return status.st_ino, status.st_mtime_ns

    def note(descriptor, real=os.fsync):
        flushed.add(version(os.fstat(descriptor)))
        real(descriptor)

    def watched(name):
        real = getattr(os, name)

        def rename(source, target):
            below = [Path(source), *Path(source).rglob("*")]
            ours = str(target).startswith(str(tmp_path)) or not os.path.isabs(target)
            if ours and not Path(target).name.startswith("."):
                missing = [str(each) for each in below if version(each.stat()) not in flushed]
                found[os.path.relpath(target)] = missing
            real(source, target)

        return rename

    monkeypatch.setattr(os, "fsync", note)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, watched(name))
    return found


def test_the_watch_sees_what_is_not_flushed(renamed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        Path(name).mkdir()
        Path(name, "file").write_text("x")
    flush(Path("b"))
    os.rename("a", "c")
    os.rename("b", "d")
    assert renamed == {"c": ["a", "a/file"], "d": []}


def test_prepared_text_exports_and_checkpoints_are_on_the_disk_before_they_have_their_names(
    renamed, tmp_path, monkeypatch, capfd
):
    write_corpus(tmp_path / "text.txt", most=300)
    short = dict(train__steps=2, optim__warmup_steps=0, eval__every=2, eval__batches=1, checkpoint__every=1)
    short |= dict(tokenizer__train_vocab_size=400, tracking__mode="disabled")
    code, out, err = run_here(options("text.txt", "run", **short), tmp_path, monkeypatch, capfd)
    assert code == 0, out + err
    parts = {path.removeprefix("run/").split("/")[0] for path in renamed}
    assert {"checkpoints", "held_out", "generator", "discriminator", "corrector", "status.json"} <= parts
    assert any(path.startswith("prepared/text-") for path in renamed)
    assert {path: missing for path, missing in renamed.items() if missing and "/wandb/" not in path} == {}


def test_a_folder_that_is_made_once_and_one_that_is_replaced(renamed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_once(tmp_path / "made", lambda folder: (folder / "file").write_text("x") and None, print)
    Path("new").mkdir()
    Path("new", "file").write_text("x")
    run_folder.replace_folder(Path("new"), Path("place"))
    (checkpoint.begin(tmp_path / "checkpoints", 1) / "weights").write_text("x")
    checkpoint.commit(tmp_path / "checkpoints", 1)
    assert {"made", "place", "checkpoints/step-00000001"} <= renamed.keys()
    assert {path: missing for path, missing in renamed.items() if missing} == {}


def test_what_kills_have_left_is_swept(tmp_path):
    for name in ("status.json.12.partial", "metrics.jsonl", "thesis.partial"):
        (tmp_path / name).write_text("x")
    for name in (".model.partial", ".generator.removed", ".step-00000003.partial.removed12", "generator"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    (tmp_path / ".link.removed").symlink_to(tmp_path / "generator")
    sweep(tmp_path)
    sweep(tmp_path / "missing")
    left = sorted(path.name for path in tmp_path.rglob("*"))
    assert left == ["file", "generator", "metrics.jsonl", "thesis.partial"]
