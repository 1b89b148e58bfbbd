"""What a list of files may hold that somebody else wrote; tests/data/test_damaged.py damages the files themselves."""

from pathlib import Path

import pytest

from electra_accel.digests import Damaged, digests, require_whole
from electra_accel.runs import run_folder

UNNAMEABLE = [{name: {"bytes": 1, "sha256": ""}} for name in ("a\0b", "\ud800")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner" / "below").mkdir(parents=True)
    (tmp_path / "outside").write_text("of the folder")
    for name in ("a", "below/b"):
        (tmp_path / "inner" / name).write_text(f"content of {name}")
    return tmp_path / "inner"


def test_a_folder_is_what_its_digests_say_and_others_may_stand_beside_them(folder):
    found = digests(folder)
    assert found.keys() == {"a", "below/b"} and found["a"]["bytes"] == len("content of a")
    (folder / "new").write_text("beside them")
    require_whole(folder, found)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "below/../../outside"])
def test_a_list_cannot_leave_its_folder(name: str, folder):
    facts = digests(folder.parent)["outside"]
    with pytest.raises(Damaged, match="outside of it"):
        require_whole(folder, digests(folder) | {name: facts})


@pytest.mark.parametrize("wanted", [None, [], "a", {"a": None}, {"a": {"bytes": 12}}, {"a": []}, *UNNAMEABLE])
def test_a_list_of_another_form_is_damage(wanted, folder):
    with pytest.raises(Damaged):
        require_whole(folder, wanted)


def test_records_may_grow_and_not_change(tmp_path):
    metrics = tmp_path / run_folder.METRICS
    metrics.write_text('{"step": 1}\n')
    known = run_folder.records(tmp_path)
    assert known.keys() == {run_folder.METRICS}, "of what is there"
    metrics.write_text('{"step": 1}\n{"step": 2}\n')
    assert run_folder.altered_records(tmp_path, known) == []
    for content in ('{"step": 3}\n{"step": 2}\n', '{"step"', ""):
        metrics.write_text(content)
        assert run_folder.altered_records(tmp_path, known) == [run_folder.METRICS]
    metrics.unlink()
    assert run_folder.altered_records(tmp_path, known) == [run_folder.METRICS]
