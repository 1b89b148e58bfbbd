"""One of the processes that train small modules with optimizers other than AdamW, save, and resume.

    python|accelerate launch …|torch.distributed.run … -m tests.engines.state_worker
        ENGINE FOLDER [KIND …] [--from ALONE [KIND …]]

Each kind of optimizer trains, goes on from its own checkpoint, and with --from goes on from the one in ALONE; the kinds after
ALONE do only that. ENGINE "fsdp2" is raw ``fully_shard`` on gloo; any other name is the engine of the launcher.
"""

import argparse
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from electra_accel.engines import state
from electra_accel.engines.fsdp2 import Fsdp2Matrices, Fsdp2Parts
from electra_accel.engines.muon import Muon
from electra_accel.engines.open import open_engine
from tests.engines.saving import save_state

STEPS, RATE = 3, 0.01


class TwoKinds(torch.optim.Optimizer):
    """Matrices have momentum, vectors a running mean of squares and a count: parameters with different state."""

    def __init__(self, parameters):
        super().__init__(parameters, dict(lr=RATE))

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in (p for group in self.param_groups for p in group["params"]):
            state = self.state[parameter]
            if parameter.ndim == 2:
                momentum = state.setdefault("momentum_buffer", torch.zeros_like(parameter))
                parameter -= RATE * momentum.mul_(0.9).add_(parameter.grad)
            else:
                state["count"] = state.get("count", torch.zeros(())) + 1
                squares = state.setdefault("squares", torch.zeros_like(parameter))
                parameter -= RATE * parameter.grad / (squares.add_(parameter.grad**2) / state["count"] + 1e-3).sqrt()


class Factored(torch.optim.Optimizer):
    """As Adafactor: a mean for each row and each column of a matrix, so state of other shapes; vectors keep nothing."""

    def __init__(self, parameters):
        super().__init__(parameters, dict(lr=RATE))

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in (p for group in self.param_groups for p in group["params"]):
            update = parameter.grad
            if parameter.ndim == 2:
                state, squares = self.state[parameter], parameter.grad**2
                for key, dim in (("row", 1), ("column", 0)):
                    state[key] = 0.9 * state.get(key, 0.0) + 0.1 * squares.mean(dim)
                rows = state["row"] / state["row"].mean()
                update = update / (rows[:, None] * state["column"] + 1e-3).sqrt()
            parameter -= RATE * update


def sgd(parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=RATE, momentum=0.9)


def adamw(parameters) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=RATE)


def muon(parameters) -> torch.optim.Optimizer:
    parameters = [*parameters]
    groups = [
        {"params": [p for p in parameters if (p.ndim == 2) == of_muon], "matrices": of_muon}
        for of_muon in (True, False)
    ]
    return Muon(groups, lr=RATE, fused=True)


KINDS = {"AdamW": adamw, "SGD": sgd, "Muon": muon, "TwoKinds": TwoKinds, "Factored": Factored}


def build() -> nn.Module:
    """Sides that two processes do not divide."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3))
    model.config = SimpleNamespace(hidden_size=7)  # DeepSpeed sizes its buckets by it
    return model


def loss_of(model: nn.Module, step: int, rank: int, world_size: int) -> torch.Tensor:
    """This process's share of the mean over all examples."""
    examples = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
    return model(examples[rank::world_size]).square().sum() / 24


class Sharded:
    """FSDP2 without a GPU, as far as the worker needs an engine."""

    def __init__(self):
        torch.distributed.init_process_group("gloo")
        self.rank, self.world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.is_main = self.rank == 0

    def prepare(self, model: nn.Module, kind: str, checkpoint: Path | None) -> None:
        if checkpoint:
            state.load_weights(model, checkpoint)
        mesh = init_device_mesh("cpu", (self.world_size,))
        for unit in (model[0], model):
            fully_shard(unit, mesh=mesh)
        self.model, self.optimizer, self.kind = model, KINDS[kind](model.parameters()), kind
        if kind == "Muon":
            self.optimizer.matrices = Fsdp2Matrices()
        if checkpoint:
            state.load_optimizer(checkpoint, Fsdp2Parts(model, self.optimizer), kind)

    def train(self, steps: range) -> None:
        for step in steps:
            (loss_of(self.model, step, self.rank, self.world_size) * self.world_size).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

    def save(self, folder: Path) -> None:
        if self.is_main:
            folder.mkdir(parents=True)
        torch.distributed.barrier()
        save_state(folder, Fsdp2Parts(self.model, self.optimizer), self.kind, writes=self.is_main)

    def leave(self) -> None:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


class Launched:
    """The same with the engine of the launcher."""

    def __init__(self):
        self.engine = open_engine(precision="no", cpu=True, trackers=[], folder=Path())

    def prepare(self, model: nn.Module, kind: str, checkpoint: Path | None) -> None:
        if self.engine.model is not None:
            self.engine.release()
        optimizer = KINDS[kind](model.parameters())
        for group in optimizer.param_groups:
            group["peak"] = RATE
        self.engine.prepare(model, optimizer, checkpoint, max_norm=1e9)

    def train(self, steps: range) -> None:
        for step in steps:
            with self.engine.micro_step(last=True):
                self.engine.backward(loss_of(self.engine.model, step, self.engine.rank, self.engine.world_size))
            self.engine.step(lambda peak: peak)

    def save(self, folder: Path) -> None:
        self.engine.on_main(lambda: folder.mkdir(parents=True))
        save_state(folder, self.engine._parts(), self.engine.optimizer_kind, writes=self.engine.is_main)

    def leave(self) -> None:
        self.engine.leave()


def main(name: str, folder: Path, kinds: list[str], elsewhere: Path | None, moved: list[str]) -> None:
    worker, more = Sharded() if name == "fsdp2" else Launched(), range(STEPS, 2 * STEPS)
    for kind in kinds:
        worker.prepare(build(), kind, None)
        worker.train(range(STEPS))
        worker.save(folder / kind / "middle")
        worker.train(more)
        worker.save(folder / kind / "end")
        worker.prepare(build(), kind, folder / kind / "middle")
        worker.train(more)
        worker.save(folder / kind / "resumed")
    for kind in [*kinds, *moved] if elsewhere else []:
        worker.prepare(build(), kind, elsewhere / kind / "middle")
        worker.train(more)
        worker.save(folder / kind / "moved")
    worker.leave()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("engine")
    parser.add_argument("folder", type=Path)
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--from", dest="elsewhere", nargs="+", default=[None])
    asked = parser.parse_args()
    elsewhere, *moved = asked.elsewhere
    main(asked.engine, asked.folder, asked.kinds, elsewhere and Path(elsewhere), moved)
