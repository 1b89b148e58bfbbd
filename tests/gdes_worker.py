"""One of the processes that train toy pairs with gradient-disentangled embeddings, under whatever engine launched them.

    python|accelerate launch …|torch.distributed.run … -m tests.gdes_worker FOLDER CASE …

Each case trains in a folder of its name and leaves a checkpoint there: first of the starting weights, then of the last.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from torch import nn

from electra_accel.engines.engine import Engine
from electra_accel.engines.fsdp2 import Fsdp2Parts
from electra_accel.engines.open import open_engine
from electra_accel.model.mlm import MaskedLanguageModeling
from electra_accel.model.pair import Pair
from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.model.sharing import share
from electra_accel.pretraining.config import Optim
from electra_accel.pretraining.optim import build_optimizer
from tests.engines import fsdp2_worker
from tests.engines.saving import save_state
from tests.helpers import ROOT
from tests.model.batches import pack_examples, toy_examples, toy_pair
from tests.shared_embeddings import assert_shared

RATE = 1e-3


class Case(NamedTuple):
    """``weights``: of the three losses; ``after``: the case whose last checkpoint this one goes on from."""

    weights: tuple[float, float, float] = (1, 50, 20)
    first: int = 0
    steps: int = 3
    after: str | None = None
    frozen: bool = False
    kind: str = "adamw"


CASES = {
    "rtd": Case(weights=(0, 50, 20)),
    "mlm": Case(weights=(1, 0, 0)),
    "joint": Case(kind="muon"),
    "whole": Case(steps=6, kind="muon"),
    "resumed": Case(first=3, after="joint", kind="muon"),
    "warm-start": Case(weights=(1, 0, 0), frozen=True),
}


def drifted_pair() -> Pair:
    """Two networks that never shared anything, so that delta is not 0."""
    pair = Pair(toy_pair(seed=1).generator, toy_pair(seed=2).discriminator)
    share(*pair, "gdes")
    return pair


def build(case: Case) -> nn.Module:
    pair = drifted_pair()
    if case.frozen:
        pair.generator.electra.embeddings.requires_grad_(False)
        return MaskedLanguageModeling(pair.generator)
    return ReplacedTokenDetection(*pair, corrective=case.weights[2] > 0)


def train(case: Case, model: nn.Module, rank: int, world_size: int, backward, step) -> None:
    """``model`` is what to call; ``backward`` and ``step`` are the engine's."""
    for number in range(case.first, case.first + case.steps):
        examples = toy_examples(24, seed=number)
        selected, tokens = pack_examples(examples)[0].counts()
        batch, _ = pack_examples(examples[rank::world_size])
        output = model(batch)
        generator, discriminator, corrective = case.weights
        at_slots = generator * output.generator_loss_sum + corrective * output.corrective_loss_sum
        backward(at_slots / selected + discriminator * output.discriminator_loss_sum / tokens)
        step()


def under_engine(name: str, folder: Path) -> None:
    """One process, DDP or ZeRO, by the engine of the trainer itself."""
    case = CASES[name]
    engine = open_engine(precision="no", cpu=True, trackers=[], folder=folder)
    module = build(case)
    optim = Optim(kind=case.kind, learning_rate=RATE, matrix_learning_rate=RATE, weight_decay=0.0)
    optimizer = build_optimizer(module, optim)
    checkpoint = folder / case.after / "last" if case.after else None
    model = engine.prepare(module, optimizer, checkpoint, max_norm=1.0)
    save(engine.is_main, folder / name / "start", engine.everywhere, saving(engine))
    train(case, model, engine.rank, engine.world_size, backward_of(engine), lambda: engine.step(lambda peak: peak))
    if not case.frozen:
        trained = engine.unwrapped()
        assert_shared(trained.generator, trained.discriminator, "gdes", trained.corrector)
    save(engine.is_main, folder / name / "last", engine.everywhere, saving(engine))


def saving(engine: Engine):
    """As a run writes its state."""
    return lambda folder: save_state(folder, engine._parts(), engine.optimizer_kind, writes=engine.is_main)


def backward_of(engine: Engine):
    def backward(loss: torch.Tensor) -> None:
        with engine.micro_step(last=True):
            engine.backward(loss)

    return backward


def under_fsdp2(name: str, folder: Path) -> None:
    """Raw ``fully_shard`` (see fsdp2_worker.py)."""
    case, rank, world_size = CASES[name], torch.distributed.get_rank(), torch.distributed.get_world_size()
    model = build(case)
    config = yaml.safe_load((ROOT / "accelerate_configs" / "fsdp2.yaml").read_text(encoding="utf-8"))["fsdp_config"]
    optimizer = fsdp2_worker.shard(model, config, case.kind)
    for group in optimizer.param_groups:
        group["weight_decay"], group["lr"] = 0.0, RATE

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def write(place: Path) -> None:
        save_state(place, Fsdp2Parts(model, optimizer), fsdp2_worker.KINDS[case.kind], writes=rank == 0)

    def wait(_) -> None:
        torch.distributed.barrier()

    save(rank == 0, folder / name / "start", wait, write)
    train(case, model, rank, world_size, lambda loss: (loss * world_size).backward(), step)
    assert_shared(model.generator, model.discriminator, "gdes", model.corrector)
    save(rank == 0, folder / name / "last", wait, write)


def save(writes: bool, place: Path, wait, write) -> None:
    if writes:
        place.mkdir(parents=True)
    wait(None)
    write(place)


def main(kind: str, folder: Path, names: list[str]) -> None:
    if kind == "fsdp2":
        torch.distributed.init_process_group("gloo")
    for name in names:
        (under_fsdp2 if kind == "fsdp2" else under_engine)(name, folder)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
