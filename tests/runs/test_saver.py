"""A checkpoint is written while training goes on."""

import threading
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from electra_accel.engines.open import open_engine
from electra_accel.errors import UserError
from electra_accel.runs.saver import Saver


@pytest.fixture
def engine(tmp_path: Path):
    AcceleratorState._reset_state(reset_partial_state=True)
    engine = open_engine(precision="no", cpu=True, trackers=[], folder=tmp_path)
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for group in optimizer.param_groups:
        group["peak"] = 0.1
    engine.prepare(model, optimizer, None, max_norm=1.0)
    yield engine
    AcceleratorState._reset_state(reset_partial_state=True)


def step(engine) -> None:
    engine.backward(engine.model(torch.ones(1, 2)).sum())
    engine.step(lambda peak: peak)


def test_what_is_written_is_the_state_of_its_step_while_steps_go_on(engine):
    may_write, written, told = threading.Event(), [], []

    def write(snapshot) -> None:
        assert may_write.wait(60)
        written.append(snapshot)

    step(engine)
    before = engine.snapshot()
    with Saver(engine) as saver:
        saver.save(write, then=lambda: told.append(threading.current_thread() is threading.main_thread()))
        step(engine)
        saver.check()
        assert not written and not told, "it is still being written"
        may_write.set()
        saver.wait()
        assert len(written) == 1 and told == [True]
        saver.wait()
        assert told == [True], "once"
    for then, now, later in zip(before[:2], written[0][:2], engine.snapshot()[:2], strict=True):
        assert then.keys() == now.keys() and then
        assert all(now[name].equal(then[name]) for name in then)
        assert not any(now[name].equal(later[name]) for name in then)


def test_there_are_never_two_at_once_and_whoever_leaves_waits(engine):
    at_once, most, done = [], [], []

    def write(snapshot) -> None:
        at_once.append(1)
        threading.Event().wait(0.2)
        most.append(len(at_once))
        at_once.pop()
        done.append(threading.current_thread() is not threading.main_thread())

    with pytest.raises(KeyboardInterrupt), Saver(engine) as saver:
        for _ in range(3):
            saver.save(write)
        raise KeyboardInterrupt
    assert most == [1, 1, 1] and done == [True] * 3


@pytest.mark.parametrize("met", ["check", "wait", "save"])
def test_what_could_not_be_written_is_told_once(met: str, engine):
    def write(snapshot) -> None:
        raise UserError("no space left")

    with Saver(engine) as saver:
        saver.save(write)
        saver._writing.join()
        arguments = [write] if met == "save" else []
        with pytest.raises(UserError, match="no space left"):
            getattr(saver, met)(*arguments)
        saver.wait()
