"""Prepared folders: every text whole and once, held-out texts apart, one maker among many callers, broken ones refused."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from electra_accel.data.prepare import Prepared, prepare
from electra_accel.errors import UserError
from electra_accel.text.corpus import Corpus
from electra_accel.text.tokenizer import fingerprint, load_tokenizer, train_tokenizer
from tests.helpers import run_script, shared_data
from tests.text.texts import TEXTS, text


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("vocabulary")
    train_tokenizer(lambda: [TEXTS], 400, folder)
    return str(folder)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    file = tmp_path_factory.mktemp("corpus") / "texts.jsonl"
    lines = [text(n % 900, 3 + n % 90) for n in range(1000)]  # the last hundred repeat the first
    lines[900:] = lines[:100]
    file.write_text("".join(json.dumps({"text": line}) + "\n" for line in [*lines, "", "☃ ☃"]))
    return Corpus(files=(str(file),))


def run(root: Path, train: Corpus, tokenizer: str | None, held_out=None, **changed) -> Prepared:
    settings = dict(
        train_vocab_size=300, max_length=32, eval_fraction=0.1, join_lines=False, processes=1, log=lambda line: None
    )
    loaded = load_tokenizer(tokenizer) if tokenizer else None
    return Prepared(prepare(root, train, held_out or {}, tokenizer=loaded, **{**settings, **changed}))


def examples(prepared: Prepared, store) -> list[str]:
    tokens, lengths = store.read(np.arange(len(store)))
    return [
        prepared.tokenizer.decode(ids, skip_special_tokens=True) for ids in np.split(tokens, np.cumsum(lengths)[:-1])
    ]


def test_every_text_is_kept_whole_and_once(tmp_path, corpus, vocabulary):
    prepared = run(tmp_path, corpus, vocabulary)
    lines = [json.loads(line)["text"] for line in Path(corpus.files[0]).read_text().splitlines()][:1000]
    held = prepared.held_out["held_out"]
    read = " ".join(examples(prepared, prepared.train)).split() + " ".join(examples(prepared, held)).split()
    assert sorted(read) == sorted(" ".join(lines).split())
    for store in (prepared.train, held):
        tokens, lengths = store.read(np.arange(len(store)))
        ends = np.cumsum(lengths)
        assert (tokens[ends - lengths] == prepared.tokenizer.cls_token_id).all()
        assert (tokens[ends - 1] == prepared.tokenizer.sep_token_id).all()
        assert 3 <= lengths.min() and lengths.max() <= 32
        assert np.isin(tokens, [prepared.tokenizer.cls_token_id, prepared.tokenizer.sep_token_id]).sum() == 2 * len(
            store
        )


def test_manifest_counts(tmp_path, corpus, vocabulary):
    prepared = run(tmp_path, corpus, vocabulary)
    train, held = prepared.manifest["splits"]["train"], prepared.manifest["splits"]["held_out"]
    assert train["documents"] + held["documents"] == 1000
    assert train["examples"] == len(prepared.train) and train["tokens"] == len(prepared.train.tokens)
    assert sum(n * count for n, count in enumerate(train["lengths"])) == train["tokens"]
    assert {**train["skipped"], **held["skipped"]} == {"no text": 1, "only unknown tokens": 1}
    assert train["sources"] == {corpus.files[0]: train["documents"]}
    assert 0.06 < held["documents"] / 1000 < 0.14


def test_duplicates_stay_on_one_side(tmp_path, corpus, vocabulary):
    prepared = run(tmp_path, corpus, vocabulary, max_length=200, eval_fraction=0.5)
    train, held = examples(prepared, prepared.train), examples(prepared, prepared.held_out["held_out"])
    assert len(set(train)) < len(train) and not set(train) & set(held)


def test_given_held_out_files_lose_what_train_has(tmp_path, vocabulary):
    for name, numbers in (("train", range(50)), ("a", range(40, 60)), ("b", range(48, 70))):
        (tmp_path / f"{name}.txt").write_text("".join(f"  {text(n, 9).title()}\n" for n in numbers))
    files = {name: Corpus(files=(str(tmp_path / f"{name}.txt"),)) for name in ("a", "b")}
    prepared = run(tmp_path / "root", Corpus(files=(str(tmp_path / "train.txt"),)), vocabulary, files, eval_fraction=0)
    assert len(prepared.train) == 50
    splits = prepared.manifest["splits"]
    assert [splits[name]["documents"] for name in ("a", "b")] == [10, 20]
    assert [splits[name]["skipped"]["also in train"] for name in ("a", "b")] == [10, 2]
    everything = {"a": Corpus(files=(str(tmp_path / "train.txt"),))}
    with pytest.raises(UserError, match="held-out set 'a' .50 also in train"):
        run(tmp_path / "root", Corpus(files=(str(tmp_path / "train.txt"),)), vocabulary, everything, eval_fraction=0)


def test_a_general_set_and_replay_beside_what_is_split_off(tmp_path, vocabulary):
    for name, numbers in (("train", range(300)), ("general", range(250, 400)), ("replay", range(200, 600))):
        (tmp_path / f"{name}.txt").write_text("".join(f"{text(n, 5 + n % 20)}\n" for n in numbers))
    corpora = {name: Corpus(files=(str(tmp_path / f"{name}.txt"),)) for name in ("train", "general", "replay")}
    train, general = corpora["train"], {"general": corpora["general"]}
    prepared = run(tmp_path / "root", train, vocabulary, general, replay=corpora["replay"])
    assert list(prepared.held_out) == ["held_out", "general"]
    stores = {"train": prepared.train, "replay": prepared.replay, **prepared.held_out}
    texts = {name: set(examples(prepared, store)) for name, store in stores.items()}
    assert texts["train"] | texts["held_out"] == {text(n, 5 + n % 20) for n in range(300)}
    assert not (texts["train"] | texts["replay"]) & (texts["held_out"] | texts["general"])
    splits = prepared.manifest["splits"]
    assert texts["general"] >= {text(n, 5 + n % 20) for n in range(300, 400)}
    assert splits["general"]["documents"] + splits["general"]["skipped"]["also in train"] == 150
    held = texts["held_out"] | texts["general"]
    assert texts["replay"] == {text(n, 5 + n % 20) for n in range(200, 600)} - held
    assert splits["replay"]["documents"] + splits["replay"]["skipped"]["also held out"] == 400

    without = run(tmp_path / "root", train, vocabulary)  # the domain's own splits are as without the others
    assert without.replay is None
    for name in ("train", "held_out"):
        assert without.manifest["splits"][name] == splits[name]
    assert prepared.fingerprint != without.fingerprint
    (tmp_path / "held.txt").write_text(f"{text(399, 5 + 399 % 20)}\n")
    with pytest.raises(UserError, match="1 also held out.*data.replay_files"):
        run(tmp_path / "root", train, vocabulary, general, replay=Corpus(files=(str(tmp_path / "held.txt"),)))


def test_settings_name_replay_only_where_there_is_some(tmp_path, corpus, vocabulary):
    """So that what an earlier version prepared is found again."""
    plain = run(tmp_path, corpus, vocabulary).manifest["settings"]
    assert sorted(plain) == ["eval_fraction", "format", "held_out", "join_lines", "max_length", "tokenizer", "train"]
    (tmp_path / "more.txt").write_text("more to train on\n")
    with_replay = run(tmp_path, corpus, vocabulary, replay=Corpus(files=(str(tmp_path / "more.txt"),))).manifest
    assert with_replay["splits"]["replay"]["examples"] == 1
    assert with_replay["settings"].keys() - plain.keys() == {"replay"}


def test_a_small_corpus_still_holds_one_out(tmp_path, vocabulary):
    (tmp_path / "a.txt").write_text("".join(f"{text(n, 9)}\n" for n in range(5)))
    corpus = Corpus(files=(str(tmp_path / "a.txt"),))
    prepared = run(tmp_path, corpus, vocabulary, eval_fraction=1e-6)
    assert (len(prepared.train), len(prepared.held_out["held_out"])) == (4, 1)
    assert run(tmp_path, corpus, vocabulary, eval_fraction=0).held_out == {}
    (tmp_path / "a.txt").write_text("just one text\n")
    with pytest.raises(UserError, match="all of it is held out"):
        run(tmp_path, corpus, vocabulary)


def test_joined_lines_are_whole_lines_of_one_document(tmp_path, vocabulary):
    lines = [text(n, 3 + n % 4) for n in range(30)]
    (tmp_path / "a.txt").write_text("\n".join(lines[:20]) + "\n\n" + "\n".join(lines[20:]) + "\n" + text(99, 50))
    prepared = run(
        tmp_path, Corpus(files=(str(tmp_path / "a.txt"),)), vocabulary, max_length=40, eval_fraction=0, join_lines=True
    )
    joined = examples(prepared, prepared.train)
    assert " ".join(joined) == " ".join([*lines, text(99, 50)])
    assert prepared.manifest["splits"]["train"]["documents"] == 2
    ends = {line.split()[-1] for line in lines}
    assert all(example.split()[-1] in ends for example in joined[:-2])  # only the long last line is cut
    assert any(example.endswith(lines[19]) for example in joined)  # nothing is joined over the blank line
    assert len(joined) < 15


def test_processes_do_not_change_the_result(tmp_path, corpus, vocabulary):
    one = run(tmp_path / "one", corpus, vocabulary)
    two = run(tmp_path / "two", corpus, vocabulary, processes=2)
    assert one.fingerprint == two.fingerprint and one.manifest == two.manifest


def test_cached_by_content_and_settings(tmp_path, corpus, vocabulary):
    first = run(tmp_path, corpus, vocabulary)
    written = (first.folder / "manifest.json").stat().st_mtime_ns
    copy = shutil.copytree(vocabulary, tmp_path / "elsewhere")
    moved = Corpus(files=(shutil.copy(corpus.files[0], tmp_path / "other.jsonl"),))
    begin = time.monotonic()
    again = run(tmp_path, corpus, str(copy))
    assert time.monotonic() - begin < 2
    assert again.folder == first.folder and (again.folder / "manifest.json").stat().st_mtime_ns == written
    assert run(tmp_path, moved, vocabulary).fingerprint == first.fingerprint
    assert run(tmp_path, corpus, vocabulary, max_length=16).folder != first.folder
    with open(moved.files[0], "a") as file:
        file.write('{"text": "one more"}\n')
    assert run(tmp_path, moved, vocabulary).fingerprint != first.fingerprint


def test_a_trained_vocabulary_comes_with_the_folder(tmp_path, corpus):
    prepared = run(tmp_path, corpus, None)
    assert len(prepared.tokenizer) <= 300
    assert run(tmp_path, corpus, str(prepared.folder / "tokenizer")).fingerprint == prepared.fingerprint


def test_folders_that_do_not_fit_are_refused(tmp_path, corpus, vocabulary):
    folder = run(tmp_path, corpus, vocabulary).folder
    other = load_tokenizer(vocabulary)
    other.add_tokens(["newword"])
    with pytest.raises(UserError, match="another tokenizer"):
        Prepared(folder, other)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "digest": None, "format": 0}))
    with pytest.raises(UserError, match="format 0"):
        Prepared(folder)
    # As an earlier version wrote it.
    earlier = {name: value for name, value in manifest.items() if name not in ("files", "digest")}
    (folder / "manifest.json").write_text(json.dumps(earlier))
    assert Prepared(folder).fingerprint == manifest["fingerprint"]
    tokens = (folder / "train" / "tokens.bin").read_bytes()
    for content, said in ((tokens[:100], "not as long as its manifest says"), (None, "damaged")):
        (folder / "train" / "tokens.bin").unlink()
        if content:
            (folder / "train" / "tokens.bin").write_bytes(content)
        with pytest.raises(UserError, match=said):
            Prepared(folder)
    (folder / "train" / "tokens.bin").write_bytes(tokens)
    (folder / "train" / "blocks.bin").write_bytes(b"")
    with pytest.raises(UserError, match="do not belong together"):
        Prepared(folder)
    with pytest.raises(UserError, match="not a folder of prepared data"):
        Prepared(tmp_path / "none")


def test_no_usable_text(tmp_path, vocabulary):
    (tmp_path / "a.txt").write_text(" \n\n☃\n")
    with pytest.raises(UserError, match="no usable text .* only unknown tokens"):
        run(tmp_path / "root", Corpus(files=(str(tmp_path / "a.txt"),)), vocabulary, eval_fraction=0)
    assert not list((tmp_path / "root").glob("*/")), "a failed preparation leaves no folder"


def test_a_corpus_larger_than_the_disk_is_noticed_at_once(tmp_path, vocabulary):
    (tmp_path / "a.txt").write_text("text\n")
    os.truncate(tmp_path / "a.txt", 4 * shutil.disk_usage(tmp_path).free)  # sparse: takes no space itself
    begin = time.monotonic()
    with pytest.raises(UserError, match="needs about .* GB, and .* GB are free"):
        run(tmp_path / "root", Corpus(files=(str(tmp_path / "a.txt"),)), vocabulary)
    assert time.monotonic() - begin < 5


def test_a_folder_that_cannot_be_written(tmp_path, corpus, vocabulary):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make this folder"):
        run(tmp_path / "file" / "root", corpus, vocabulary)


def test_the_folder_is_hardly_larger_than_its_tokens(tmp_path):
    lines = []
    corpus = Corpus(files=(str(shared_data("tasks/nsmc_sentiment_train.tsv")),))
    prepared = run(tmp_path, corpus, str(shared_data("vocab/koelectra_v1_vocab.txt")), max_length=128, log=lines.append)
    size = sum(path.stat().st_size for path in prepared.folder.rglob("*") if "tokenizer" not in str(path))
    tokens = len(prepared.train.tokens) + len(prepared.held_out["held_out"].tokens)
    assert tokens > 300_000 and size < 1.1 * 2 * tokens
    assert [path.name for path in tmp_path.iterdir()] == [prepared.folder.name]
    assert prepared.manifest["splits"]["train"]["unknown_tokens"] < 0.01 * tokens
    run(tmp_path, corpus, str(shared_data("vocab/koelectra_v1_vocab.txt")), max_length=128, log=lines.append)
    assert "found prepared data" in lines[-2]
    assert lines[-1].startswith("unknown tokens: 0.0") and lines.count(lines[-1]) == 2, "both times"


def test_a_fingerprint_survives_saving(tmp_path, corpus, vocabulary):
    for source in (
        vocabulary,
        str(shared_data("vocab/bert_uncased_vocab.txt")),
        str(shared_data("vocab/koelectra_v1_vocab.txt")),
    ):
        tokenizer = load_tokenizer(source)
        tokenizer.save_pretrained(tmp_path / "saved")
        assert fingerprint(load_tokenizer(tmp_path / "saved")) == fingerprint(tokenizer)


def test_the_script_prepares_and_says_what_is_next(tmp_path, corpus, vocabulary):
    arguments = [
        "--train_files",
        corpus.files[0],
        "--tokenizer",
        vocabulary,
        "--max_length",
        "32",
        "--out",
        tmp_path / "out",
    ]
    done = run_script("scripts/prepare_data.py", *arguments)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "out").iterdir()
    assert "skipped 0." in done.stdout and f"--data.prepared {folder}" in done.stdout.splitlines()[-1]
    assert "--model.size tiny" in done.stdout.splitlines()[-1]
    assert len(Prepared(folder).train) > 900
    for _ in range(2):
        done = run_script("scripts/prepare_data.py", *arguments, "--learn_tokens", "5")
        assert re.search(r"vocabulary: \d+ tokens added, .* instead of ", done.stdout), "also where it is found"
        assert "--model.generator GENERATOR" in done.stdout.splitlines()[-1] and "model.size" not in done.stdout
    assert "found prepared data" in done.stdout


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--train_files", "none.txt", "--train_vocab_size", "100"], "none.txt: no such file"),
        (["--train_files", "a.txt"], "either --tokenizer or --train_vocab_size"),
        (["--train_vocab_size", "many"], "invalid int value: 'many'"),
        (["--train_file", "a.txt"], "unrecognized arguments: --train_file"),
    ],
)
def test_the_script_refuses_in_one_line(tmp_path, arguments, said):
    done = run_script("scripts/prepare_data.py", *arguments, "--out", tmp_path / "out")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and said in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_the_tokenizer_script(tmp_path, corpus):
    arguments = ["--files", corpus.files[0], "--vocab_size", "200", "--out", tmp_path / "tokenizer"]
    done = run_script("scripts/train_tokenizer.py", *arguments)
    assert done.returncode == 0 and "tokens in" in done.stdout, done.stderr
    assert len(load_tokenizer(tmp_path / "tokenizer")) <= 200
    again = run_script("scripts/train_tokenizer.py", *arguments)
    assert again.returncode == 2 and "exists" in again.stderr
