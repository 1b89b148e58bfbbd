"""From the configuration to its parts: what a pinned pair brings with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from electra_accel.model.pair import build_pair
from electra_accel.text.tokenizer import SPECIAL_TOKENS
from tests.helpers import ROOT, run_command
from tests.pretraining_runs import options, write_corpus

PROGRAM = """
import json, sys
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.assemble import prepared_data
config = Config()
config.model.generator, config.model.discriminator, config.model.revision = "our/pair", "our/pair", sys.argv[1]
config.data.train_files, config.data.max_length, config.data.eval_fraction = ["text.txt"], 16, 0.1
said = []
tokenizer = prepared_data(config, said.append).tokenizer
print(json.dumps([*tokenizer.convert_ids_to_tokens([5, 6]), *tokenizer.tokenize("A"), "do not say" in said[0]]))
"""


def test_the_tokenizer_of_a_pinned_pair_is_of_its_revision(tmp_path):
    """A hub cache as huggingface_hub lays it out, with two revisions, and no network; one says how letters are treated."""
    write_corpus(tmp_path / "text.txt", most=40)
    cached = tmp_path / "hub" / "models--our--pair"
    (cached / "refs").mkdir(parents=True)
    pair = build_pair("tiny", vocab_size=400, pad_token_id=0, max_length=64, generator_width=0.25, dropout=0.1, seed=1)
    letters = [chr(code) for code in range(33, 127)]
    for branch, first in (("main", "new"), ("v1", "old")):
        commit = branch.encode().hex().ljust(40, "0")
        (cached / "refs" / branch).write_text(commit)
        pair.discriminator.config.save_pretrained(cached / "snapshots" / commit)
        words = [*SPECIAL_TOKENS, first, *letters, *(f"##{letter}" for letter in letters)]
        (cached / "snapshots" / commit / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
        if branch == "v1":
            (cached / "snapshots" / commit / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    for revision, first in (("v1", "old"), ("main", "new")):
        environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, revision],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        letter = "a" if revision == "v1" else "A"
        assert json.loads(done.stdout.splitlines()[-1]) == [first, "!", letter, revision == "main"]


NEW_RULE = """
import sys
import numpy as np
from electra_accel.data.masking import MASK_UNITS, within

class FirstTokens:
    order = "the first ones"

    def __init__(self, tokenizer):
        assert tokenizer.mask_token == "[MASK]"

    def __call__(self, tokens, rows, positions, counts, streams):
        return np.flatnonzero(within(np.bincount(rows)) < counts[rows])

MASK_UNITS["first"] = FirstTokens

from electra_accel.pretraining.assemble import prepared_data, step_loader
from electra_accel.pretraining.config import resolve
from electra_accel.pretraining.config_checks import check
from electra_accel.pretraining.config_parser import parse

if __name__ == "__main__":
    config = resolve(parse(sys.argv[1:], description="").config)
    check(config)
    prepared = prepared_data(config, lambda line: None)
    place = {"world_size": 1, "rank": 0, "device": "cpu"}
    loaders = [step_loader(config, prepared, held_out=held_out, **place) for held_out in (False, True)]
    print([type(loader.collator.masking.rule).__name__ for loader in loaders])
    batch = next(loaders[0].steps()).micro_batches[0]
    selected, count = batch.slot_positions[0][batch.slot_used[0]].tolist(), int((batch.segment_ids[0] == 1).sum())
    print(selected[:2] == [1, 2] and count > 12)
"""


def test_a_masking_rule_is_one_entry(tmp_path):
    """A rule that is known here alone: the option takes its name, and a run selects by it; held-out text never does."""
    write_corpus(tmp_path / "text.txt", most=40)
    arguments = options(Path("text.txt"), Path("run"), objective__mask_unit="first")
    (tmp_path / "program.py").write_text(NEW_RULE)
    done = run_command(
        [sys.executable, "program.py", *arguments], tmp_path, 100, begin=subprocess.Popen, PYTHONPATH=str(ROOT)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["['FirstTokens', 'SingleTokens']", "True"]
