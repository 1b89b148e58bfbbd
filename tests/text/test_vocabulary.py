"""Longer vocabularies: new tokens at the end, everything else as before, and mistakes in a file of tokens named by line."""

import json

import numpy as np
import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer, BertTokenizer

from electra_accel.data.prepare import Prepared, prepare
from electra_accel.errors import UserError
from electra_accel.text.corpus import Corpus
from electra_accel.text.tokenizer import SPECIAL_TOKENS, fingerprint, load_tokenizer, save_tokenizer, train_tokenizer
from electra_accel.text.vocabulary import adapt, extend, read_tokens

TEXTS = [f"영화가 {n}번 봐도 재밌다, 정말! Really good number {n % 7}" for n in range(400)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> BertTokenizer:
    """Loaded from a folder: single characters, at the start of a word and inside, and a few longer tokens."""
    characters = sorted(set("".join(TEXTS) + "습니당있었") - set(" "))
    tokens = [*SPECIAL_TOKENS, *characters, *(f"##{c}" for c in characters), "영화", "number", "##니당", "재밌"]
    folder = tmp_path_factory.mktemp("vocabulary")
    save_tokenizer(BertTokenizer(vocab={t: n for n, t in enumerate(tokens)}, do_lower_case=False), folder)
    return load_tokenizer(folder)


def test_new_tokens_are_pieces_of_words_and_the_rest_stays(tokenizer):
    new = ["재밌습", "##습니당", "##lly"]
    longer = extend(tokenizer, new)
    assert longer.convert_tokens_to_ids(new) == list(range(len(tokenizer), len(tokenizer) + 3))
    assert longer.tokenize("재밌습니당 안재밌습니당") == ["재밌습", "##니당", "[UNK]"]  # 안 is no token
    assert longer.tokenize("있습니당 really") == ["있", "##습니당", "r", "##e", "##a", "##lly"]
    assert longer.get_added_vocab() == tokenizer.get_added_vocab()
    untouched = "number 7, [MASK] 영화가"
    assert longer(untouched).input_ids == tokenizer(untouched).input_ids
    assert "재밌습" not in tokenizer.get_vocab() and fingerprint(longer) != fingerprint(tokenizer)


def test_saved_and_loaded_it_behaves_the_same(tokenizer, tmp_path):
    """Also with added tokens beyond the vocabulary, which loaders renumber."""
    base, size = load_tokenizer(tokenizer.name_or_path), len(tokenizer)
    base.add_tokens(["새낱말", AddedToken("[E1]", special=True)])
    longer = extend(base, ["재밌습", "##습니당"])
    save_tokenizer(longer, tmp_path)
    text = "재밌습니당 새낱말 [E1] [MASK] 있습니당, really Good"
    for loaded in (load_tokenizer(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert fingerprint(loaded) == fingerprint(longer) and loaded.get_vocab() == longer.get_vocab()
        assert loaded(text).input_ids == longer(text).input_ids
        assert loaded.convert_tokens_to_ids(["새낱말", "[E1]", "재밌습", "##습니당"]) == [
            size,
            size + 1,
            size + 2,
            size + 3,
        ]
    assert (tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines() == longer.convert_ids_to_tokens(
        range(size + 4)
    )


def test_tokens_that_cannot_be_added_are_named_by_line(tokenizer):
    with pytest.raises(UserError) as caught:
        extend(tokenizer, ["정말로", "[MASK]", "두 낱말", "##;", "##", "좋" * 101, "café"])
    head, *lines = str(caught.value).replace("change ", "change; ").split("; ")
    assert head == "tokenizer.add_tokens: delete or change"
    assert lines == [
        "line 2: '[MASK]' is in the vocabulary already",
        "line 3: '두 낱말' could never be used, the tokenizer reads '두 낱말' as '두' '낱말'",
        "line 4: '##;' could never be used, the tokenizer reads 'a;' as 'a' ';'",
        "line 5: '##' could never be used, it has no characters",
        f"line 6: '{'좋' * 101}' could never be used, words of more than 100 characters become [UNK]",
    ]
    with pytest.raises(UserError, match="and 2 more$"):
        extend(tokenizer, [f"a {n}" for n in range(7)])


def test_capitals_under_lower_casing_could_never_be_used(tmp_path):
    uncased = train_tokenizer(lambda: [TEXTS], 120, tmp_path, lowercase=True)
    with pytest.raises(UserError, match="line 2: 'Goodness' .*'goodness'$"):
        extend(uncased, ["badness", "Goodness"])


def test_files_of_tokens(tmp_path):
    file = tmp_path / "tokens.txt"
    file.write_bytes("\ufeff재밌습\r\n##습니당\r\n".encode())
    assert read_tokens(file) == ["재밌습", "##습니당"]
    file.write_text("재밌습 \n##습니당\t\u3000\n \n\n")
    assert read_tokens(file) == ["재밌습", "##습니당"]

    def message(content: bytes) -> str:
        file.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_tokens(file)
        assert "tokens.txt" in str(caught.value) and "tokenizer.add_tokens" in str(caught.value)
        return str(caught.value)

    assert "line 3: 'a' stands in line 1 already" in message(b"a\nb\na\n")
    assert "line 3: 'a' stands in line 1 already" in message(b"a\nb\na \n")
    assert "line 2 is empty" in message(b"a\n\nb\n") and "line 2 is empty" in message(b"a\n  \nb\n")
    assert "is empty" in message(b"\n\n") and "is empty" in message(b"")
    assert "not UTF-8" in message("재".encode("cp949"))
    with pytest.raises(UserError, match="none.txt: no such file"):
        read_tokens(tmp_path / "none.txt")


def test_the_characters_that_make_words_unknown_are_named(tokenizer):
    said = []
    texts = ["영화☃ 재밌쀍☃☃ 재밌쀍 ☃"] * 1000 + ["영화"]
    adapt(tokenizer, ["영화가"], None, [texts], said.append)
    assert (
        said[-1]
        == "[UNK] mostly for want of ##☃ (2,000), ##쀍 (2,000), ☃ (1,000); a file for tokenizer.add_tokens can name them"
    )
    extended, _ = adapt(tokenizer, ["##☃", "##쀍", "☃"], None, [texts], said.append)
    assert "for want of" not in said[-1] and "[UNK]" not in extended.tokenize(" ".join(texts))
    many = [" ".join(chr(ord("一") + n) for n in range(20))]
    adapt(tokenizer, [], 5, [many], said.append)
    assert said[-1].count("(1)") == 10


def run(root, file, tokenizer, **options) -> Prepared:
    settings = dict(max_length=32, eval_fraction=0.2, join_lines=False, processes=1, train_vocab_size=None)
    return Prepared(prepare(root, Corpus(files=(str(file),)), {}, tokenizer=tokenizer, **settings, **options))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    file = tmp_path_factory.mktemp("corpus") / "texts.txt"
    file.write_text("".join(f"{text}\n" for text in TEXTS))
    return file


def test_prepared_text_uses_the_longer_vocabulary(tmp_path, corpus, tokenizer, capsys):
    plain = run(tmp_path, corpus, tokenizer)
    both = run(tmp_path, corpus, tokenizer, add_tokens=("재밌습",), learn_tokens=5)
    assert plain.manifest["vocabulary"] is None and plain.folder != both.folder
    facts = both.manifest["vocabulary"]
    assert (facts["base"], facts["added"]) == (fingerprint(tokenizer), 6)
    assert both.manifest["vocab_size"] == len(both.tokenizer) == len(tokenizer) + 6
    assert both.tokenizer.convert_ids_to_tokens(len(tokenizer)) == "재밌습"
    # nothing is cut off here, so the tokens of the training split are those of its whole words
    for prepared, tokens in ((plain, facts["tokens_before"]), (both, facts["tokens_after"])):
        assert len(prepared.train.tokens) - 2 * len(prepared.train) == tokens
    assert facts["tokens_after"] < 0.9 * facts["tokens_before"] and facts["unknown_after"] == facts["unknown_before"]
    line = f"{facts['tokens_after']:,} tokens of training text instead of {facts['tokens_before']:,} (-"
    assert "vocabulary: 6 tokens added, " + line in capsys.readouterr().out
    assert fingerprint(load_tokenizer(both.folder / "tokenizer")) == both.manifest["tokenizer"]


def test_nothing_is_learnt_from_held_out_text(tmp_path, tokenizer):
    """Each document repeats a word of its own: in train it becomes one token, in held-out text it stays in pieces."""
    file = tmp_path / "own_words.txt"
    file.write_text("".join(f"{f'{n * 7919 % 10000:04}' * 2} " * 3 + "\n" for n in range(100)))
    prepared = run(tmp_path, file, tokenizer, learn_tokens=1000)
    train, held_out = prepared.train, prepared.held_out["held_out"]
    assert len(train.tokens) == 5 * len(train) and len(held_out) > 8  # [CLS], three words, [SEP]
    assert held_out.lengths(np.arange(len(held_out))).min() > 5


def test_the_folder_depends_on_the_tokens_only_where_there_are_some(tmp_path, corpus, tokenizer):
    settings = json.loads((run(tmp_path, corpus, tokenizer).folder / "manifest.json").read_text())["settings"]
    assert not {"add_tokens", "learn_tokens"} & set(settings)
    folders = {
        run(tmp_path, corpus, tokenizer, **options).folder
        for options in ({}, {"learn_tokens": 2}, {"learn_tokens": 3}, {"add_tokens": ("재밌습",)})
    }
    assert len(folders) == 4


def test_a_vocabulary_that_is_trained_is_not_extended(tmp_path, corpus):
    with pytest.raises(UserError, match="tokenizer.learn_tokens extend a given vocabulary"):
        prepare(
            tmp_path,
            Corpus(files=(str(corpus),)),
            {},
            tokenizer=None,
            train_vocab_size=100,
            learn_tokens=5,
            max_length=32,
            eval_fraction=0.1,
            join_lines=False,
        )
