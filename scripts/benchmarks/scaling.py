"""Memory, network traffic and step time by engine, size and number of GPUs: the tables of docs/scaling.md.

    python scripts/benchmarks/scaling.py                              # computed, in seconds; needs no GPU
    python scripts/benchmarks/scaling.py --size large --gpus 1 8 64 --bandwidth 100 --flops 989e12
    accelerate launch --config_file accelerate_configs/ddp.yaml --num_processes 2 --main_process_port 0 \\
        scripts/benchmarks/scaling.py --measure small                 # what is really allocated, beside the formula

P is the number of parameters, N of GPUs, A of micro-batches per GPU and step, B of elements in DeepSpeed's reduce bucket.
bf16 is autocast over fp32 weights with one process, DDP and FSDP2; under DeepSpeed the weights themselves are bf16, with fp32
master copies and fp32 gradient sums. Network traffic and time are for bf16.
"""

import argparse
import gc
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import ElectraForMaskedLM, ElectraForPreTraining

from electra_accel.batch import RTDBatch
from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.data.plan import Layout
from electra_accel.engines.deepspeed import BUCKET
from electra_accel.engines.open import open_engine
from electra_accel.engines.plain import Plain
from electra_accel.errors import UserError
from electra_accel.model.flops import peak_flops, training_flops
from electra_accel.model.pair import Pair, pair_configs
from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.model.sharing import share
from electra_accel.model.sizes import SIZES
from electra_accel.pretraining.assemble import MICRO_BATCH_TOKENS
from electra_accel.pretraining.config import Optim
from electra_accel.pretraining.optim import build_optimizer

VOCABULARY = 30522  # of the published English pairs
# bins a step, tokens a bin
PUBLISHED = {name: (size.settings.sequences, size.settings.length) for name, size in SIZES.items()}


class Memory(NamedTuple):
    """Bytes per parameter on one GPU: ``whole + sharded / N``, and ``passing`` more from a forward to its backward pass."""

    whole: float
    sharded: float
    passing: float
    bucket: int = 0  # bytes per element of DeepSpeed's reduce bucket


class Costs(NamedTuple):
    bf16: Memory
    no: Memory  # fp32
    per_step: float  # bytes per parameter that one GPU sends around a ring in bf16, times (N - 1) / N
    per_micro_batch: float


ENGINES = {
    # fp32 weights, gradients and two moments, and a bf16 copy of the weights. At the end of a later backward pass, when its
    # activations are gone, 4 bytes more in fp32 and 6 in bf16: new gradients beside the sums, and those of the copies.
    "single": Costs(Memory(16, 0, 2), Memory(16, 0, 0), 0, 0),
    # An all-reduce sends everything twice.
    "ddp": Costs(Memory(16, 0, 2), Memory(16, 0, 0), 2 * 4, 0),
    # DeepSpeed (0.19) keeps fp32 master weights beside the weights, in fp32 too; they and the moments are state.
    # In bf16: fp32 sums of all gradients; it all-reduces bf16 gradients and gathers bf16 weights.
    "zero1": Costs(Memory(2 + 2 + 4, 12, 0), Memory(4 + 4, 12, 0, bucket=4), 2 * 2 + 2, 0),
    # The fp32 gradient sums are sharded too, so every micro-batch is reduced, by an all-reduce. In fp32 the sums are whole
    # for every parameter that the GPU has a part of.
    "zero2": Costs(Memory(2, 16, 0, bucket=2), Memory(4, 16, 0, bucket=4), 2, 2 * 2),
    # Gathered weights stay for the backward pass if fewer than 1e9 elements lie between, as is always so here.
    "zero3": Costs(Memory(0, 18, 2, bucket=2), Memory(0, 20, 4, bucket=4), 0, 2 + 2),
    # What zero3 shards is in the host's memory.
    "zero3_offload": Costs(Memory(0, 0, 2, bucket=2), Memory(0, 0, 4, bucket=4), 0, 2 + 2),
    # An upper bound: fp32 weights are gathered for the forward and again for the backward pass, autocast keeps bf16 copies;
    # with A > 1, gradients stay whole until the last micro-batch.
    "fsdp2": Costs(Memory(0, 16, 4 + 2 + 4), Memory(0, 16, 4 + 4), 4, 4 + 4),
}


class Shape(NamedTuple):
    """What the formulas need of a pair; per real token and per selected position."""

    parameters: int
    token_flops: float
    slot_flops: float
    token_bytes: float  # kept for the backward pass
    slot_bytes: float


def joint(size: str, device: str) -> ReplacedTokenDetection:
    """The two networks as published, with one table, but for their weights; device "meta" allocates nothing."""
    configs = pair_configs(size, vocab_size=VOCABULARY, pad_token_id=0, max_length=512, generator_width=None)
    with torch.device(device):
        pair = Pair(ElectraForMaskedLM(configs[0]), ElectraForPreTraining(configs[1]))
    share(*pair, "tied")
    return ReplacedTokenDetection(*pair)


def shape(size: str) -> Shape:
    """Examples fill their bins, so a token attends to a whole bin. Kept by a layer under bf16 autocast: two fp32 and ten
    bf16 vectors of the hidden size, two bf16 ones of the inner size; by a slot: fp32 log-probabilities."""
    model = joint(size, "meta")
    configs = model.generator.config, model.discriminator.config
    layers = (c.num_hidden_layers * (28 * c.hidden_size + 4 * c.intermediate_size) for c in configs)
    flops = training_flops(*configs, context=PUBLISHED[size][1])
    return Shape(sum(p.numel() for p in model.parameters()), flops.token, flops.slot, sum(layers), 4 * VOCABULARY)


def held(cost: Memory, parameters: int, gpus: int) -> float:
    """Bytes on one GPU during a step, without activations."""
    return parameters * (cost.whole + cost.sharded / gpus + cost.passing) + cost.bucket * BUCKET


def sent(engine: str, pair: Shape, layout: Layout) -> float:
    """Bytes that one GPU sends in an optimizer step."""
    cost, gpus = ENGINES[engine], layout.world_size
    return pair.parameters * (cost.per_step + layout.accumulation * cost.per_micro_batch) * (gpus - 1) / gpus


def step_seconds(engine: str, pair: Shape, layout: Layout, asked: argparse.Namespace) -> tuple[float, float]:
    """Seconds of arithmetic and of traffic in one optimizer step; empty bins cost as much as full ones."""
    tokens = layout.slots(asked.bin_tokens) / layout.world_size
    flops = tokens * (pair.token_flops + asked.mask_prob * pair.slot_flops)
    return flops / (asked.flops * asked.utilisation), sent(engine, pair, layout) / (asked.bandwidth * 1e9)


def formula(cost: Memory) -> str:
    terms = (f"{cost.whole:g}P", f"{cost.sharded:g}P/N", f"{cost.passing:g}P", f"{cost.bucket}B")
    return " + ".join(term for term in terms if not term.startswith("0"))


def memory_table(precision: str) -> None:
    print(f"GB on one GPU in {precision.replace('no', 'fp32')} without activations; N = 8 where sharded\n")
    shapes = {size: shape(size) for size in PUBLISHED}
    heads = (f"{size} ({s.parameters / 1e6:.1f}M)" for size, s in shapes.items())
    print(f"| engine | bf16 | fp32 | {' | '.join(heads)} |\n|---|---|---|{'---|' * len(shapes)}")
    for name, costs in ENGINES.items():
        cells = (f"{held(getattr(costs, precision), s.parameters, 8) / 1e9:.2f}" for s in shapes.values())
        print(f"| {name} | {formula(costs.bf16)} | {formula(costs.no)} | {' | '.join(cells)} |")
    for name, field in (("activations, KB a token", "token_bytes"), ("LM head, KB a selected position", "slot_bytes")):
        cells = (f"{getattr(s, field) / 1e3:.0f}" for s in shapes.values())
        print(f"| {name} | estimate | | {' | '.join(cells)} |")


def step_table(asked: argparse.Namespace) -> None:
    pair, bins = shape(asked.size), asked.batch_tokens // asked.bin_tokens
    print(
        f"\n{asked.size}, {bins} bins of {asked.bin_tokens} tokens, micro-batches of at most {asked.micro_batch_tokens:,} "
        f"tokens; {asked.flops / 1e12:g} TFLOP/s at {asked.utilisation:.0%}, {asked.bandwidth:g} GB/s\n"
    )
    print("| GPUs | A x bins | without work | compute ms | DDP: MB sent | ms ", end="")
    print("| ZeRO-2 ms | ZeRO-3 ms | DDP step ms | speed-up |\n" + "|---" * 10 + "|")
    layouts = {n: Layout.derive(bins, asked.bin_tokens, asked.micro_batch_tokens, n) for n in (1, *asked.gpus)}
    alone, _ = step_seconds("ddp", pair, layouts[1], asked)
    for gpus in asked.gpus:
        layout = layouts[gpus]
        compute, network = step_seconds("ddp", pair, layout, asked)
        others = (f"{step_seconds(name, pair, layout, asked)[1] * 1e3:.1f}" for name in ("zero2", "zero3"))
        idle = max(0, gpus - -(-bins // layout.rows))
        megabytes = sent("ddp", pair, layout) / 1e6
        print(
            f"| {gpus:,} | {layout.accumulation} x {layout.rows} | {idle} | {compute * 1e3:.1f} | {megabytes:,.0f} | "
            f"{network * 1e3:.1f} | {' | '.join(others)} | {max(compute, network) * 1e3:.1f} to "
            f"{(compute + network) * 1e3:.1f} | {alone / (compute + network):.1f} |"
        )


def made_up_batch(rows: int, tokens: int = 128, slots: int = 16) -> RTDBatch:
    """Bins of one example each, with tokens that mean nothing."""
    ids = torch.arange(rows * tokens).view(rows, tokens) % 1000 + 5
    places = torch.arange(1, slots + 1).repeat(rows, 1)
    return RTDBatch(
        input_ids=ids,
        corrupted_ids=ids.scatter(1, places, 4),
        position_ids=torch.arange(tokens).repeat(rows, 1),
        token_type_ids=torch.zeros_like(ids),
        segment_ids=torch.ones_like(ids),
        slot_positions=places,
        slot_used=torch.ones(rows, slots, dtype=torch.bool),
        slot_uniform=torch.full((rows, slots), 0.5, dtype=torch.float64),
        examples=torch.zeros(rows, 1, dtype=torch.int64),
    )


def held_now() -> dict[int, int]:
    """Place and bytes of all tensors that Python can see, but for activations: views of one another are one."""
    gc.collect()
    with warnings.catch_warnings(action="ignore"):  # looking at every object touches deprecated ones
        tensors = [found for found in gc.get_objects() if isinstance(found, torch.Tensor) and not found.grad_fn]
    tensors += [tensor.grad for tensor in tensors if tensor.is_leaf and tensor.grad is not None]
    storages = (tensor.untyped_storage() for tensor in tensors if tensor.device.type != "meta")
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def kept_for_backward(module: torch.nn.Module, forward: Callable[[], object]) -> int:
    """Bytes that ``forward`` keeps for its backward pass and that were not there before."""
    kept = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    owned = held_now()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    owned |= {p.untyped_storage().data_ptr(): 0 for p in module.parameters()}  # ZeRO-3 has gathered them meanwhile
    return sum(size for place, size in kept.items() if place not in owned)


def measure(size: str, precision: str) -> tuple[str, int, float, float]:
    """Two steps of two micro-batches of made-up text, on every process of the launch.

    Returns: engine, parameters, bytes without activations on the process that holds most, and bytes of activations as a share
        of the formula's. With whole weights the bytes are those at the end of the second step's last forward pass, else the
        greater of those and the ones at the end of its last backward pass.
    """
    engine = open_engine(precision=precision, cpu=False, trackers=[], folder=Path())
    module = joint(size, "cpu")
    pair = shape(size)
    model = engine.prepare(module, build_optimizer(module, Optim(learning_rate=1e-4)), max_norm=1.0, checkpoint=None)
    moments: list[int] = []

    def watch(_module: torch.nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
        if output.requires_grad:  # its gradient comes at the end of the backward pass
            output.register_hook(lambda _gradient: moments.append(sum(held_now().values())))

    if not isinstance(engine, Plain):
        module.generator.electra.embeddings.register_forward_hook(watch)
    one, two = (made_up_batch(rows).to(engine.device) for rows in (1, 2))
    for _ in range(2):
        for last in (False, True):
            with engine.micro_step(last=last):
                output = model(one)
                moments[:] = [sum(held_now().values())]
                engine.backward(output.generator_loss_sum + output.discriminator_loss_sum)
        held_bytes = max(moments)
        engine.step(lambda peak: peak)
    model(one)  # makes what serves a whole step
    kept = [kept_for_backward(module, lambda batch=batch: model(batch)) for batch in (one, two)]
    activations = kept[1] - kept[0]  # what does not grow with the batch is copies of weights
    expected = one.input_ids.shape[1] * pair.token_bytes + one.slot_positions.shape[1] * pair.slot_bytes
    stage = getattr(engine, "zero_stage", None)
    name = f"zero{stage}" if stage else "ddp" if engine.world_size > 1 else "single"
    most = max(engine.everywhere(held_bytes + kept[0] - activations))
    return name, pair.parameters, most, activations / expected


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--size", choices=PUBLISHED, default="base")
    parser.add_argument("--gpus", type=int, nargs="+", default=[2**n for n in range(11)])
    parser.add_argument("--batch_tokens", type=int, help="of a global step (default: the published batch of the size)")
    parser.add_argument("--bin_tokens", type=int, help="default: the published sequence length of the size")
    parser.add_argument("--micro_batch_tokens", type=int, default=MICRO_BATCH_TOKENS["cuda"])
    parser.add_argument("--mask_prob", type=float, help="default: .25 for large, else .15")
    parser.add_argument("--bandwidth", type=float, default=25.0, help="GB/s that each member of the ring can send")
    parser.add_argument("--flops", type=float, default=peak_flops("A100"), help="dense bf16 peak of a GPU, per second")
    parser.add_argument("--utilisation", type=float, default=0.4, help="share of the peak that is reached")
    parser.add_argument("--precision", choices=("bf16", "no"), default="bf16", help="of the memory; no: fp32")
    parser.add_argument("--measure", choices=PUBLISHED, metavar="SIZE", help="under accelerate launch")
    asked = parser.parse_args()
    bins, bin_tokens = PUBLISHED[asked.size]
    asked.bin_tokens = asked.bin_tokens or bin_tokens
    asked.batch_tokens = asked.batch_tokens or bins * asked.bin_tokens
    asked.mask_prob = asked.mask_prob or (0.25 if asked.size == "large" else 0.15)
    if asked.batch_tokens % asked.bin_tokens:
        raise UserError(f"--batch_tokens {asked.batch_tokens} is not a multiple of --bin_tokens {asked.bin_tokens}")
    if min(asked.bandwidth, asked.flops, asked.utilisation, *asked.gpus) <= 0:
        raise UserError("--bandwidth, --flops, --utilisation and --gpus must be above 0")
    if asked.measure:
        name, parameters, measured, activations = measure(asked.measure, asked.precision)
        gpus = int(os.environ.get("WORLD_SIZE", "1"))
        computed = held(getattr(ENGINES[name], asked.precision), parameters, gpus)
        if os.environ.get("RANK", "0") == "0":
            print(
                f"| {name} | {asked.precision.replace('no', 'fp32')} | {asked.measure} | {measured / 1e6:.1f} | "
                f"{computed / 1e6:.1f} | {measured / computed - 1:+.1%} | {activations:.2f} |"
            )
        return
    memory_table(asked.precision)
    step_table(asked)


if __name__ == "__main__":
    exit_with_one_line(main)
