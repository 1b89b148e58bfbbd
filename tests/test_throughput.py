"""scripts/benchmarks/throughput.py compares one objective (turns and rows: test_gpu_suite.py); costs.py has its rows."""

import math
import re
import sys
from subprocess import PIPE, Popen

import pytest
import torch

from electra_accel.errors import UserError
from electra_accel.model.pair import build_pair
from electra_accel.pretraining.config import Objective
from tests.helpers import ROOT, benchmark, run_in_process

measuring, throughput, ways = (benchmark(name) for name in ("measuring", "throughput", "training_ways"))


class Tokenizer:
    pad_token_id, cls_token_id, sep_token_id, mask_token_id = 0, 2, 3, 4


def test_padding_and_an_lm_head_at_every_token_change_no_loss():
    """So the rows of Trainer differ in their work alone. The same masks and samples by the same seed."""
    pair = build_pair("tiny", dropout=0.0, seed=1, vocab_size=90, pad_token_id=0, max_length=32, generator_width=None)
    examples = [[2, *range(5, 5 + n), 3] for n in (7, 12, 20)]
    made, found = ways.Padded(0, None)(examples), []
    for slots_only in (False, True):
        torch.manual_seed(1)
        objective = Objective(mask_prob=0.15, discriminator_weight=50.0)
        found.append(ways.Pair(*pair, Tokenizer, objective, slots_only)(made["input_ids"]))
    torch.testing.assert_close(*found)
    of_chance = math.log(90) + 50 * math.log(2)
    assert math.isclose(found[0].item(), of_chance, rel_tol=0.1)
    padded = ways.Padded(0, 32)(examples)["input_ids"]
    assert padded.shape == (3, 32) and not padded[:, 22:].any() and made["tokens"] == sum(map(len, examples))
    assert padded[:, :22].equal(made["input_ids"])


def test_a_section_of_a_page_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Speed\n<!-- cpu -->\nold\n<!-- /cpu -->\nafter\n")
    measuring.write_section(page, "cpu", ["new", "lines"])
    assert page.read_text() == "# Speed\n<!-- cpu -->\n\nnew\nlines\n\n<!-- /cpu -->\nafter\n"
    with pytest.raises(UserError, match="no lines <!-- gpu -->"):
        measuring.parts_around(page, "gpu")
    for name, known in (("performance", {"cpu", "cpu-short", "costs"}), ("gpu", {"measured"})):
        page = ROOT / "docs" / f"{name}.md"
        sections = set(re.findall(r"<!-- ([\w-]+) -->", page.read_text("utf-8")))
        assert sections == known and all(measuring.parts_around(page, each) for each in sections)


@pytest.mark.parametrize("program", ["pass", "input(); import os; os._exit(3)", "import time; time.sleep(60)"])
def test_a_way_that_ends_or_hangs_is_one_line(program):
    process = Popen([sys.executable, "-c", program], stdin=PIPE, stdout=PIPE, text=True)
    if program == "pass":
        process.wait()
    with pytest.raises(UserError, match="ours:no ended with exit code"):
        if "sleep" in program:
            throughput.Way("ours:no", process).answer(1.0)
        else:
            throughput.Way("ours:no", process).train(1.0)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--ways", "ours"], "--ways ours: must be one of trainer, "),
        (["--ways", "ours-recorded:bf16", "--device", "cpu"], "CUDA graphs need a GPU"),
        (["--rounds", "0"], "--rounds and --seconds must be above 0"),
        (["--markdown", "README.md"], "no lines <!-- cpu -->"),
        (["--markdown", "missing.md"], "missing.md"),
        (["--json", "missing/found.json"], "--json missing/found.json cannot be written"),
        (["--options", "--train.stesp 3"], "did you mean train.steps?"),
        (["--options", "'"], "--options"),
        (["--options", "--train.batch_tokens 100"], "train.batch_tokens"),
        (["--options", "--optim.kind muon"], "--optim.kind: the ways of Trainer have adamw alone"),
        (["--options", "--data.train_files missing.txt"], "missing.txt"),
    ],
)
def test_a_mistake_is_one_line_before_anything_starts(words, part, capfd):
    done = run_in_process("benchmarks/throughput.py", *words)
    said = done.stderr + capfd.readouterr().err  # of the process that prepares the text
    assert done.returncode == 2 and part in said and said.count("\n") == 1, said


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["trainer:no", "x.md", "--device", "cpu"], "trainer:no: must be one of ours, "),
        (["ours:no", "missing/x.md", "--device", "cpu"], "missing/x.md cannot be written"),
        (["ours:no"], "file"),
    ],
)
def test_a_mistake_of_the_profile_is_one_line(words, part):
    done = run_in_process("benchmarks/profile_step.py", *words)
    assert done.returncode == 2 and part in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_on_a_gpu_the_profile_counts_each_kernel_once():
    """An operator has the time of its kernels as its own, too."""
    longest, kinds = benchmark("profile_step").longest, torch.autograd.DeviceType

    def event(key, kind, microseconds, note=False):
        made = torch.autograd.profiler_util.FunctionEventAvg()
        made.key, made.device_type, made.is_user_annotation, made.count = key, kind, note, 3
        made.self_device_time_total = microseconds
        return made

    found = [
        *(event("aten::mm", kinds.CPU, 60), event("gemm", kinds.CUDA, 60)),
        *(event("copy", kinds.CUDA, 20), event("ProfilerStep", kinds.CUDA, 80, note=True)),
    ]
    assert longest(found, cuda=True)[2:] == ["| `gemm` | 1 | 75.0% |", "| `copy` | 1 | 25.0% |"]


def test_costs_have_a_row_for_what_is_changed():
    words = ["--rows", "2", "--seconds", "0.01", "--micro_batch_tokens", "256"]
    done = run_in_process("benchmarks/costs.py", *words)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()[-2:]
    assert first.startswith("| size small, 128 tokens, vocabulary 30,522, 15% selected | ")
    assert second.startswith("| 64 tokens | ")
    longer, shorter = (float(row.split(" | ")[2].replace(",", "")) for row in (first, second))
    assert shorter < longer  # operations a token
    for name in ("seconds", "rows", "micro_batch_tokens"):
        done = run_in_process("benchmarks/costs.py", f"--{name}", "0")
        assert done.returncode == 2 and f"--{name} must be above 0" in done.stderr
