"""scripts/benchmarks/throughput.py compares one objective (turns and rows: test_gpu_suite.py); costs.py has its rows."""

import importlib.util
import re

import pytest
import torch

from electra_accel.errors import UserError
from electra_accel.model.pair import build_pair
from tests.helpers import ROOT, run_in_process


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ways, throughput = script("training_ways"), script("throughput")


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


def test_a_section_of_a_page_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Speed\n<!-- cpu -->\nold\n<!-- /cpu -->\nafter\n")
    assert throughput.parts_around(page, "cpu") == ("# Speed\n<!-- cpu -->\n", "<!-- /cpu -->\nafter\n")
    with pytest.raises(UserError, match="no lines <!-- gpu -->"):
        throughput.parts_around(page, "gpu")
    sections = re.findall(r"<!-- (cpu[\w-]*) -->", (ROOT / "docs" / "performance.md").read_text("utf-8"))
    assert "cpu" in sections and all(
        throughput.parts_around(ROOT / "docs" / "performance.md", each) for each in sections
    )


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


def test_costs_have_a_row_for_what_is_changed():
    words = ["--rows", "2", "--seconds", "0.01", "--micro_batch_tokens", "256"]
    done = run_in_process("benchmarks/costs.py", *words)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()[-2:]
    assert first.startswith("| size small, 128 tokens, vocabulary 30,522, 15% selected | ")
    assert second.startswith("| 64 tokens | ")
    longer, shorter = (float(row.split(" | ")[2].replace(",", "")) for row in (first, second))
    assert shorter < longer  # operations a token
    done = run_in_process("benchmarks/costs.py", "--seconds", "0")
    assert done.returncode == 2 and "must be above 0" in done.stderr
