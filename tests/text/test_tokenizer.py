"""Tokenizers: trained ones repeat exactly, loaded ones are checked, and equal ones have equal fingerprints."""

import errno
import json
import subprocess
import sys
import unicodedata

import pytest
from transformers import AutoTokenizer, BertTokenizer, ElectraConfig

from electra_accel.errors import UserError
from electra_accel.text.tokenizer import (
    SPECIAL_TOKENS,
    fingerprint,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
    vocabulary_conflict,
)
from tests.helpers import shared_data

TEXTS = [f"영화가 {n}번 봐도 재밌다, 정말! Really good Café number {n % 7} 映画" for n in range(400)]


def trained(folder, vocab_size=300, **options):
    return train_tokenizer(lambda: (TEXTS[i : i + 50] for i in range(0, 400, 50)), vocab_size, folder, **options)


def test_a_trained_folder_loads_with_auto_tokenizer(tmp_path):
    tokenizer = trained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert [loaded.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert len(loaded) == len(tokenizer) <= 300
    text = "정말 재밌다 Really Café 映画 number"
    assert loaded.unk_token not in loaded.tokenize(text)
    assert loaded.tokenize("영화가 Café 映画") == [
        "영화가",
        "Café",
        "映",
        "画",
    ]  # accents, case, whole Hangul, single Chinese
    assert loaded.decode(loaded(text)["input_ids"], skip_special_tokens=True) == "정말 재밌다 Really Café 映 画 number"
    assert loaded("a")["input_ids"][0] == 2 and loaded("a")["input_ids"][-1] == 3
    assert "##," not in loaded.get_vocab() and "##映" not in loaded.get_vocab()


def test_lower_casing_is_an_option(tmp_path):
    assert trained(tmp_path, lowercase=True).tokenize("REALLY Café") == ["really", "café"]


def test_the_same_text_gives_the_same_vocabulary_whatever_the_threads(tmp_path):
    """In fresh processes: hash tables differ from process to process."""
    code = (
        "import sys; from pathlib import Path; from electra_accel.text.tokenizer import *\n"
        "from tests.text.test_tokenizer import TEXTS, trained\n"
        "print(fingerprint(trained(Path(sys.argv[1]), 250)))"
    )
    prints = set()
    for threads in ("1", "3"):
        command = [sys.executable, "-c", code, str(tmp_path / threads)]
        prints.add(
            subprocess.run(
                command, env={"RAYON_NUM_THREADS": threads}, capture_output=True, text=True, timeout=120
            ).stdout
        )
    assert len(prints) == 1 and len(prints.pop()) == 33


def test_rare_characters_become_unknown(tmp_path):
    tokenizer = train_tokenizer(lambda: [TEXTS * 200, ["쀍"]], 300, tmp_path)
    assert tokenizer.tokenize("쀍") == ["[UNK]"]


def test_fingerprints_follow_behaviour_not_the_folder(tmp_path):
    first, second = trained(tmp_path / "a"), load_tokenizer(tmp_path / "a")
    second.save_pretrained(tmp_path / "b")
    third = load_tokenizer(tmp_path / "b")
    third.backend_tokenizer.enable_truncation(8)
    assert fingerprint(first) == fingerprint(second) == fingerprint(third)
    vocab = (tmp_path / "a" / "vocab.txt").read_text().splitlines()
    cased = BertTokenizer(vocab={token: n for n, token in enumerate(vocab)}, do_lower_case=False, strip_accents=False)
    uncased = BertTokenizer(vocab={token: n for n, token in enumerate(vocab)}, do_lower_case=True, strip_accents=False)
    assert fingerprint(cased) == fingerprint(first) != fingerprint(uncased)
    third.add_tokens(["새낱말"])
    assert fingerprint(third) != fingerprint(first)


def test_bare_vocabularies():
    english = load_tokenizer(shared_data("vocab/bert_uncased_vocab.txt"))
    assert english.tokenize("Café HOUSES") == ["cafe", "houses"]
    korean = load_tokenizer(shared_data("vocab/koelectra_v1_vocab.txt"))
    assert "[UNK]" not in korean.tokenize("이 영화는 정말 재미있다 Apple")
    assert korean.tokenize("한국")[0].startswith("한")


def test_a_folder_with_nothing_but_a_vocabulary(tmp_path):
    trained(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "vocab.txt").write_bytes((tmp_path / "a" / "vocab.txt").read_bytes())
    assert fingerprint(load_tokenizer(tmp_path / "b")) == fingerprint(load_tokenizer(tmp_path / "a"))


def test_an_id_is_a_line_also_behind_a_token_that_is_a_strange_line_break(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "\u2028", "\x85", "word"]) + "\n", encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path / "vocab.txt")
    assert (len(tokenizer), tokenizer.convert_tokens_to_ids("word")) == (8, 7)


def test_a_vocabulary_whose_ids_have_gaps_is_refused(tmp_path):
    """Else random tokens and the embedding would miss the greatest ids: both are as many as there are tokens."""
    for folder in (tmp_path / "bare", tmp_path / "described"):
        folder.mkdir()
        (folder / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "a", "b", "a", "c"]) + "\n")
        if folder.name == "described":
            (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
        with pytest.raises(UserError, match="vocab.txt, line 8: 'a' .*line 6") as caught:
            load_tokenizer(folder)
        assert "\n" not in str(caught.value)
    trained(tmp_path / "trained")
    file = tmp_path / "trained" / "tokenizer.json"
    description = json.loads(file.read_text())
    description["model"]["vocab"]["재밌다"] = 4000
    file.write_text(json.dumps(description))
    with pytest.raises(UserError, match="the greatest id is 4000"):
        load_tokenizer(tmp_path / "trained")


def test_a_model_without_a_tokenizer_is_not_taken_for_one(tmp_path):
    """AutoTokenizer makes a vocabulary of five special tokens out of a config.json."""
    ElectraConfig(vocab_size=300).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="a model without a tokenizer"):
        load_tokenizer(tmp_path)


def test_vocabularies_conflict_where_an_id_means_two_tokens(tmp_path):
    first, longer = trained(tmp_path / "a"), load_tokenizer(tmp_path / "a")
    longer.add_tokens(["새낱말"])
    assert vocabulary_conflict(first, longer) is None
    lines = (tmp_path / "a" / "vocab.txt").read_text().splitlines()
    lines[20], lines[30] = lines[30], lines[20]
    (tmp_path / "swapped.txt").write_text("".join(f"{line}\n" for line in lines))
    assert vocabulary_conflict(first, load_tokenizer(tmp_path / "swapped.txt")) == (20, lines[30], lines[20])


def test_unusable_tokenizers_are_one_line(tmp_path):
    def message(path) -> str:
        with pytest.raises(UserError) as caught:
            load_tokenizer(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such tokenizer folder" in message(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "no tokenizer in this folder" in message(tmp_path / "empty")
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nword\n")
    assert "no [MASK] token" in message(tmp_path / "vocab.txt")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    assert "no [MASK] token" in message(tmp_path)  # the class would add one that no embedding knows
    (tmp_path / "other.txt").write_text("just\nwords\n")
    assert "'[UNK]'" in message(tmp_path / "other.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    assert "UTF-8" in message(tmp_path / "bytes.txt")
    trained(tmp_path / "a")
    config = json.loads((tmp_path / "a" / "tokenizer_config.json").read_text())
    (tmp_path / "a" / "tokenizer_config.json").write_text(json.dumps({**config, "mask_token": "[UNK]"}))
    assert "share an id" in message(tmp_path / "a")
    (tmp_path / "a" / "tokenizer.json").write_text("{")
    assert "no tokenizer in this folder" in message(tmp_path / "a")
    with pytest.raises(UserError, match="at least 64"):
        trained(tmp_path / "b", vocab_size=10)
    with pytest.raises(UserError, match="no usable text"):
        train_tokenizer(lambda: [[""]], 100, tmp_path / "c")


def test_decomposed_text_gives_the_vocabulary_of_composed_text(tmp_path):
    """macOS writes Hangul as single letters; what encodes text composes it, so the vocabulary has to be of composed text."""
    texts = ["영화가 정말 재미있습니다.", "café in the evening"] * 20
    decomposed = [unicodedata.normalize("NFD", text) for text in texts]
    expected = train_tokenizer(lambda: [texts], 300, tmp_path).get_vocab()
    assert decomposed != texts and train_tokenizer(lambda: [decomposed], 300, tmp_path).get_vocab() == expected


def test_words_that_no_tokenizer_cuts_are_left_out_of_a_vocabulary(tmp_path):
    """A million letters without a blank: the trainer would take time by the square of them, for tokens that are never used."""
    long = ["ab" * 500_000, f"{'가' * 101} 정말", f"http://{'x' * 150}/y", "\u200b".join("z" * 200)]
    said = []
    plain = train_tokenizer(lambda: [TEXTS, ["정말", "http:///y"]], 300, tmp_path / "a", log=said.append)
    assert said == []
    assert train_tokenizer(lambda: [TEXTS, long], 300, tmp_path / "b", log=said.append).get_vocab() == plain.get_vocab()
    assert len(said) == 1 and "4 words of more than 100 characters" in said[0]


def test_long_runs_of_short_words_stay(tmp_path):
    """Chinese characters and punctuation end a word: nothing is left out, and a word of 100 characters is none too long."""
    said = []
    texts = ["映画" * 300, "a.b-c" * 300, "가나다。" * 100, "q" * 100, *TEXTS]
    tokenizer = train_tokenizer(lambda: [texts * 3], 400, tmp_path, log=said.append)
    assert said == [] and {"映", "画", "q", "##q", "가", "##나"} <= set(tokenizer.get_vocab())


def test_a_full_disk_is_an_error_of_the_system(tmp_path):
    """The library knows no other than ``Exception``, which would be a traceback."""
    tokenizer = trained(tmp_path / "whole")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "tokenizer.json").symlink_to("/dev/full")
    with pytest.raises(OSError) as caught:
        save_tokenizer(tokenizer, tmp_path / "full")
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(tmp_path / "full")
