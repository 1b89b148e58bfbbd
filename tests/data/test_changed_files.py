"""Text that changes while it is prepared is not taken for what it was at first."""

import os
from pathlib import Path

import pytest

from electra_accel.data.prepare import prepare
from electra_accel.errors import UserError
from electra_accel.text.corpus import Corpus
from tests.text.texts import TEXTS

SETTINGS = dict(tokenizer=None, train_vocab_size=300, max_length=32, eval_fraction=0.1, join_lines=False, processes=1)


@pytest.mark.parametrize("change", ["grows", "is another", "vanishes"])
def test_a_file_that_changes_meanwhile_is_named(tmp_path: Path, change: str):
    """It would be found again as what it was at first."""
    file = tmp_path / "text.txt"
    file.write_text("\n".join(TEXTS))

    def log(line: str) -> None:
        if line.startswith("training a vocabulary"):
            if change == "vanishes":
                file.unlink()
            elif change == "grows":
                file.write_text("\n".join([*TEXTS, "more"]))
            else:
                (tmp_path / "other.txt").write_text("\n".join(TEXTS).swapcase())
                os.replace(tmp_path / "other.txt", file)

    with pytest.raises(UserError, match=f"^{file}( was changed while|: no such file)"):
        prepare(tmp_path / "root", Corpus(files=(str(file),)), {}, log=log, **SETTINGS)
    assert not list((tmp_path / "root").glob("*/"))


@pytest.mark.parametrize("more", [True, False], ids=["one more", "one less"])
def test_a_glob_that_finds_other_files_later_is_noticed(tmp_path: Path, more: bool):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("\n".join(TEXTS))

    def log(line: str) -> None:
        if line.startswith("training a vocabulary"):
            (tmp_path / "c.txt").write_text("text") if more else (tmp_path / "b.txt").unlink()

    found = "c" if more else "b"
    with pytest.raises(UserError, match=f"{found}.txt( was changed while|: no such file)"):
        prepare(tmp_path / "root", Corpus(files=(str(tmp_path / "*.txt"),)), {}, log=log, **SETTINGS)
