import pytest
import torch
from torch import nn

from electra_accel.engines import muon
from electra_accel.engines.muon import QUINTIC, ROUNDS, Muon, orthogonalize


def groups(model: nn.Module, lr: float) -> list[dict]:
    """Matrices and vectors of a model."""
    parameters = [*model.parameters()]
    shared = {"lr": lr, "weight_decay": 0.1}
    return [{"params": [p for p in parameters if (p.ndim == 2) == m], "matrices": m} | shared for m in (True, False)]


def build(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 9), nn.LayerNorm(9), nn.Linear(9, 9), nn.Linear(9, 4))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, scale: float = 1.0) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        inputs = torch.randn(16, 6, generator=torch.Generator().manual_seed(step), dtype=model[0].weight.dtype)
        (scale * model(inputs).square().mean()).backward()
        optimizer.step()


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4)])
def test_each_singular_value_goes_through_the_quintic_and_the_vectors_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    s = s / s.square().sum().sqrt()
    a, b, c = QUINTIC
    for _ in range(ROUNDS):
        s = a * s + b * s**3 + c * s**5
    (found,) = orthogonalize([matrix], half=False)
    torch.testing.assert_close(found, u @ torch.diag(s) @ vh, rtol=1e-9, atol=1e-9)
    assert 0.6 < s.min() and s.max() < 1.3


def test_matrices_of_one_shape_do_not_mix_and_nothing_stays_nothing():
    torch.manual_seed(0)
    matrices = [torch.randn(4, 7), torch.randn(7, 4), torch.zeros(4, 7), torch.randn(3, 3), 1e-12 * torch.randn(4, 7)]
    together = orthogonalize(matrices, half=False)
    for matrix, found in zip(matrices, together, strict=True):
        assert found.shape == matrix.shape
        torch.testing.assert_close(found, orthogonalize([matrix], half=False)[0], rtol=1e-5, atol=1e-6)
    assert together[2].equal(torch.zeros(4, 7)) and together[4].norm() > 1
    (tiniest,) = orthogonalize([1e-30 * torch.randn(4, 7)], half=False)
    assert tiniest.isfinite().all()


def test_few_matrices_are_whole_at_once_and_that_changes_no_number(monkeypatch):
    """However large a network is. Each number that is whole costs some 28 bytes while its matrix is made orthogonal."""
    found, whole = [], []
    for most in (10**9, 200, 1):
        monkeypatch.setattr(muon, "AT_ONCE", most)
        network = build()
        optimizer = Muon(groups(network, 0.02))
        inside = optimizer.matrices.orthogonalize

        def watched(matrices, half, inside=inside, seen=whole):
            seen.append(sum(matrix.numel() for matrix in matrices))
            return inside(matrices, half=half)

        optimizer.matrices.orthogonalize = watched
        whole.clear()
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
        optimizer.step()
        largest = max(p.numel() for p in network.parameters() if p.ndim == 2)
        assert sum(whole) == sum(p.numel() for p in network.parameters() if p.ndim == 2)
        assert max(whole) < most + largest
        found.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert found[0].equal(found[1]) and found[0].equal(found[2])


def test_a_part_that_holds_many_matrices_is_made_orthogonal_piece_by_piece(monkeypatch):
    """As ZeRO's flat parts do: they hold all matrices of a network."""
    shape, size = (4, 5), 20
    matrices = [torch.randn(shape, generator=torch.Generator().manual_seed(number)) for number in range(6)]
    whole = []

    class Flat(muon.WholeMatrices):
        def gather(self, parameter, part):
            return [piece.view(shape) for piece in part.split(size)]

        def share(self, parameter, matrices):
            return torch.cat([matrix.flatten() for matrix in matrices])

        def orthogonalize(self, matrices, *, half):
            whole.append(len(matrices))
            return super().orthogonalize(matrices, half=half)

    def step(parameter, gradient, where):
        optimizer = Muon([{"params": [parameter], "lr": 0.1, "weight_decay": 0.1, "matrices": True}])
        optimizer.matrices = where
        parameter.grad = gradient
        optimizer.step()
        return parameter.detach()

    monkeypatch.setattr(muon, "AT_ONCE", 2 * size - 1)
    flat = step(nn.Parameter(torch.ones(6 * size)), torch.cat([each.flatten() for each in matrices]), Flat())
    assert whole == [2, 2, 2]
    for piece, matrix in zip(flat.split(size), matrices, strict=True):
        alone = step(nn.Parameter(torch.ones(shape)), matrix, muon.WholeMatrices())
        torch.testing.assert_close(piece.view(shape), alone, rtol=1e-5, atol=1e-6)


def test_rounds_in_bfloat16_are_as_near_as_bfloat16_is():
    torch.manual_seed(0)
    matrices = [torch.randn(16, 48), torch.randn(48, 16), torch.randn(24, 24)]
    for found, exact in zip(orthogonalize(matrices, half=True), orthogonalize(matrices, half=False), strict=True):
        assert found.dtype == torch.float32 and 0 < (found - exact).norm() / exact.norm() < 0.02


def test_torchs_muon_takes_the_same_steps_as_far_as_bfloat16_can_tell():
    """``torch.optim.Muon``, in which all is computed in bfloat16, on random gradients, whose singular values are not tiny."""
    ours, theirs = build(), build()
    before = [p.detach().clone() for p in ours.parameters() if p.ndim == 2]
    matrices = [p for p in theirs.parameters() if p.ndim == 2]
    optimizers = (
        (ours, Muon(groups(ours, 0.02))),
        (theirs, torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")),
    )
    for step in range(5):
        for model, optimizer in optimizers:
            torch.manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
    for mine, other, start in zip((p for p in ours.parameters() if p.ndim == 2), matrices, before, strict=True):
        assert (mine - other).norm() < 0.03 * (other - start).norm()


def test_a_larger_loss_takes_the_same_steps():
    """So clipping changes how much a step counts in the momentum, not how far it goes."""
    ends = []
    for scale in (1.0, 2.0**10):
        model = build().double()
        train(model, Muon(groups(model, 0.02), eps=1e-20), 3, scale)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-9)


def test_a_parameter_without_a_gradient_stays_and_keeps_nothing():
    model = build()
    optimizer = Muon(groups(model, 0.02))
    before = model[3].weight.detach().clone()
    model[0](torch.randn(2, 6)).sum().backward()
    optimizer.step()
    assert model[3].weight.equal(before) and model[3].weight not in optimizer.state
    assert optimizer.state[model[0].weight].keys() == {"momentum_buffer"}
    assert optimizer.state[model[0].bias].keys() == {"step", "exp_avg", "exp_avg_sq"}
