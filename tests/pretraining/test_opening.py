"""What a run's folder must be like, and how much room it must have, before a run begins or goes on in it."""

import shutil
from collections import namedtuple

import pytest
from torch import nn

from electra_accel.errors import UserError
from electra_accel.pretraining import opening, taking
from electra_accel.pretraining.config import Config
from electra_accel.runs import checkpoint, run_folder
from electra_accel.runs.stopping import STOP_FILE

PARAMETERS = 1000
ONE, EXPORTS = 12 * PARAMETERS, 4 * PARAMETERS


@pytest.fixture
def needed(tmp_path, monkeypatch):
    """needed(keep=…, …) -> the fewest free bytes with which a run may go on in tmp_path."""

    def find(keep: int, patience: int = 0, corrective_weight: float = 0, keep_every: int = 0) -> int:
        config, free = Config(), 0
        config.objective.corrective_weight = corrective_weight
        model = nn.ModuleDict({"discriminator": nn.Linear(PARAMETERS, 1, bias=False)})
        config.checkpoint.keep, config.eval.patience = keep, patience
        config.checkpoint.keep_every = keep_every
        usage = namedtuple("usage", "free")
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(free))
        while True:
            try:
                taking.require_space(tmp_path, model, config, steps=40)
                return free
            except UserError:
                free += 1000

    return find


def save(folder, step: int) -> None:
    (checkpoint.begin(folder, step) / "weights").write_bytes(bytes(ONE))
    checkpoint.commit(folder, step)


def test_room_for_what_is_still_to_come(needed, tmp_path):
    assert needed(keep=2) == 3 * ONE + EXPORTS
    assert needed(keep=2, patience=3) == 4 * ONE + EXPORTS, "the best stays, too"
    assert needed(keep=2, keep_every=20) == 5 * ONE + EXPORTS, "of 40 steps"
    assert needed(keep=2, corrective_weight=50) == 3 * ONE + 2 * EXPORTS, "its corrector has an encoder, too"
    checkpoints = tmp_path / run_folder.CHECKPOINTS
    for step, more in ((2, 2), (4, 1), (6, 1)):
        save(checkpoints, step)
        assert needed(keep=2) == more * ONE + EXPORTS, "one is always written before another goes away"
    assert needed(keep=2, patience=3) == ONE + EXPORTS
    checkpoint.set_aside(checkpoints, after_step=2)
    assert needed(keep=2) == ONE + EXPORTS, "the next pruning frees them"


@pytest.mark.parametrize(
    ("names", "ours"),
    [
        ([], True),
        ([STOP_FILE], True),
        ([run_folder.LOCK, run_folder.PROBE], True),
        ([run_folder.LOCK, "config.yaml.123.partial"], True),
        (["metrics.jsonl.123.partial"], False),
        ([run_folder.WARM_START, run_folder.STATUS, STOP_FILE], True),
        ([run_folder.STATUS], False),
        ([run_folder.STATUS, STOP_FILE], False),
        (["thesis.txt"], False),
    ],
)
def test_what_may_stand_in_the_folder_of_a_new_run(tmp_path, names, ours):
    """A status without its run has lost the rest: it said how far the run had come, and step 0 would write over it."""
    for name in names:
        (tmp_path / name).mkdir() if name == run_folder.WARM_START else (tmp_path / name).write_text("{}")
    if ours:
        assert opening.open_run(tmp_path, Config(), pytest.fail) is None
    else:
        with pytest.raises(UserError, match="not a run of ours"):
            opening.open_run(tmp_path, Config(), pytest.fail)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
