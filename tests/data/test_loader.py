import multiprocessing
import pickle
import subprocess
import sys
import time
from dataclasses import fields
from itertools import islice

import numpy as np
import pytest
import torch

from electra_accel.data.collate import Collator
from electra_accel.data.loader import StepLoader
from electra_accel.data.packing import BinLimits
from electra_accel.data.plan import Layout
from tests.data.synthetic import PAD, masking, plan_of, random_lengths, write_store

LIMITS = BinLimits(64, 12, 8)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store"), random_lengths(900, 3, 50))


def loader_of(store, rank=0, world_size=1, workers=0, passes=None, micro_batch_tokens=64 * 3):
    layout = Layout.derive(12, 64, micro_batch_tokens, world_size)
    collator = Collator(store, masking(), LIMITS, layout.rows, seed=1, pad_id=PAD)
    return StepLoader(plan_of(store, LIMITS, 12, passes=passes), layout, rank, collator, num_workers=workers)


def rows(steps):
    """All that the model would see, one tuple of lists per step."""
    return [
        (
            s.step,
            s.tokens,
            s.epoch,
            s.cursor,
            [[getattr(b, f.name).tolist() for f in fields(b)] for b in s.micro_batches],
        )
        for s in steps
    ]


def no_children_left(seconds=4.0):
    deadline = time.monotonic() + seconds
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not multiprocessing.active_children()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # 3 on a machine with 2 cores
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_number_of_workers_changes_nothing(store, workers):
    expected = rows(islice(loader_of(store).steps(), 12))
    assert rows(islice(loader_of(store, workers=workers).steps(), 12)) == expected
    assert no_children_left()


@pytest.mark.parametrize("workers", [0, 2])
def test_going_on_in_the_middle(store, workers):
    expected = list(islice(loader_of(store).steps(), 9))
    resumed = loader_of(store, workers=workers).steps(expected[3].cursor, 4)
    assert rows(islice(resumed, 5)) == rows(expected[4:])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plan_that_ends_shows_every_example_and_ends_the_workers(store, workers):
    steps = list(loader_of(store, workers=workers, passes=1).steps())
    seen = torch.cat([batch.examples.flatten() for step in steps for batch in step.micro_batches])
    assert sorted(seen[seen >= 0].tolist()) == list(range(900))
    assert all(len(step.micro_batches) == 4 for step in steps)  # the last step too, with empty bins
    assert sum(int(batch.real.sum()) for step in steps for batch in step.micro_batches) == sum(s.tokens for s in steps)
    assert no_children_left()


def test_processes_share_a_step_between_them(store):
    alone = next(islice(loader_of(store).steps(), 5, None))
    shares = [next(islice(loader_of(store, rank, world_size=3).steps(), 5, None)) for rank in range(3)]
    in_order = [shares[rank].micro_batches[a] for a in range(2) for rank in range(3)]  # 3 processes x 2 x 2 rows
    for field in fields(in_order[0]):
        whole = torch.cat([getattr(batch, field.name) for batch in alone.micro_batches])
        assert torch.equal(whole, torch.cat([getattr(batch, field.name) for batch in in_order]))
    assert len({share.cursor for share in shares} | {alone.cursor}) == 1


def test_workers_end_when_the_training_leaves_early(store):
    steps = loader_of(store, workers=2).steps()
    next(steps)
    assert len(multiprocessing.active_children()) == 2
    steps.close()
    assert no_children_left()

    with pytest.raises(RuntimeError, match="of the loop"):
        for _ in loader_of(store, workers=2).steps():
            raise RuntimeError("of the loop")
    assert no_children_left()


def test_an_error_in_a_worker_arrives(tmp_path):
    lengths = np.full(500, 20)
    lengths[250] = 70  # longer than a bin: the plan of the worker refuses it
    with pytest.raises(ValueError, match="does not fit"):
        next(loader_of(write_store(tmp_path, lengths), workers=2).steps())
    assert no_children_left()


def test_a_collator_can_be_sent_to_another_process(store):
    collator = loader_of(store).collator
    bins = next(plan_of(store, LIMITS, 12).steps()).bins[:3]
    again = pickle.loads(pickle.dumps(collator)).collate(bins)
    for field in fields(again):
        assert torch.equal(getattr(again, field.name), getattr(collator.collate(bins), field.name))


SIGNALLED = """
import os, signal, sys
from itertools import islice
from pathlib import Path
from electra_accel.data.store import TokenStore
from tests.data.synthetic import CORPUS, VOCAB
from tests.data.test_loader import loader_of

caught = []
signal.signal(signal.SIGTERM, lambda *_: caught.append(1))
steps = loader_of(TokenStore(Path(sys.argv[1]), VOCAB, CORPUS), workers=2).steps()
next(steps)
os.killpg(0, signal.SIGTERM)  # as a scheduler does
print(sum(1 for _ in islice(steps, 40)), len(caught))
"""


def test_a_signal_to_the_group_reaches_the_training_process_alone(tmp_path):
    """So the loop can finish its step and save."""
    write_store(tmp_path, random_lengths(900, 3, 50))
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
        check=False,
    )
    assert done.stdout.split() == ["40", "1"], done.stderr
