"""Golden losses: 20 steps in float64 from fixed text, fixed vocabulary and keyed initial weights, kept as text.

They change when the definition of training changes: order, masking, initial weights, sampling, loss, optimizer, schedule. If
that was meant, ``make golden`` rewrites the files in tests/golden, and the change belongs into CHANGELOG.md.
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

GOLDEN = ROOT / "tests" / "golden"
LOSSES = ("train/loss", "train/generator_loss", "train/discriminator_loss")
CASES = {  # file -> options, figures
    "published.txt": (dict(optim__kind="adamw", objective__corrective_weight=0), (*LOSSES, "train/gradient_norm")),
    "muon-corrective.txt": (
        dict(optim__kind="muon", optim__matrix_learning_rate=4e-3, objective__corrective_weight=10),
        (*LOSSES, "train/corrective_loss", "train/gradient_norm"),
    ),
}
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


def train(folder: Path) -> dict[str, list[list[float]]]:
    """The figures of each step, by file."""
    write_text(folder)
    runs = []
    for name, (changed, _) in CASES.items():
        chosen = options(
            folder / "text.txt",
            folder / name,
            tokenizer__train_vocab_size=None,
            tokenizer__path=folder / "vocab.txt",
            model__dropout=0.0,
            model__sharing="tied",
            objective__discriminator_weight=50,
            objective__mask_prob=0.15,
            eval__every=100,
            eval__batches=1,
            tracking__mode="disabled",
            **changed,
        )
        runs.append([*chosen, "--float64"])
    (folder / "cases.json").write_text(json.dumps(runs))
    command = [sys.executable, ROOT / "tests" / "parity" / "recorded.py", "cases.json"]
    done = run_command(command, folder, 200, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for name, (_, figures) in CASES.items():
        records = run_folder.read_jsonl(folder / name / run_folder.METRICS)
        found[name] = [[record[figure] for figure in figures] for record in records if "train/loss" in record]
    return found


def test_losses_are_the_golden_ones(tmp_path):
    for name, rows in train(tmp_path).items():
        lines = [line for line in (GOLDEN / name).read_text("utf-8").splitlines() if not line.startswith("#")]
        golden = [[float(number) for number in line.split()] for line in lines]
        assert len(golden) == 20
        for step, (found, expected) in enumerate(zip(rows, golden, strict=True), start=1):
            assert found == pytest.approx(expected, rel=1e-9), f"{name}, step {step}: see the docstring of this file"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for name, rows in train(Path(scratch)).items():
            head = f"# float64, one process: {', '.join(CASES[name][1])}; one step a line. Rewritten by: make golden"
            lines = [head, *(" ".join(map(repr, row)) for row in rows)]
            (GOLDEN / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
            print(f"tests/golden/{name}: {len(rows)} steps")
