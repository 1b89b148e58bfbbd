"""scripts/benchmarks/throughput.py: what it compares is the same objective, and its table reaches the page."""

import importlib.util
import json
import sys

import pytest
import torch

from electra_accel.model.pair import build_pair
from tests.helpers import ROOT, run_command, run_in_process
from tests.pretraining_runs import write_corpus

spec = importlib.util.spec_from_file_location("ways", ROOT / "scripts" / "benchmarks" / "training_ways.py")
ways = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ways)
SMALL = "--data.train_files text.txt --data.max_length 32 --tokenizer.train_vocab_size 300 --model.size tiny"
SMALL += " --train.batch_tokens 256 --train.bin_tokens 32"


def test_padding_and_an_lm_head_at_every_token_change_no_loss():
    """So the first three rows of the table differ in their work alone. The same masks and samples by the same seed."""
    pair = build_pair("tiny", dropout=0.0, seed=1, vocab_size=90, pad_token_id=0, max_length=32, generator_width=None)
    examples = [[2, *range(5, 5 + n), 3] for n in (7, 12, 20)]
    batch, found = ways.Padded(0, None)(examples)["input_ids"], []
    for slots_only in (False, True):
        torch.manual_seed(1)
        found.append(ways.Pair(*pair, [2, 3, 0], 4, slots_only)(batch))
    torch.testing.assert_close(*found)
    generator_loss_of_chance, discriminator_loss_of_chance = torch.tensor(90.0).log(), torch.tensor(2.0).log()
    torch.testing.assert_close(found[0], generator_loss_of_chance + 50 * discriminator_loss_of_chance, rtol=0.1, atol=0)
    padded = ways.Padded(0, 32)(examples)["input_ids"]
    assert padded.shape == (3, 32) and padded[:, : batch.shape[1]].equal(batch) and not padded[:, 22:].any()


def test_ways_take_turns_and_the_table_reaches_the_page(tmp_path):
    write_corpus(tmp_path / "text.txt")
    (tmp_path / "page.md").write_text("# Speed\n<!-- cpu -->\nold\n<!-- /cpu -->\nafter\n")
    words = ["--ways", "trainer:no", "ours:bf16", "--rounds", "2", "--seconds", "0.3", "--device", "cpu"]
    words += ["--markdown", "page.md", "--json", "found.json", f"--options={SMALL}"]
    script = str(ROOT / "scripts" / "benchmarks" / "throughput.py")
    done = run_command([sys.executable, script, *words], tmp_path, timeout=200)
    assert done.returncode == 0, done.stderr
    slow, fast = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert slow["tokens_per_second"] > 0 and 0 < fast["mfu"] < 1 and 0 <= fast["waiting"] < 1
    assert slow["operators"] > 400 and fast["operators"] > 400
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("# Speed\n<!-- cpu -->\n") and page.endswith("<!-- /cpu -->\nafter\n") and "old" not in page
    assert page.count("| this project: packed | bf16 |") == 1


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--ways", "ours"], "--ways ours: must be one of trainer, "),
        (["--ways", "ours-recorded:bf16", "--device", "cpu"], "CUDA graphs need a GPU"),
        (["--rounds", "0"], "--rounds and --seconds must be above 0"),
        (["--markdown", "README.md"], "no lines <!-- cpu -->"),
        (["--markdown", "missing.md"], "missing.md"),
        (["--options", "--train.stesp 3"], "did you mean train.steps?"),
    ],
)
def test_a_mistake_is_one_line_before_anything_starts(words, part, tmp_path):
    done = run_in_process("benchmarks/throughput.py", *words)
    assert done.returncode == 2 and part in done.stderr and done.stderr.count("\n") == 1, done.stderr
