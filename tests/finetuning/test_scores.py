"""Figures against counts by hand; outputs become predictions of every word."""

import math
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from electra_accel.errors import UserError
from electra_accel.finetuning.config import Settings
from electra_accel.finetuning.kinds.kind import IGNORED, Kind, Row, are_numbers
from electra_accel.finetuning.kinds.registry import KINDS
from electra_accel.finetuning.kinds.regression import Regression
from electra_accel.finetuning.kinds.tagging import Tagging
from electra_accel.finetuning.loop import score
from electra_accel.finetuning.tasks import Encoded
from electra_accel.text.unknown import Unknown
from tests.finetuning.small import task_data


def records(labels, predicted):
    return [{"label": label, "predicted": guess} for label, guess in zip(labels, predicted, strict=True)]


def test_figures_of_labels():
    found = KINDS["classification"]().figures(records("aaabbc", "aabbbb"))
    # a: precision 1, recall 2/3; b: precision 1/2, recall 1; c: never predicted
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["macro_f1"] == pytest.approx((2 * 2 / 3 / (1 + 2 / 3) + 2 * 0.5 / 1.5 + 0) / 3)
    assert KINDS["pair"]().figures(records("ab", "aa"))["matthews"] == 0


def test_figures_of_entities():
    """An entity counts when its type and both of its ends are right."""
    gold = [["B-X", "I-X", "O", "B-Y"], ["B-X", "O"]]
    guess = [["B-X", "I-X", "O", "B-X"], ["B-X", "I-X"]]
    found = KINDS["tagging"]().figures(records(gold, guess))
    assert (found["entity_precision"], found["entity_recall"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert found["accuracy"] == pytest.approx(4 / 6)


def test_entities_in_other_schemes():
    """Two lone words of one type side by side are two entities, in IOBES and in BILOU; parts of speech are none."""
    for lone, last in (("S", "E"), ("U", "L")):
        gold = [[f"{lone}-X", f"{lone}-X", "B-X", f"{last}-X", "O"]]
        guess = [[f"{lone}-X", "O", "B-X", f"{last}-X", "O"]]
        found = KINDS["tagging"]().figures(records(gold, guess))
        assert (found["entity_precision"], found["entity_recall"]) == (1, pytest.approx(2 / 3))
    assert KINDS["tagging"]().figures(records([["NOUN", "VERB"]], [["NOUN", "O"]])) == {"accuracy": 0.5}


def test_figures_of_numbers():
    labels, predicted = [0.0, 1.0, 2.0, 5.0], [1.0, 2.0, 3.0, 100.0]
    found = KINDS["regression"]().figures(records(labels, predicted))
    x, y = np.array(labels) - np.mean(labels), np.array(predicted) - np.mean(predicted)
    assert found["spearman"] == pytest.approx(1)
    assert found["pearson"] == pytest.approx((x @ y) / math.sqrt((x @ x) * (y @ y)))
    assert KINDS["regression"]().figures(records(labels, [1.0] * 4)) == {"spearman": None, "pearson": None}


def test_loss_sums():
    torch.manual_seed(1)
    logits, targets = torch.randn(2, 3, 4), torch.tensor([[0, IGNORED, 3], [IGNORED, 1, IGNORED]])
    wanted = -sum(logits[i, j].log_softmax(-1)[targets[i, j]] for i, j in ((0, 0), (0, 2), (1, 1)))
    torch.testing.assert_close(Kind().loss_sum(logits, targets), wanted)
    torch.testing.assert_close(Kind().loss_sum(logits[0], targets[0]), wanted + logits[1, 1].log_softmax(-1)[1])
    numbers = torch.tensor([1.0, 2.0])
    torch.testing.assert_close(Regression().loss_sum(torch.tensor([[0.0], [5.0]]), numbers), torch.tensor(10.0))


def test_words_without_a_target_are_outside():
    kind = Tagging(("B-X", "O"))
    rows = [Row(("a", " ", "b", "cut"), ("O", "O", "B-X", "B-X"))]
    targets = torch.tensor([[IGNORED, 1, IGNORED, 0, IGNORED]])
    logits = torch.tensor([[[9.0, 0], [0, 9], [9, 0], [9, 0], [9, 0]]])
    found = kind.predictions(rows, kind.outputs(logits, targets), [np.array([0, 2])])
    assert found == [{"row": 1, "label": rows[0].label, "predicted": ["O", "O", "B-X", "O"]}]


TARGETS = {
    "classification": (torch.zeros(2, 3), torch.tensor([0, 1])),
    "regression": (torch.zeros(2, 1), torch.tensor([0.0, 1.0])),
    "tagging": (torch.zeros(2, 3, 2), torch.tensor([[0, IGNORED, 1], [1, IGNORED, IGNORED]])),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_outputs_that_are_no_numbers_are_seen(kind):
    """Else the first label would be what the model said."""
    logits, targets = TARGETS[kind]
    assert are_numbers(KINDS[kind]().outputs(logits, targets))
    wrong = logits.clone()
    wrong[1, ..., 0] = math.nan
    assert not are_numbers(KINDS[kind]().outputs(wrong, targets))


def test_nothing_is_scored_with_outputs_that_are_no_numbers():
    """Of weights that became infinite in the step before; on every process, as all have all outputs."""
    rows = [Row(("a",), "x"), Row(("b",), "y")]
    data = task_data(("x", "y"))
    encoded = Encoded(rows, [np.array([2, 5, 3])] * 2, None, [np.int64(0), np.int64(1)], [], 0, 0, Unknown(0, 0))
    job = SimpleNamespace(name="t/m/seed-1", data=data, settings=Settings())
    for value, refused in ((0.0, False), (math.nan, True)):
        model = torch.nn.Module()
        model.forward = lambda value=value, **inputs: SimpleNamespace(logits=torch.tensor([[1.0, value]] * 2))
        engine = SimpleNamespace(model=model, world_size=1, rank=0, device="cpu", everywhere=lambda found: [found])
        with pytest.raises(UserError, match="t/m/seed-1: .*not finite.*learning_rate") if refused else nullcontext():
            assert [record["predicted"] for record in score(engine, encoded, job)] == ["x", "x"]


def test_numbers_come_back_in_the_labels_units():
    outputs = Regression().outputs(torch.tensor([[1.5]]), torch.tensor([0.0]))
    [record] = Regression(2.5, 2.0).predictions([Row(("a",), "4")], outputs, [])
    assert record == {"row": 1, "label": 4.0, "predicted": 5.5}
