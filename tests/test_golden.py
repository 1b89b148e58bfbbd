"""Golden losses: 20 steps in float64 from fixed text, fixed vocabulary and keyed initial weights, kept as text.

They change when the definition of training changes: order, masking, initial weights, sampling, loss, optimizer, schedule. If
that was meant, ``make golden`` rewrites tests/golden/losses.txt, and the change belongs into CHANGELOG.md.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from electra_accel.randomness import bits, key
from electra_accel.runs import run_folder
from tests.helpers import ROOT, run_command
from tests.pretraining_runs import options

GOLDEN = ROOT / "tests" / "golden" / "losses.txt"
FIGURES = ("train/loss", "train/generator_loss", "train/discriminator_loss", "train/gradient_norm")
WORDS = (
    "the a one some every small large old new open closed first last river house letter word number reader writer page "
    "line table engine loader batch gradient weight step run stops starts reads writes finds moves keeps drops over under "
    "before after with without and or but when while slowly quickly again never always here there now then"
).split()


def write_text(folder: Path) -> None:
    """Documents of 5 to 60 words, each drawn from a few words around the one before, and a vocabulary that holds them."""
    lines = []
    for document in range(400):
        draws = bits(key(7, document), np.arange(61)).tolist()
        place, words = draws[0] % len(WORDS), []
        for draw in draws[1 : 6 + draws[0] % 56]:
            place = (place + draw % 5) % len(WORDS)
            words.append(WORDS[place])
        lines.append(" ".join(words))
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(WORDS)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")


def train(folder: Path) -> list[list[float]]:
    """FIGURES of each step."""
    write_text(folder)
    chosen = options(
        folder / "text.txt",
        folder / "run",
        tokenizer__train_vocab_size=None,
        tokenizer__path=folder / "vocab.txt",
        model__dropout=0.0,
        eval__every=100,
        eval__batches=1,
        tracking__mode="disabled",
    )
    (folder / "cases.json").write_text(json.dumps([[*chosen, "--float64"]]))
    command = [sys.executable, ROOT / "tests" / "parity" / "recorded.py", "cases.json"]
    done = run_command(command, folder, 200, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout + done.stderr
    records = run_folder.read_jsonl(folder / "run" / run_folder.METRICS)
    return [[record[name] for name in FIGURES] for record in records if "train/loss" in record]


def test_losses_are_the_golden_ones(tmp_path):
    lines = [line for line in GOLDEN.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    golden = [[float(number) for number in line.split()] for line in lines]
    assert len(golden) == 20
    for step, (found, expected) in enumerate(zip(train(tmp_path), golden, strict=True), start=1):
        assert found == pytest.approx(expected, rel=1e-9), f"step {step}: see the docstring of this file"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        rows = train(Path(scratch))
    head = f"# float64, one process: {', '.join(FIGURES)}; one step a line. Rewritten by: make golden"
    GOLDEN.write_text("\n".join([head, *(" ".join(map(repr, row)) for row in rows)]) + "\n", encoding="utf-8")
    print(f"{GOLDEN.relative_to(ROOT)}: {len(rows)} steps")
