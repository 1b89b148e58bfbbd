import math

import pytest
import torch
from torch import nn

from electra_accel.engines.plain import clip_gradients
from electra_accel.model.sharing import share
from electra_accel.pretraining.config import Optim
from electra_accel.pretraining.optim import build_optimizer, parameter_groups
from electra_accel.runs.schedule import learning_rate
from tests.model.batches import toy_pair


def rate(step, schedule="linear", warmup=4, total=10):
    return learning_rate(step, 2.0, warmup_steps=warmup, total_steps=total, schedule=schedule)


def test_warmup_counts_from_one_and_reaches_the_peak():
    assert [rate(step) for step in range(4)] == [0.5, 1.0, 1.5, 2.0]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_decay_falls_every_step_and_wastes_none(schedule):
    rates = [rate(step, schedule) for step in range(3, 10)]
    assert all(later < earlier for earlier, later in zip(rates, rates[1:]))
    assert 0 < rates[-1] < 0.5


def test_schedules_at_known_points():
    assert rate(4) == pytest.approx(2.0 * (1 - 1 / 7))
    assert rate(4, "cosine") == pytest.approx(1 + math.cos(math.pi / 7))
    assert rate(9, "constant") == 2.0
    assert rate(0, warmup=0, total=1) == pytest.approx(1.0)
    with pytest.raises(ValueError):
        rate(10)  # beyond the run, where a linear schedule would be negative


def test_every_trainable_parameter_is_in_exactly_one_group_and_moves_in_the_first_step():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 5))
    model[3].weight = model[0].weight  # tied: one parameter, counted once
    model[1].bias.requires_grad_(False)
    groups = parameter_groups(model, Optim(learning_rate=0.1, weight_decay=0.1))
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert all(p.ndim == 1 for p in groups[1]["params"])

    optimizer = build_optimizer(model, Optim(learning_rate=0.1, weight_decay=0.1))
    before = {name: p.clone() for name, p in model.named_parameters()}
    weights = torch.arange(1.0, 6.0)  # a plain sum over the classes would give LayerNorm's bias no gradient
    (model(torch.arange(5)).log_softmax(-1) * weights).sum().backward()
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad}


def test_the_difference_between_embedding_tables_does_not_decay():
    """It is a matrix, but 0 for it means the generator's table, which is nothing to be drawn to."""
    generator, discriminator = toy_pair(seed=1).generator, toy_pair(seed=2).discriminator
    share(generator, discriminator, "gdes")
    groups = parameter_groups(
        nn.ModuleDict({"discriminator": discriminator}), Optim(learning_rate=0.1, weight_decay=0.1)
    )
    names = {id(parameter): name for name, parameter in discriminator.named_parameters()}
    decaying, others = ({names[id(parameter)] for parameter in group["params"]} for group in groups)
    deltas = {name for name in names.values() if name.endswith(".delta")}
    assert len(deltas) == 3 and deltas <= others
    assert decaying == {name for name in names.values() if name.endswith("weight") and "LayerNorm" not in name}


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_the_norm_of_a_large_gradient_is_exact_and_the_gradient_is_scaled_to_it(max_norm):
    """Entries over three orders of magnitude, where a sum of squares in fp32 on a CPU is off by more than 1e-5."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.logspace(-4, -1, 10**6)[torch.randperm(10**6, generator=generator)]
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((1000, 1000), (7,), (3, 3))]
    for parameter, scale in zip(parameters[:2], (spread.view(1000, 1000), torch.ones(7))):
        parameter.grad = torch.randn(parameter.shape, generator=generator) * scale
    before = [parameter.grad.clone() for parameter in parameters[:2]]
    exact = math.sqrt(sum(grad.double().square().sum().item() for grad in before))
    norm = clip_gradients(parameters, max_norm)
    assert norm.dtype == torch.float32 and float(norm) == pytest.approx(exact, rel=2e-7)
    factor = min(1.0, max_norm / (exact + 1e-6))
    for parameter, grad in zip(parameters[:2], before):
        assert torch.allclose(parameter.grad, grad * factor, rtol=1e-6, atol=0)
    assert parameters[2].grad is None


@pytest.mark.parametrize("sharing", ["tied", "none", "gdes"])
def test_muon_has_every_matrix_between_hidden_states_and_nothing_else(sharing):
    generator, discriminator = toy_pair(seed=1).generator, toy_pair(seed=2).discriminator
    share(generator, discriminator, sharing)
    model = nn.ModuleDict({"generator": generator, "discriminator": discriminator})
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optim = Optim(kind="muon", learning_rate=1e-3, matrix_learning_rate=4e-3, generator_factor=0.5)
    groups = parameter_groups(model, optim)
    of_muon = {names[id(p)]: group["peak"] for group in groups if group["matrices"] for p in group["params"]}
    rest = {names[id(p)]: group["peak"] for group in groups if not group["matrices"] for p in group["params"]}
    assert of_muon.keys() | rest.keys() == set(names.values()) and not of_muon.keys() & rest.keys()
    dense = ("query.weight", "key.weight", "value.weight", "dense.weight", "embeddings_project.weight")
    assert of_muon.keys() == {name for name in names.values() if name.endswith(dense)}
    # What the two share is the discriminator's.
    assert {name for name, peak in of_muon.items() if peak == 2e-3} == {
        n for n in of_muon if n.startswith("generator.")
    }
    slower = {name for name, peak in rest.items() if peak == 5e-4}
    tables = {name for name in rest if name.startswith("generator.electra.embeddings.")}
    assert slower == {name for name in rest if name.startswith("generator.")} - (tables if sharing == "tied" else set())
