"""One of two processes that train a pair under raw ``fully_shard`` on gloo, in the units that Accelerate would choose."""

import sys
from pathlib import Path

import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from electra_accel.engines import state
from electra_accel.engines.fsdp2 import FSDP_PRECISION, Fsdp2Matrices, Fsdp2Parts
from electra_accel.model.pair import build_pair
from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.pretraining.config import Optim
from electra_accel.pretraining.optim import build_optimizer
from tests.engines.saving import save_state
from tests.model.batches import PAD, pack_examples, toy_examples
from tests.shared_embeddings import assert_shared

VOCABULARY, STEPS, RATE, MAX_NORM = 1001, 3, 1e-3, 1.0
KINDS = {"adamw": "AdamW", "muon": "Muon"}


def build(kind: str = "adamw") -> tuple[ReplacedTokenDetection, torch.optim.AdamW]:
    pair = build_pair(
        "tiny", vocab_size=VOCABULARY, pad_token_id=PAD, max_length=128, generator_width=0.25, dropout=0.0, seed=1
    )
    model = ReplacedTokenDetection(*pair, corrective=True)
    return model, optimizer_of(model, kind)


def optimizer_of(model: torch.nn.Module, kind: str) -> torch.optim.AdamW:
    optimizer = build_optimizer(model, Optim(kind=kind, learning_rate=RATE, matrix_learning_rate=2 * RATE))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"]
    return optimizer


def shard(model: ReplacedTokenDetection, fsdp_config: dict, kind: str = "adamw") -> torch.optim.AdamW:
    """``fully_shard`` on each unit that Accelerate's policy chooses under accelerate_configs/fsdp2.yaml, then on the root."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy=fsdp_config["fsdp_auto_wrap_policy"].lower(),
        transformer_cls_names_to_wrap=[fsdp_config["fsdp_transformer_layer_cls_to_wrap"]],
        cpu_ram_efficient_loading=False,
    )
    plugin.set_auto_wrap_policy(model)
    is_unit = fsdp2_prepare_auto_wrap_policy(plugin, model)
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    units = [module for module in model.modules() if is_unit(module)]
    assert len(units) == 8, "the layers of both networks"
    for module in units:
        fully_shard(module, mesh=mesh, reshard_after_forward=True, mp_policy=FSDP_PRECISION)
    # As Accelerate does: the root stays whole between forward and backward.
    fully_shard(model, mesh=mesh, mp_policy=FSDP_PRECISION)
    optimizer = optimizer_of(model, kind)
    if kind == "muon":
        optimizer.matrices = Fsdp2Matrices()
    return optimizer


def train(model: torch.nn.Module, optimizer: torch.optim.AdamW, rank: int, world_size: int, first: int) -> list[float]:
    """STEPS steps from number ``first`` on, and the norms of their gradients; each process takes its share of the examples."""
    norms = []
    for step in range(first, first + STEPS):
        examples = toy_examples(24, seed=step)
        whole, _ = pack_examples(examples)
        selected, tokens = whole.counts()
        batch, _ = pack_examples(examples[rank::world_size])
        output = model(batch)
        assert output.counters.dtype == torch.float64
        at_slots = output.generator_loss_sum + 20 * output.corrective_loss_sum
        loss = at_slots / selected + 50 * output.discriminator_loss_sum / tokens
        (loss * world_size).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        norms.append((norm.full_tensor() if isinstance(norm, DTensor) else norm).item())
        optimizer.step()
        optimizer.zero_grad()
        assert_shared(model.generator, model.discriminator, "tied", model.corrector)
    return norms


@torch.no_grad()
def evaluate(model: torch.nn.Module) -> None:
    """A forward pass alone, after which the root's weights stay gathered."""
    model(pack_examples(toy_examples(12))[0])


def run(folder: Path, fsdp_config: dict, kind: str) -> None:
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    model, _ = build(kind)
    optimizer = shard(model, fsdp_config, kind)
    for name, first in (("middle", 0), ("end", STEPS)):
        norms = train(model, optimizer, rank, world_size, first)
        if rank == 0:
            (folder / name).mkdir(parents=True)
            (folder / name / "norms").write_text(" ".join(map(str, norms)))
        evaluate(model)
        torch.distributed.barrier()
        save_state(folder / name, Fsdp2Parts(model, optimizer), KINDS[kind], writes=rank == 0)
    # A second module goes on from the middle.
    model, _ = build(kind)
    state.load_weights(model, folder / "middle")
    optimizer = shard(model, fsdp_config, kind)
    state.load_optimizer(folder / "middle", Fsdp2Parts(model, optimizer), KINDS[kind])
    train(model, optimizer, rank, world_size, first=STEPS)
    if rank == 0:
        (folder / "resumed").mkdir()
    torch.distributed.barrier()
    save_state(folder / "resumed", Fsdp2Parts(model, optimizer), KINDS[kind], writes=rank == 0)
    torch.distributed.barrier()  # nobody leaves while another still writes: its threads may abort it at its exit (Engine.leave)


if __name__ == "__main__":
    import yaml

    torch.distributed.init_process_group("gloo")
    for each in KINDS:
        run(Path(sys.argv[1]) / each, yaml.safe_load(Path(sys.argv[2]).read_text("utf-8"))["fsdp_config"], each)
    torch.distributed.destroy_process_group()
