"""From the configuration to its parts: what a pinned pair brings with it."""

import json
import os
import subprocess
import sys

from electra_accel.model.pair import build_pair
from electra_accel.text.tokenizer import SPECIAL_TOKENS
from tests.helpers import ROOT
from tests.pretraining_runs import write_corpus

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
