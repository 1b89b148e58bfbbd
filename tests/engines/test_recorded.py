"""The driver of CUDA graphs, with a graph that calls the function again. Recording itself: tests/gpu/test_gpu_train.py."""

import pytest
import torch
from torch import nn

from electra_accel.engines.gradients import Gradients
from electra_accel.engines.plain import Plain
from electra_accel.engines.recorded import WARM_UP, Recorded, _close
from electra_accel.engines.state import MODEL_FILE
from electra_accel.runs import checkpoint, run_folder
from tests.pretraining_runs import metrics, options, run_here, write_corpus


class Again:
    """Replays by calling. What it returned first is what it writes to, as of a graph."""

    def call(self, work):
        return work()

    def record(self, work):
        self.work = work
        self.outputs = tuple(output.clone() for output in work())
        return self.outputs

    def replay(self):
        for mine, made in zip(self.outputs, self.work(), strict=True):
            mine.copy_(made)


class Wrong(Again):
    """As if inputs or random numbers were recorded, too: the first replay is right."""

    def replay(self):
        made, self.replay = super().replay(), lambda: None
        return made


class Impossible(Again):
    def record(self, work):
        raise RuntimeError("operation not permitted when stream is capturing\nmore lines")


def adding(graph, warned: list[str]):
    """A recorded function that adds its input, with noise, to a sum; and the sum."""
    total = torch.zeros(3)

    def add(given: torch.Tensor) -> tuple[torch.Tensor]:
        total.add_(given + torch.rand(3))
        return (given.sum() + torch.rand(()),)

    return Recorded(add, graph, lambda: [total], lambda: None, warned.append), total


@pytest.mark.parametrize("graph", [Again, Wrong, Impossible])
def test_each_call_counts_once_with_its_own_inputs_and_random_numbers(graph):
    warned: list[str] = []
    recorded, total = adding(graph(), warned)
    plain, wanted = torch.zeros(()), torch.zeros(3)
    for call in range(WARM_UP + 4):
        given = torch.full((3,), float(call))
        torch.manual_seed(call)
        (found,) = recorded(given)
        torch.manual_seed(call)
        wanted += given + torch.rand(3)
        plain = given.sum() + torch.rand(())
        assert found.equal(plain) and total.equal(wanted)
    assert bool(warned) == (graph is not Again) and len(warned) <= 1
    if warned:
        assert ("other numbers" if graph is Wrong else "(operation not permitted when stream is capturing)") in warned[
            0
        ]


def test_a_recording_that_fails_in_the_backward_pass_leaves_no_gradient_behind():
    """In the memory of a recording that failed nothing was ever computed."""
    weight, warned = nn.Parameter(torch.ones(3)), []
    gradients = Gradients([weight])

    def micro_step(given: torch.Tensor) -> tuple[torch.Tensor]:
        (weight * given).sum().backward()
        gradients.add()
        return (given.sum(),)

    class Midway(Again):
        def record(self, work):
            weight.grad = torch.full((3,), 777.0)
            raise RuntimeError  # without a message

    recorded = Recorded(micro_step, Midway(), gradients.fix, gradients.unfix, warned.append)
    for _ in range(WARM_UP + 4):
        recorded(torch.ones(3))
    gradients.exchange()
    assert weight.grad.tolist() == [WARM_UP + 4] * 3
    assert "(RuntimeError)" in warned[0] and recorded.graph is None


def test_what_is_compared():
    some, inf, nan = torch.tensor([3.0, -4.0]), torch.tensor([torch.inf, 1.0]), torch.tensor([torch.nan, 1.0])
    noise, other_noise = torch.tensor([1e-9]), torch.tensor([-1e-9])
    assert _close([some, noise], [some * 1.0005, other_noise]), "together, as a gradient that is nothing but rounding"
    assert not _close([some], [some * 1.002])
    assert _close([inf, nan], [inf, nan])
    assert (
        not _close([inf], [torch.tensor([torch.inf, 2.0])]) and not _close([inf], [-inf]) and not _close([inf], [nan])
    )


def test_what_writes_nothing_is_recorded_too():
    for graph in (Again(), Wrong(), Impossible()):
        warned: list[str] = []
        recorded = Recorded(lambda given: (given + 1,), graph, list, lambda: None, warned.append, what="an evaluation")
        for call in range(WARM_UP + 4):
            assert recorded(torch.full((2,), float(call)))[0].tolist() == [call + 1.0] * 2
        assert ["an evaluation" in each for each in warned] == [True] * (type(graph) is not Again)


def test_other_shapes_than_were_recorded_are_refused():
    recorded, _ = adding(Again(), [])
    for _ in range(WARM_UP + 1):
        recorded(torch.ones(3))
    with pytest.raises(ValueError, match="recorded with"):
        recorded(torch.ones(1))


def test_what_a_call_returned_stays_when_the_next_one_is_made():
    recorded, _ = adding(Again(), [])
    kept = [recorded(torch.full((3,), float(call)))[0] for call in range(WARM_UP + 3)]
    assert len({each.item() for each in kept}) == len(kept)


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_a_run_is_the_same_bit_for_bit(micro_batches, tmp_path, monkeypatch, capfd):
    """Dropout, evaluation in between, and a resume in the middle."""
    write_corpus(tmp_path / "text.txt", most=300)
    common = dict(
        optim__schedule="constant", optim__warmup_steps=0, checkpoint__every=5, eval__every=1, model__dropout=0.1,
        train__batch_tokens=512, train__micro_batch_tokens=512 // micro_batches, tracking__mode="disabled",
        tracking__samples="none",
    )  # fmt: skip
    seen = []

    def record(engine, function, warn, *, trains=True):
        fixes = (engine._fix, engine._unfix) if trains else (engine._fix_weights, lambda: None)
        seen.append(Recorded(function, Again(), *fixes, warn))
        return seen[-1]

    def run(name, steps, **changed):
        line = options("text.txt", name, **common, train__steps=steps, **changed)
        code, out, err = run_here(line, tmp_path, monkeypatch, capfd)
        assert code == 0, out + err

    run("plain", 10)
    monkeypatch.setattr(Plain, "record", record)
    run("off", 5)
    assert not seen
    run("recorded", 5, train__cuda_graphs="auto")
    run("recorded", 10, train__cuda_graphs="auto")
    assert len(seen) == 4, "evaluation and micro-step of two runs"
    assert all(each._calls > WARM_UP and each.graph for each in seen)
    plain, recorded = metrics(tmp_path / "plain"), metrics(tmp_path / "recorded")
    assert recorded == plain
    weights = [
        checkpoint.path_of(tmp_path / name / run_folder.CHECKPOINTS, 10) / MODEL_FILE for name in ("plain", "recorded")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()
