"""scripts/benchmarks/linear_probe.py: what is frozen is read, layer by layer."""

import re

from tests.finetuning.small import make_encoder, rows, write_jsonl
from tests.pretraining_runs import run_here


def test_the_words_of_an_easy_task_survive_a_random_projection(tmp_path, monkeypatch, capfd):
    make_encoder(tmp_path / "random")
    for name, number in (("train", 300), ("dev", 100)):
        write_jsonl(tmp_path / f"{name}.jsonl", rows(number, seed=number))
    line = ["--models", "random", "--train", "train.jsonl", "--dev", "dev.jsonl", "--train_rows", "250"]
    code, out, err = run_here(line, tmp_path, monkeypatch, capfd, "benchmarks/linear_probe.py")
    assert code == 0, err
    encoder, words = out.splitlines()
    scores = [float(score) for score in re.findall(r"0\.\d{4}|1\.0000", encoder)]
    assert encoder.startswith("random: embeddings") and len(scores) == 3 and min(scores) > 0.9
    assert float(words.rpartition(" ")[2]) == 1.0
