"""Documents become examples: nothing lost, cut where it reads well, special tokens only where they belong."""

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from electra_accel.text.encode import Encoder
from electra_accel.text.tokenizer import train_tokenizer
from tests.text.texts import TEXTS, text


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> PreTrainedTokenizerFast:
    return train_tokenizer(lambda: [TEXTS], 400, tmp_path_factory.mktemp("vocabulary"))


def encoder(tokenizer: PreTrainedTokenizerFast, max_length: int = 32) -> Encoder:
    return Encoder(tokenizer.backend_tokenizer.to_str(), (2, 3, 1), max_length, join_lines=False)


def test_long_documents_are_cut_into_full_pieces_at_words(tokenizer):
    encode = encoder(tokenizer)
    for length in (29, 30, 31, 61, 95, 300):
        done = encode([text(1, length)])
        assert done.lengths.max() <= 32
        assert all(done.lengths[:-2] > 32 - 16) and done.lengths[-1] >= 2 + 6
        starts = np.cumsum(done.lengths) - done.lengths
        assert not any(t.startswith("##") for t in tokenizer.convert_ids_to_tokens(done.tokens[starts + 1].tolist()))
        assert tokenizer.decode(done.tokens, skip_special_tokens=True) == text(1, length)
    word = "xtwfgr" * 12  # one word of many pieces: it is cut where it must be, and nothing is lost
    pieces = encoder(tokenizer, 16)([word])
    assert pieces.lengths.max() <= 16 < len(pieces.tokens)
    assert tokenizer.decode(pieces.tokens, skip_special_tokens=True).replace(" ", "") == word


def test_special_tokens_in_the_text_stay_text(tokenizer):
    done = encoder(tokenizer)(["one [MASK] two [SEP][PAD] three"])
    assert done.lengths.tolist() == [len(done.tokens)]
    assert not set(done.tokens[1:-1].tolist()) & {0, 2, 3, 4}


def test_decomposed_hangul_is_composed(tokenizer):
    encode = encoder(tokenizer)
    assert encode(["\u1112\u1161\u11ab\u1100\u1173\u11af one"]).tokens.tolist() == encode(["한글 one"]).tokens.tolist()
