"""docs/architecture.md is true: its files, rooms, names and options are there, and each of the ten changes has its row."""

import re

import pytest

from electra_accel.finetuning.config import Settings
from electra_accel.options.help import help_page
from electra_accel.pretraining.config import Config
from tests.helpers import ROOT
from tests.test_imports import ORDER

PACKAGE = ROOT / "electra_accel"
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
QUOTED = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", PAGE, flags=re.M | re.S))
CHANGES = [
    *("masking rule", "engine", "metric", "task kind", "optimizer"),
    *("attention kernel", "file reader", "tracker", "checkpoint rule", "model size"),
]


def rows() -> list[list[str]]:
    """Cells of the table "to change X, touch Y", without its head."""
    table = re.findall(r"^\|.*\|$", PAGE.partition("## To change X")[2], re.M)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table[2:]]


def files_in(cell: str) -> list[str]:
    return re.findall(r"`([\w./]+(?:\.py|/))`", cell)


def test_every_file_named_exists():
    """The message lists those that moved: write where they are now."""
    of_a_run = {"discriminator/", "generator/", "corrector/", "config.yaml"}
    named = {word for word in QUOTED if re.fullmatch(r"[\w./]+(\.(py|yaml|md)|/)", word)} - of_a_run
    assert len(named) > 30
    assert [name for name in sorted(named) if not ((ROOT / name).exists() or (PACKAGE / name).exists())] == []


def test_the_drawing_shows_the_rooms_in_their_order():
    """From the top floor down: the folders of ``ORDER`` in tests/test_imports.py, and every folder of the package."""
    drawing = re.search(r"^```\n(.*?)^```", PAGE, re.M | re.S)[1]
    scripts, *drawn = re.findall(r"^(\w+)/ ", drawing, re.M)
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert scripts == "scripts"
    assert drawn[::-1] == [room for room in ORDER if room in folders]
    assert set(drawn) == folders
    ground = set(re.findall(r"(\w+)\.py", drawing.rpartition("ground floor")[2]))
    assert ground and ground <= set(ORDER) - folders


def test_the_table_has_the_ten_changes():
    assert [row[0] for row in rows()] == CHANGES


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_needs_a_file_configuration_and_a_test(change):
    """One file, two where a registry line is needed (engines have their launch files), then configuration and test."""
    (row,) = (row for row in rows() if row[0] == change)
    _, touch, configuration, test = row
    assert 1 <= len(files_in(touch)) <= 2, touch
    assert files_in(configuration), configuration
    tests = files_in(test)
    assert tests and all(re.fullmatch(r"tests/(\w+/)?test_\w+\.py", name) for name in tests), test


def test_every_option_and_name_in_capitals_exists():
    known = help_page(Config, "") + help_page(Settings, "")
    options = {
        word for word in QUOTED if re.fullmatch(r"[a-z]+\.[a-z_]+", word) and not word.endswith((".py", ".yaml"))
    }
    assert len(options) > 8 and [name for name in sorted(options) if f"--{name} " not in known] == []
    for row in rows():
        for name in re.findall(r"`([A-Z_]+)`", " ".join(row)):
            texts = [
                (PACKAGE / file).read_text("utf-8")
                for cell in row
                for file in files_in(cell)
                if file.endswith(".py") and (PACKAGE / file).is_file()
            ]
            assert any(re.search(rf"^{name}\b", text, re.M) for text in texts), f"{row[0]}: {name}"
