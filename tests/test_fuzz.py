"""A cut of ``make fuzz``: 300 damaged inputs are taken, or refused with a line that names them."""

from pathlib import Path

import pytest
from hypothesis import strategies as st

from electra_accel.errors import UserError
from tests.fuzz.drive import fuzz
from tests.fuzz.targets import Target, targets

TARGETS = ("command_line", "configuration", "corpus", "task", "tokenizer", "network", "saved")


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> dict[str, Target]:
    return targets(tmp_path_factory.mktemp("good"))


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_taken_or_named(name: str, known, tmp_path: Path):
    found = fuzz(known[name], 43, tmp_path)
    assert found["refused"] > 5, "damage that nothing notices finds nothing"
    assert known.keys() == set(TARGETS)


@pytest.mark.parametrize(
    ("good", "names", "fault", "said"),
    [
        (0, [""], KeyError, "1001"),
        (0, ["given.txt"], AssertionError, "names none"),
        (11, [""], AssertionError, "without damage"),
    ],
)
def test_a_fault_is_found(good: int, names: list[str], fault: type[Exception], said: str, tmp_path: Path):
    """Else all would be well with anything."""

    def read(folder: Path, value: int) -> None:
        if value > 1000 and fault is KeyError:
            raise KeyError(value)
        if value > 10:
            raise UserError(f"{value} is too much")

    with pytest.raises(fault, match=said):
        fuzz(Target(good, st.integers(0, 10**6), read, lambda value: names), 100, tmp_path)
