"""A Korean pair as people download it by hand, without what says how letters are treated; and a pair of another language.

Every script that makes tokens prints how many of them are unknown, and warns where they are many.
"""

import json
import shutil

import pytest
import torch
from transformers import AutoTokenizer, ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from electra_accel.runs import run_folder
from electra_accel.text.tokenizer import SPECIAL_TOKENS
from tests.pretraining_runs import run_here

SYLLABLES = "영화가재미있다정말좋아요이책은별로그냥보"
LATIN = "ABCDEFGabcdefg"
TOKENS = [*SPECIAL_TOKENS, *SYLLABLES, *LATIN, *(f"##{c}" for c in SYLLABLES + LATIN), ".", *"0123456789", "##0"]
SHORT = [
    "--train.steps=2",
    "--optim.warmup_steps=1",
    "--train.batch_tokens=512",
    "--data.max_length=32",
    "--eval.batches=1",
    "--data.eval_fraction=0.2",
]
MANY = "% of the tokens of"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """``pair``: config.json, weights and vocab.txt; ``wrong``: the same with a vocabulary without Hangul."""
    place = tmp_path_factory.mktemp("unknown")
    sizes = dict(vocab_size=len(TOKENS), embedding_size=16, num_hidden_layers=1, num_attention_heads=2)
    torch.manual_seed(1)
    for role, network, width in (("generator", ElectraForMaskedLM, 16), ("discriminator", ElectraForPreTraining, 32)):
        config = ElectraConfig(**sizes, hidden_size=width, intermediate_size=2 * width, max_position_embeddings=128)
        network(config).save_pretrained(place / "pair" / role)
        (place / "pair" / role / "vocab.txt").write_text("".join(f"{token}\n" for token in TOKENS), encoding="utf-8")
        shutil.copytree(place / "pair" / role, place / "wrong" / role)
        other = [*SPECIAL_TOKENS, *"abcdefg", *(f"##{c}" for c in "abcdefg"), *"0123456789."]
        other += [f"[unused{number}]" for number in range(len(TOKENS) - len(other))]
        (place / "wrong" / role / "vocab.txt").write_text("".join(f"{token}\n" for token in other), encoding="utf-8")
    words = ["영화", "재미있다", "정말", "좋아요", "이", "책은", "별로", "그냥", "보다", "Cafe", "A"]
    texts = [" ".join(words[(n * k) % 11] for k in range(1, 5 + n % 7)) + f" {n % 10}." for n in range(300)]
    (place / "ko.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    rows = [f"{text}\t{n % 2}" for n, text in enumerate(texts[:80])]
    (place / "rows.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n", encoding="utf-8")
    return place


@pytest.fixture
def run(place, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_MODE", "disabled")

    def run(script: str, *arguments) -> str:
        code, out, err = run_here(arguments, place, monkeypatch, capfd, script)
        assert code == 0, out + err
        return out + err

    return run


def given(pair: str) -> list[str]:
    return [f"--model.generator={pair}/generator", f"--model.discriminator={pair}/discriminator"]


def test_a_pair_downloaded_by_hand_reads_korean(place, run):
    said = run("pretrain.py", *given("pair"), "--data.train_files=ko.txt", "--run.dir=good", *SHORT)
    assert said.count("do not say what happens to capitals and accents") == 1
    assert "unknown tokens: 0.00% of train, 0.00% of held_out" in said and MANY not in said
    stock = AutoTokenizer.from_pretrained(place / "good" / "discriminator")
    assert stock.tokenize("재미있다 Cafe") == ["재", "##미", "##있", "##다", "C", "##a", "##f", "##e"]
    assert "advice: 0" not in said and json.loads((place / "good/held_out/held_out.json").read_text())["unknown"] == 0


def test_pre_training_warns_and_its_story_repeats_it(place, run):
    said = run("pretrain.py", *given("wrong"), "--data.train_files=ko.txt", "--run.dir=bad", *SHORT)
    assert said.count(MANY) == 2 and "Hangul" in said, "of train and of held_out, in one line"
    assert "of the held-out tokens are [UNK]" in said
    assert "of the held-out tokens are [UNK]" in run("adaptation.py", "bad")
    (folder,) = (path.parent for path in (place / "prepared").glob("*/manifest.json") if "[unused0]" in vocab_of(path))
    again = run("pretrain.py", *given("wrong"), f"--data.prepared={folder}", "--run.dir=bad2", *SHORT[:-1], "--dry_run")
    assert again.count(MANY) == 2 and "found prepared data" not in again
    assert MANY in run("evaluate.py", "--run", "bad", "--held_out")


def vocab_of(manifest) -> str:
    return (manifest.parent / "tokenizer" / "vocab.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("prepare_data.py", ["--train_files", "ko.txt", "--max_length", "32", "--tokenizer", "{pair}/discriminator"]),
        ("detect.py", ["--discriminator", "{pair}/discriminator", "--file", "ko.txt", "--json"]),
        (
            "evaluate.py",
            ["--generator", "{pair}/generator", "--discriminator", "{pair}/discriminator", "--files", "ko.txt"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_scripts_tell_the_share_and_warn(run, script, arguments):
    arguments = [*arguments, "--max_length=32"] if script == "evaluate.py" else arguments
    good, wrong = (run(script, *(word.replace("{pair}", pair) for word in arguments)) for pair in ("pair", "wrong"))
    assert "unknown tokens: 0.00% of " in good and MANY not in good
    assert "warning: " in wrong and MANY in wrong and "unknown tokens: 0.00%" not in wrong


def test_fine_tuning_tells_it_of_each_model_and_its_table_too(place, run):
    models = ["--models", "pair/discriminator", "wrong/discriminator"]
    task = ["--task.kind=classification", "--task.train_file=rows.tsv", "--task.name=t", "--task.max_length=32"]
    how = [*task, "--train.epochs=1", "--run.seeds", "1", "--tracking.trackers", "--run.dir=tasks"]
    for more in (["--dry_run"], []):
        said = run("finetune.py", *models, *how, *more)
        assert (
            "t/pair" in said
            and said.count("unknown tokens: ") == 2
            and said.count("unknown tokens: 0.00% of train") == 1
        )
        assert said.count("warning: ") == 1 and MANY in said and "pair/discriminator: its files do not say" in said
    found = run_folder.read_json(place / "tasks" / "results.json")["tasks"]["t"]
    notes = [note for note in found["notes"] if "[UNK]" in note]
    assert [note.partition(":")[0] for note in notes] == ["wrong", "wrong"] and "of dev are" in notes[1]


def test_a_sentence_that_is_followed_tells_it_where_there_is_any(run):
    pair = ["--generator", "pair/generator", "--discriminator", "pair/discriminator"]
    assert "unknown tokens: 33.33% of the text" in run("follow_sentence.py", *pair, "영화 쀍")
    assert "unknown tokens" not in run("follow_sentence.py", *pair, "영화")


def test_a_new_vocabulary_tells_it_of_its_own_text(place, run):
    said = run("train_tokenizer.py", "--files", "ko.txt", "--vocab_size", "64", "--out", "new")
    assert "unknown tokens: " in said and "of the first texts" in said and MANY in said
