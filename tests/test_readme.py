"""Every command of README.md and docs/tour.md runs, in a folder with the files it names; only the work is cut short."""

import configparser
import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.helpers import ROOT, run_command
from tests.pretraining_runs import write_corpus
from tests.processes import of_this_python

PAGES = ("README.md", "docs/tour.md")  # in this order: the tour uses what README made
# Appended to commands that train or tokenise, so that each takes seconds.
SHORT = {
    "pretrain.py": "--train.steps 2 --optim.warmup_steps 1 --eval.batches 1 --train.batch_tokens 512",
    "own-text.yaml": "--tokenizer.train_vocab_size 600",
    "reviews-ko.yaml": "--tokenizer.train_vocab_size 600",
    "train_tokenizer.py": "--vocab_size 600",
    "finetune.py": "--train.epochs 1 --optim.learning_rate 5e-4 --run.seeds 1 2",
    # In place of the published pair, which would have to be downloaded: one that was made before.
    "electra-base-domain.yaml": "--model.generator runs/my-text/generator --model.discriminator runs/my-text/discriminator "
    "--data.max_length 128",
}


def blocks(language: str, page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [block for found, block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.M | re.S) if found == language]


def commands() -> list[str]:
    text = "".join(block for page in PAGES for block in blocks("sh", page)).replace("\\\n", " ")
    text = text.replace("google/electra-base-discriminator", "runs/my-text/discriminator")  # see SHORT
    lines = [line.split(" #")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_runs(tmp_path):
    """In order, because later commands use what earlier ones made. `make` targets and pip's extras are only looked up."""
    for name in ("scripts", "recipes", "accelerate_configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    for folder in ("my", "domain"):
        (tmp_path / folder).mkdir()
        write_corpus(tmp_path / folder / "text.txt", most=400)
    write_corpus(tmp_path / "whole.txt")
    (tmp_path / "general").mkdir()  # other text than the domain's, which would be left out of it
    other = (tmp_path / "whole.txt").read_text("utf-8").splitlines()[400:460]
    (tmp_path / "general" / "text.txt").write_text("\n".join(other), encoding="utf-8")
    rows = "".join(f"{i},별점 {i % 10}점 영화 정말 재미있어요 추천합니다\n" for i in range(400))
    (tmp_path / "reviews.csv").write_text("id,sen\n" + rows, encoding="utf-8")
    labelled = "text\tlabel\n" + "".join(f"row {i} of the table\t{i % 2}\n" for i in range(60))
    for name in ("train", "test"):
        (tmp_path / f"{name}.tsv").write_text(labelled, encoding="utf-8")
    environment = {"OMP_NUM_THREADS": "1", "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    ran: list[str] = []
    for command in commands():
        if command.startswith("make "):
            target = command.split()[1]
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), command
            continue
        if command.startswith("pip "):
            extras = configparser.ConfigParser()
            extras.read(ROOT / "setup.cfg")
            assert re.search(r"\[(\w+)\]", command)[1] in extras["options.extras_require"], command
            continue
        words = shlex.split(command)
        for part, extra in SHORT.items():
            if part in command and not ("tokenizer.path" in command and "vocab_size" in extra):
                words += shlex.split(extra)
        if words[0] in ran:  # each program once by its own name; after that, started faster
            words = of_this_python(words)
        done = run_command(words, tmp_path, 400, **environment)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        ran.append(words[0])
    assert len(ran) >= 15
    (python,) = blocks("python", "README.md")
    done = subprocess.run(
        [sys.executable, "-P", "-c", python], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
