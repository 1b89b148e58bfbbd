"""What a token costs by length, vocabulary, selected share and size: a table of docs/performance.md.

    python scripts/benchmarks/costs.py                                   # 5 minutes on two cores; made-up tokens, no text
    python scripts/benchmarks/costs.py --precision bf16 --markdown docs/performance.md --section costs

Each row changes one thing of the first: a published pair, full bins of one example each. Tokens/s and MFU are those of forward
and backward passes. Where the MFU is near the first row's, matrix products limit the speed; far below it, something else does.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from scaling import made_up_batch
from throughput import machine, parts_around, product_ceiling

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.engines.engine import Engine
from electra_accel.engines.open import open_engine
from electra_accel.errors import UserError
from electra_accel.model.flops import training_flops
from electra_accel.model.pair import build_pair
from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.pretraining.assemble import MICRO_BATCH_TOKENS
from electra_accel.pretraining.config import Optim
from electra_accel.pretraining.optim import build_optimizer


class Point(NamedTuple):
    """One row; ``length`` in tokens, ``share`` of them selected."""

    size: str = "small"
    length: int = 128
    vocabulary: int = 30_522
    share: float = 0.15

    def changed(self) -> str:
        """In words, what is not as in the first row."""
        names = ("size {}", "{:,} tokens", "vocabulary {:,}", "{:.0%} selected")
        values = zip(names, self, FIRST, strict=True)
        return ", ".join(name.format(value) for name, value, usual in values if value != usual or self == FIRST)


FIRST = Point()
POINTS = [
    FIRST,
    *(FIRST._replace(length=length) for length in (64, 256, 512, 1024)),
    *(FIRST._replace(vocabulary=size) for size in (8_000, 16_000, 64_000)),
    *(FIRST._replace(share=share) for share in (0.3, 0.5)),
    *(FIRST._replace(size=size) for size in ("tiny", "base")),
]


def measure(point: Point, engine: Engine, tokens: int, seconds: float) -> dict[str, float]:
    """Of micro-steps: tokens a second and operations a token; and milliseconds of an optimizer step."""
    pair = build_pair(
        point.size, dropout=0.1, seed=1, vocab_size=point.vocabulary, pad_token_id=0, max_length=point.length,
        generator_width=None,
    )  # fmt: skip
    model = ReplacedTokenDetection(*pair)
    engine.prepare(model, build_optimizer(model, Optim(learning_rate=1e-4, kind="adamw")), None, max_norm=1.0)
    engine.model.train()
    rows, slots = max(1, tokens // point.length), math.ceil(point.share * point.length)
    batch = made_up_batch(rows, point.length, slots).to(engine.device)

    def micro_step() -> None:
        output = engine.model(batch)
        generator_loss = output.generator_loss_sum / (rows * slots)
        engine.backward(generator_loss + 50 * output.discriminator_loss_sum / (rows * point.length))

    def step() -> None:
        engine.step(lambda peak: peak)

    micro_step()
    step()
    micro_seconds = _seconds(micro_step, seconds, engine.device)
    flops = training_flops(pair.generator.config, pair.discriminator.config, point.length)
    found = {
        "tokens_per_second": rows * point.length / micro_seconds,
        "flops_per_token": flops.of_model(1, slots / point.length),
        "step_ms": 1e3 * _seconds(step, 0, engine.device),
    }
    engine.release()
    return found


def _seconds(work: Callable[[], None], at_least: float, device: torch.device) -> float:
    """Mean over calls that take ``at_least`` seconds together, two at the least; 0: one call."""
    began, calls = time.perf_counter(), 0
    while not calls or (at_least and (calls < 2 or time.perf_counter() - began < at_least)):
        work()
        calls += 1
        if device.type == "cuda":
            torch.cuda.synchronize()
    return (time.perf_counter() - began) / calls


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each row")
    parser.add_argument("--rows", type=int, default=len(POINTS), help="only the first ones")
    parser.add_argument("--micro_batch_tokens", type=int, help="default: as in a run, 4096 on a CPU, 32768 on a GPU")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table into this page")
    parser.add_argument("--section", default="costs", help="of that page")
    asked = parser.parse_args()
    if min(asked.rows, asked.seconds, asked.micro_batch_tokens or 1) <= 0:
        raise UserError("--rows, --seconds and --micro_batch_tokens must be above 0")
    if asked.markdown:
        parts_around(asked.markdown, asked.section)
    engine = open_engine(precision=asked.precision, cpu=False, trackers=[], folder=Path())
    tokens = asked.micro_batch_tokens or MICRO_BATCH_TOKENS[engine.device.type]
    dtype = {"no": torch.float32, "bf16": torch.bfloat16}[asked.precision]
    ceiling = product_ceiling(engine.device.type, dtype)
    precision = asked.precision.replace("no", "fp32")
    told = f"{machine(engine.device.type)}. Precision {precision}, micro-batches of {tokens:,} tokens. "
    lines = ["", f"{told}Ceiling of a large matrix product: {ceiling / 1e9:,.0f} GFLOP/s.", ""]
    lines += ["| changed | tokens/s | MFLOP a token | MFU | optimizer step |", "|---|---|---|---|---|"]
    print("\n".join(lines))
    for point in POINTS[: asked.rows]:
        found = measure(point, engine, tokens, asked.seconds)
        used = found["tokens_per_second"] * found["flops_per_token"] / ceiling
        lines.append(
            f"| {point.changed()} | {found['tokens_per_second']:,.0f} | {found['flops_per_token'] / 1e6:,.0f} | {used:.0%} | "
            f"{found['step_ms']:,.0f} ms |"
        )
        print(lines[-1], flush=True)
    if asked.markdown:
        before, after = parts_around(asked.markdown, asked.section)
        asked.markdown.write_text(before + "\n".join([*lines, ""]) + "\n" + after, "utf-8")


if __name__ == "__main__":
    exit_with_one_line(main)
