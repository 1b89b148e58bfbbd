"""What a token costs by length, vocabulary, selected share and size: a table of docs/performance.md.

    python scripts/benchmarks/costs.py                                   # made-up tokens, no text
    python scripts/benchmarks/costs.py --precision bf16 --markdown docs/performance.md --section costs

Each row changes one thing of the first: a published pair, full bins of one example each. Tokens/s and MFU (the share of what a
large matrix product reaches) are those of forward and backward passes. The optimizer's step is apart.
"""

import math
from pathlib import Path
from statistics import median
from typing import NamedTuple

from measuring import in_words, leave_on_sigterm, machine, parts_around, product_ceiling, seconds_of, write_section
from scaling import made_up_batch

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

    device, steps = engine.device.type, []
    for _ in range(3):
        micro_step()
        steps += seconds_of(step, device, 1)
    (once,) = seconds_of(micro_step, device, 1)
    micro_seconds = median(seconds_of(micro_step, device, max(2, round(seconds / once))))
    flops = training_flops(pair.generator.config, pair.discriminator.config, point.length)
    found = {
        "tokens_per_second": rows * point.length / micro_seconds,
        "flops_per_token": flops.of_model(1, slots / point.length),
        "step_ms": 1e3 * min(steps),  # the first one makes the optimizer's state
    }
    engine.release()
    return found


def main() -> None:
    leave_on_sigterm()
    parser = argument_parser(__doc__)
    parser.add_argument("--precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each row")
    parser.add_argument("--rows", type=int, default=len(POINTS), help="only the first ones")
    parser.add_argument("--micro_batch_tokens", type=int, help="default: as in a run, 4096 on a CPU, 32768 on a GPU")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table into this page")
    parser.add_argument("--section", default="costs", help="of that page")
    asked = parser.parse_args()
    for name in ("seconds", "rows", "micro_batch_tokens"):
        if (value := getattr(asked, name)) is not None and value <= 0:
            raise UserError(f"--{name} must be above 0, not {value:g}")
    if asked.markdown:
        parts_around(asked.markdown, asked.section)
    engine = open_engine(precision=asked.precision, cpu=False, trackers=[], folder=Path())
    device = engine.device.type
    tokens, ceiling = asked.micro_batch_tokens or MICRO_BATCH_TOKENS[device], product_ceiling(device, asked.precision)
    lines = [
        f"{machine(device)}. Precision {in_words(asked.precision)}, micro-batches of {tokens:,} tokens. Ceiling of a large "
        f"matrix product: {ceiling / 1e9:,.0f} GFLOP/s.",
        "",
        "| changed | tokens/s | MFLOP a token | MFU | optimizer's step |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for point in POINTS[: asked.rows]:
        found = measure(point, engine, tokens, asked.seconds)
        used = found["tokens_per_second"] * found["flops_per_token"] / ceiling
        lines.append(
            f"| {point.changed()} | {found['tokens_per_second']:,.0f} | {found['flops_per_token'] / 1e6:,.0f} | {used:.0%} | "
            f"{found['step_ms']:,.0f} ms |"
        )
        print(lines[-1], flush=True)
    if asked.markdown:
        write_section(asked.markdown, asked.section, lines)


if __name__ == "__main__":
    exit_with_one_line(main)
