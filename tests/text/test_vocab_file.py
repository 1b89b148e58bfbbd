"""vocab.txt as other programs save it: a byte order mark, other line ends, blank lines at the end."""

import codecs
import json
import shutil

import pytest
from transformers import BertTokenizer, ElectraConfig

from electra_accel.errors import UserError
from electra_accel.text.tokenizer import SPECIAL_TOKENS, fingerprint, load_tokenizer

TOKENS = [*SPECIAL_TOKENS, "영", "##화", "A", "b"]
LINES = "".join(f"{token}\n" for token in TOKENS)
FILES = {
    "as it is": LINES.encode(),
    "a byte order mark": codecs.BOM_UTF8 + LINES.encode(),
    "no line end": LINES.removesuffix("\n").encode(),
    "a blank line": (LINES + "\n").encode(),
    "blank lines": (LINES + "\n \n\n").encode(),
    "windows": LINES.replace("\n", "\r\n").encode(),
    "windows, all of it": codecs.BOM_UTF8 + (LINES + "\n\n").replace("\n", "\r\n").encode(),
    "old mac": LINES.replace("\n", "\r").encode(),
}


@pytest.fixture(params=["bare", "model", "settings"])
def load(request, tmp_path):
    """Loads the file of these bytes: by itself, beside a model's config.json, or beside the tokenizer's settings."""
    ElectraConfig(vocab_size=len(TOKENS)).save_pretrained(tmp_path)
    if request.param == "settings":
        (tmp_path / "config.json").unlink()
        (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')

    def load(content: bytes):
        (tmp_path / "vocab.txt").write_bytes(content)
        return load_tokenizer(tmp_path / "vocab.txt" if request.param == "bare" else tmp_path)

    return load


@pytest.mark.parametrize("name", FILES)
def test_the_ids_are_the_lines(load, name):
    tokenizer = load(FILES[name])
    assert len(tokenizer) == len(TOKENS)
    assert tokenizer.convert_tokens_to_ids(TOKENS) == list(range(len(TOKENS)))
    assert tokenizer.tokenize("영화 A b") == ["영", "##화", "A", "b"]


def test_blanks_of_several_kinds_are_tokens(load):
    tokenizer = load(LINES.replace("A\n", "\u3000\n\u2028\nA\n").encode())
    assert (len(tokenizer), tokenizer.convert_tokens_to_ids("A")) == (len(TOKENS) + 2, TOKENS.index("A") + 2)


def test_a_vocabulary_that_needs_no_mending_is_left_to_the_library(tmp_path):
    """Its fingerprint is that of prepared text that is there already."""
    (tmp_path / "vocab.txt").write_bytes(FILES["as it is"])
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": false}')
    assert fingerprint(load_tokenizer(tmp_path)) == fingerprint(BertTokenizer.from_pretrained(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-16", "cp949"])
def test_another_encoding_is_one_line(load, encoding):
    with pytest.raises(UserError, match="vocab.txt: .*not UTF-8"):
        load(LINES.encode(encoding))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_json_with_a_byte_order_mark_is_named(tmp_path, name):
    BertTokenizer(vocab={token: number for number, token in enumerate(TOKENS)}).save_pretrained(tmp_path)
    ElectraConfig(vocab_size=len(TOKENS)).save_pretrained(tmp_path)
    shutil.copy(tmp_path / name, tmp_path / "kept.json")
    (tmp_path / name).write_bytes(codecs.BOM_UTF8 + (tmp_path / name).read_bytes())
    with pytest.raises(UserError, match=f"{tmp_path / name} begins with a byte order mark"):
        load_tokenizer(tmp_path)
    shutil.copy(tmp_path / "kept.json", tmp_path / name)
    assert json.loads((tmp_path / name).read_text()) and len(load_tokenizer(tmp_path)) == len(TOKENS)
