"""How much a vocabulary does not know of a text, and why: the likely cause is found among several."""

import json
import random

import pytest
from transformers import BertTokenizer

from electra_accel.data.prepare import Prepared, prepare
from electra_accel.errors import UserError
from electra_accel.text.corpus import Corpus
from electra_accel.text.tokenizer import SPECIAL_TOKENS
from electra_accel.text.unknown import SAMPLE, Unknown, cause_in, measure, told

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TOKENS = [
    *SPECIAL_TOKENS,
    *LETTERS,
    *(f"##{c}" for c in LETTERS),
    *"영화가재미있다",
    *(f"##{c}" for c in "영화가재미있다"),
]
ENGLISH = ["the cat sat on the mat", "a dog ran"]
KOREAN = ["영화가 재미있다", "재미가 있다"]


def tokenizer(tokens=TOKENS, **how) -> BertTokenizer:
    how = dict(do_lower_case=False) | how
    return BertTokenizer(vocab={token: number for number, token in enumerate(tokens)}, **how)


@pytest.mark.parametrize(
    ("texts", "how", "cause"),
    [
        (KOREAN, {"do_lower_case": True}, '"do_lower_case": true, "strip_accents": false'),
        (["The Cat Sat", "A Dog"], {}, '"do_lower_case": true'),
        (["кот сидит на ковре", "собака"], {}, "0 Cyrillic letters"),
        (["한국어 어휘 쀍뷁똠방각하", *KOREAN], {}, "7 Hangul letters"),
        (["영화가 재미있다 쀍 재쀍"] * 20, {}, "lacks 쀍 (20), ##쀍 (20)"),
        (["a" * 150, "the " + "b" * 3000], {}, "more than 100 characters"),
        (["the ` cat ` sat ` ¦"] * 20, {}, "lacks ` (60), ¦ (20)"),  # no letters: not another language
    ],
)
def test_the_likely_cause(texts, how, cause):
    assert cause in cause_in(texts, tokenizer(**how))


def test_a_sample_is_enough_for_the_cause():
    assert "Cyrillic" in cause_in(iter(lambda: "кот " * SAMPLE, None), tokenizer())  # without end


def test_no_cause_is_named_where_the_sample_shows_none():
    """The unknown words may stand further on."""
    assert cause_in(ENGLISH, tokenizer()) == "" and cause_in([], tokenizer()) == ""


def test_the_share_is_of_the_tokens_of_the_text():
    found = tokenizer()
    ids = found([*ENGLISH, "кот"], padding=False)["input_ids"]
    known = sum(map(len, ids)) - 2 * 3 - 1
    assert measure(ids, found, [])[:2] == (1, known + 1)
    assert measure([], found, []).share == 0


def test_a_warning_stands_above_two_percent():
    (line,) = told({"train": Unknown(2, 100), "dev": Unknown(0, 0)})
    assert line == "unknown tokens: 2.00% of train, 0.00% of dev"
    shares, warning = told({"train": Unknown(21, 1000, "a cause"), "dev": Unknown(1, 1000)})
    assert shares.endswith("2.10% of train, 0.10% of dev")
    assert warning.startswith("warning: 2.1% of the tokens of train are [UNK]") and warning.endswith("a cause")
    assert "another language" in told({"train": Unknown(3, 100)})[1]


def prepared(place, lines, **how):
    (place / "a.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    said = []
    settings = dict(max_length=32, eval_fraction=0.2, join_lines=False, train_vocab_size=None, log=said.append)
    folder = prepare(
        place / "prepared", Corpus(files=(str(place / "a.txt"),)), {}, tokenizer=tokenizer(**how), **settings
    )
    return folder, said


def test_prepared_text_says_it_when_it_is_made_and_when_it_is_found(tmp_path):
    """Also with the documents that were left out because nothing in them is known."""
    lines = [f"a {text.title()} {'abc'[number % 3] * number}" for number, text in enumerate(100 * ENGLISH)]
    lines += [f"A {'쀍' * number}" for number in range(1, 51)]
    (folder, made), (_, found) = prepared(tmp_path, lines), prepared(tmp_path, lines)
    assert made[-2:] == found[-2:] and made[-1].startswith("warning: ") and '"do_lower_case": true' in made[-1]
    train = Prepared(folder).manifest["splits"]["train"]
    skipped = train["skipped"]["only unknown tokens"]
    assert skipped > 20 and train["unknown"]["unknown"] == train["unknown_tokens"] + 2 * skipped
    assert train["unknown"]["tokens"] == train["tokens"] - 2 * train["examples"] + 2 * skipped


def test_prepared_text_whose_hangul_was_taken_apart_is_prepared_again(tmp_path):
    """A tokenizer.json that an earlier version used as the library read it: the ids mean something else now."""
    folder, _ = prepared(tmp_path, [f"a {text} {'b' * n}" for n, text in enumerate(50 * KOREAN)], do_lower_case=True)
    with pytest.raises(UserError, match=f"{folder}: .*prepare again"):
        Prepared(folder)


def test_prepared_text_of_an_earlier_version_says_what_it_knows(tmp_path):
    folder, made = prepared(tmp_path, 50 * KOREAN)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["digest"]
    for split in manifest["splits"].values():
        del split["unknown"]
        split["unknown_tokens"] = split["tokens"] - 2 * split["examples"]
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    found = prepared(tmp_path, 50 * KOREAN)[1]
    assert "0.00% of train" in made[-1] and "100.00% of train" in found[-2] and found[-1].startswith("warning: ")


def test_a_text_of_unknown_words_alone_is_refused_with_the_cause(tmp_path):
    with pytest.raises(UserError, match="0 Cyrillic letters"):
        prepared(tmp_path, ["кот " * number for number in range(1, 51)])


def test_the_cause_is_found_wherever_in_the_text_the_unknown_words_are(tmp_path):
    chance = random.Random(1)
    known = [" ".join(chance.choices(ENGLISH + KOREAN, k=8)) for _ in range(3000)]
    _, said = prepared(tmp_path, [*known, *("кот сидит на ковре the" for _ in range(3000))])
    assert said[-1].startswith("warning: ") and "Cyrillic" in said[-1]
