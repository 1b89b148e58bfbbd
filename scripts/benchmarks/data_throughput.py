"""How fast plan + masking + collate make batches, how full they are, and what a place in a huge corpus costs.

    python scripts/benchmarks/data_throughput.py                                    # made-up long documents, bins of 512
    python scripts/benchmarks/data_throughput.py --prepared FOLDER --vocab_size 32200 --bin_tokens 128
    python scripts/benchmarks/data_throughput.py --huge                             # 1e8 examples, plan only

Tokens/s counts real tokens (no padding), over --seconds after the first step; 0 workers is one core that does all. Set
OMP_NUM_THREADS=1 so that it is one core. FOLDER holds tokens.bin, offsets.bin and blocks.bin.
"""

import resource
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.data.collate import Collator
from electra_accel.data.loader import StepLoader
from electra_accel.data.masking import Masking, slots_of_length
from electra_accel.data.packing import choose_limits
from electra_accel.data.plan import START, Cursor, Layout, Plan, steps_in_passes
from electra_accel.data.store import TokenStore, TokenWriter
from electra_accel.randomness import bits, uniform

MASK_PROB = 0.15
STEP_TOKENS = 16_384  # token slots of a micro-batch, one per step


def slots(lengths: np.ndarray) -> np.ndarray:
    return slots_of_length(lengths, MASK_PROB)


def made_up_store(folder: Path, vocab_size: int) -> TokenStore:
    """Documents of some 1,500 tokens, cut into 512 and a rest."""
    documents = 1 + np.minimum(-1500 * np.log1p(-uniform(1, np.arange(20_000))), 20_000).astype(np.int64)
    rests = documents % 510
    lengths = np.concatenate([np.full((documents // 510).sum(), 512), rests[rests > 0] + 2])
    ends = np.cumsum(lengths)
    tokens = 5 + (bits(3, np.arange(ends[-1])) % np.uint64(vocab_size - 5)).astype(np.int64)
    tokens[ends - lengths], tokens[ends - 1] = 2, 3
    writer = TokenWriter(folder, vocab_size)
    writer.append(tokens, lengths)
    writer.close()
    return TokenStore(folder, vocab_size, corpus=1)


def measure(store: TokenStore, bin_tokens: int, vocab_size: int, seconds: float, workers: list[int]) -> None:
    histogram, began = np.bincount(store.lengths(np.arange(len(store)))), time.perf_counter()
    limits, bins_per_step = choose_limits(histogram, bin_tokens, slots), STEP_TOKENS // bin_tokens
    print(f"{len(store):,} examples, {histogram @ np.arange(len(histogram)):,} tokens, {limits}", end="")
    print(f", chosen in {time.perf_counter() - began:.2f} s")
    plan = Plan(len(store), store.lengths, lambda _, n: slots(n), limits, bins_per_step, seed=1, corpus=1)
    steps, began = steps_in_passes(histogram, slots, limits, bins_per_step, 1), time.perf_counter()
    tokens = used = examples = 0
    for step in islice(plan.steps(), steps):
        tokens += step.tokens
        used += int(slots(store.lengths(step.bins.examples)).sum())
        examples += len(step.bins.examples)
    bins = steps * bins_per_step
    print(f"  one pass: {steps:,} steps, fill: tokens {tokens / bins / limits.tokens:.2%}", end="")
    print(f", slots {used / bins / limits.slots:.2%}, {examples / bins:.2f} examples a bin", end="")
    print(f"; plan alone {tokens / (time.perf_counter() - began) / 1e6:.1f} million tokens/s")

    masking = Masking(MASK_PROB, 0.85, 0.0, vocab_size, 4, [0, 2, 3, 4], [0, 1, 2, 3, 4])
    layout = Layout.derive(bins_per_step, bin_tokens, STEP_TOKENS, 1)
    for count in workers:
        collator = Collator(store, masking, limits, layout.rows, seed=1, pad_id=0)
        loader = StepLoader(plan, layout, 0, collator, num_workers=count).steps(START)
        next(loader)
        began, tokens, elapsed = time.perf_counter(), 0, 0.0
        while elapsed < seconds:
            tokens += next(loader).tokens
            elapsed = time.perf_counter() - began
        loader.close()
        print(f"  {count} workers: {tokens / elapsed / 1e6:.2f} million tokens/s")


def huge() -> None:
    """First step and a resume in a corpus of 1e8 examples whose lengths exist only as a function of the number."""

    def lengths(examples: np.ndarray) -> np.ndarray:
        return 20 + (bits(3, examples) % np.uint64(493)).astype(np.int64)

    limits = choose_limits(np.bincount(lengths(np.arange(100_000))), 512, slots)
    plan = Plan(10**8, lengths, lambda _, n: slots(n), limits, 256, seed=1, corpus=1)
    for name, cursor in (("first step", START), ("resume", Cursor(3, 1234, 5678, ((3, 99_999_999),)))):
        began = time.perf_counter()
        next(plan.steps(cursor))
        print(f"1e8 examples, {name}: {time.perf_counter() - began:.3f} s")
    print(f"peak memory of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--prepared", type=Path, help="folder of a prepared split")
    parser.add_argument("--vocab_size", type=int, default=32_200, help="of its tokenizer")
    parser.add_argument("--bin_tokens", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--huge", action="store_true", help="1e8 examples, plan only")
    asked = parser.parse_args()
    if asked.huge:
        return huge()
    with tempfile.TemporaryDirectory() as folder:
        size = asked.vocab_size
        store = TokenStore(asked.prepared, size, 1) if asked.prepared else made_up_store(Path(folder), size)
        measure(store, asked.bin_tokens, size, asked.seconds, asked.workers)


if __name__ == "__main__":
    exit_with_one_line(main)
