"""Capitals and accents: as a tokenizer's files say, else as its vocabulary shows; contradictions are told."""

import json

import pytest
from transformers import AutoTokenizer, BertTokenizer, ElectraConfig

from electra_accel.errors import UserError
from electra_accel.text.letters import Letters, settle
from electra_accel.text.tokenizer import SPECIAL_TOKENS, fingerprint, load_tokenizer
from tests.helpers import shared_data

SMALL = [*"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
CASED = [*SMALL, *"ABC"]
KOREAN = [*CASED, *"영화재미", "##화", "##가", "##미", "영화"]
GERMAN = [*SMALL, "ü", "##ü"]
TEXT = "영화 영화가 ABC abc"
WHOLE = ["영화", "영화", "##가", "[UNK]", "a", "##b", "##c"]  # no ##B
LOWERED = ["영화", "영화", "##가", "a", "##b", "##c", "a", "##b", "##c"]


def folder_of(place, vocabulary, *, model=True, settings=None, description=None):
    """A folder as people put it together by hand; ``description``: what a tokenizer.json says of letters."""
    place.mkdir()
    tokens = [*SPECIAL_TOKENS, *vocabulary]
    if model:
        ElectraConfig(vocab_size=len(tokens)).save_pretrained(place)
    if settings is not None:
        (place / "tokenizer_config.json").write_text(json.dumps(settings))
    if description is None:
        (place / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    else:
        made = BertTokenizer(vocab={token: number for number, token in enumerate(tokens)}, **description)
        made.backend_tokenizer.save(str(place / "tokenizer.json"))
    return place


def told_by(place) -> tuple[list[str], list[str]]:
    """Tokens of TEXT and the lines that were said; both again from what is saved, by the library alone and in silence."""
    lines, again = [], []
    tokenizer = load_tokenizer(place, log=lines.append)
    tokenizer.save_pretrained(place / "saved")
    assert fingerprint(load_tokenizer(place / "saved", log=again.append)) == fingerprint(tokenizer)
    assert AutoTokenizer.from_pretrained(place / "saved").tokenize(TEXT) == tokenizer.tokenize(TEXT)
    assert all(str(place) in line for line in lines) and not [line for line in again if "do not say" in line]
    return tokenizer.tokenize(TEXT), lines


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"settings": {}},
        {"settings": {"model_max_length": 512, "strip_accents": None}},
        {"settings": {"do_lower_case": None}},
        {"settings": {"do_lower_case": None}, "model": False},
        {"model": False},
        {"settings": {"tokenizer_class": "ElectraTokenizerFast"}, "model": False},
    ],
    ids=str,
)
def test_where_nothing_is_said_the_vocabulary_shows_it(tmp_path, files):
    tokens, (line,) = told_by(folder_of(tmp_path / "a", KOREAN, **files))
    assert tokens == WHOLE and "do not say" in line and not line.startswith("warning")


def test_a_tokenizer_json_says_what_the_settings_do_not(tmp_path):
    """The library builds BertTokenizer from the settings alone, and its default is to make capitals small."""
    cased = dict(do_lower_case=False)
    for name, settings in (("none", None), ("silent", {}), ("class", {"tokenizer_class": "BertTokenizer"})):
        assert told_by(folder_of(tmp_path / name, KOREAN, settings=settings, description=cased)) == (WHOLE, [])
    small = dict(do_lower_case=True, strip_accents=False)
    tokens, lines = told_by(folder_of(tmp_path / "small", KOREAN, settings={"do_lower_case": True}, description=small))
    assert tokens == LOWERED and len(lines) == 1, "capitals are told of, accents were kept as it is said"


@pytest.mark.parametrize(
    ("settings", "tokens", "said"),
    [
        ({"do_lower_case": False}, WHOLE, []),
        ({"do_lower_case": True}, LOWERED, ["Hangul", "capitals become small letters"]),
        ({"do_lower_case": True, "strip_accents": False}, LOWERED, ["capitals become small letters"]),
        ({"do_lower_case": False, "strip_accents": True}, WHOLE, ["Hangul"]),
        ({"strip_accents": True}, WHOLE, ["do not say", "Hangul"]),
    ],
    ids=str,
)
def test_what_is_said_is_done_but_hangul_stays_whole(tmp_path, settings, tokens, said):
    found, lines = told_by(folder_of(tmp_path / "a", KOREAN, settings=settings))
    assert found == tokens and len(lines) == len(said)
    for line, words in zip(lines, said, strict=True):
        assert words in line and line.startswith("warning: ") == (words != "do not say")


def test_a_general_tokenizer_does_as_its_own_file_says(tmp_path):
    lower = dict(do_lower_case=True)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}
    settings |= {f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS}
    tokens, lines = told_by(folder_of(tmp_path / "a", KOREAN, model=False, settings=settings, description=lower))
    assert tokens == LOWERED and len(lines) == 2 and all("tokenizer.json" in line for line in lines)


@pytest.mark.parametrize(
    ("vocabulary", "said", "letters", "lines"),
    [
        (SMALL, Letters(), Letters(True), 1),
        (SMALL, Letters(True), Letters(True), 0),
        (SMALL, Letters(False), Letters(False), 1),  # each capital is unknown
        (CASED, Letters(), Letters(False), 1),
        (CASED, Letters(True), Letters(True), 1),  # followed: capitals may have been trained so
        (GERMAN, Letters(), Letters(True, False), 1),
        (GERMAN, Letters(True), Letters(True), 1),  # followed: published vocabularies were trained so
        (GERMAN, Letters(True, False), Letters(True, False), 0),
        ([*SMALL, "BRCA1", "Zürich"], Letters(), Letters(True), 1),  # put in by hand, in place of [unused1]
        ([*SMALL, "BRCA1"], Letters(True), Letters(True), 0),
        (["BRCA1", "word"], Letters(), Letters(False), 1),  # a few words: B could not be written otherwise
        (["word"], Letters(), Letters(True), 1),
        (["word"], Letters(False), Letters(False), 0),  # too few to show anything
        ([*SMALL, *"영화"], Letters(), Letters(True, False), 1),
        ([*SMALL, *"ᄀᄂᄃ", "##ᅡ"], Letters(True), Letters(True), 0),  # Hangul taken apart when it was made
        ([*SMALL, *"가ᄀ", "##ᅡ", "ᅡ"], Letters(True), Letters(True), 1),  # and such that can be written both ways
    ],
    ids=str,
)
def test_what_a_vocabulary_shows(vocabulary, said, letters, lines):
    found, told = settle([*SPECIAL_TOKENS, "[unused1]", "[X]", *vocabulary], said)
    assert (found, len(told)) == (letters, lines)


def test_published_vocabularies_stay_what_they_were(tmp_path):
    """Their fingerprints are those of the library's own, which was right: prepared text stays usable."""
    published = {}
    for name in ("koelectra_v1_vocab.txt", "bert_uncased_vocab.txt"):
        published[name] = shared_data(f"vocab/{name}").read_text(encoding="utf-8").splitlines()
        published[name] = published[name][len(SPECIAL_TOKENS) :] if "koelectra" in name else published[name]
    korean, english = published.values()
    for number, (vocabulary, settings, lines) in enumerate(
        [
            (korean, {"do_lower_case": False, "model_max_length": 512}, 0),
            (english, {"do_lower_case": True}, 0),
            (english, None, 1),  # what the library takes for granted is right here
        ]
    ):
        said, place = [], tmp_path / str(number)
        place.mkdir()
        tokens = vocabulary if vocabulary is english else [*SPECIAL_TOKENS, *vocabulary]
        (place / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
        ElectraConfig(vocab_size=len(tokens)).save_pretrained(place)
        if settings:
            (place / "tokenizer_config.json").write_text(json.dumps(settings))
        stock = AutoTokenizer.from_pretrained(place)
        assert fingerprint(load_tokenizer(place, log=said.append)) == fingerprint(stock) and len(said) == lines


def test_settings_that_are_no_settings_are_named(tmp_path):
    for number, content in enumerate(('{"do_lower_case": "false"}', "{", '{"strip_accents": 1}')):
        for model in (True, False):
            place = folder_of(tmp_path / f"{number}{model}", KOREAN, model=model)
            (place / "tokenizer_config.json").write_text(content)
            with pytest.raises(UserError, match=str(place)) as caught:
                load_tokenizer(place)
            assert "tokenizer_config.json" in str(caught.value)
