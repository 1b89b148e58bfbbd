"""The own segmentation of words equals the library's."""

import pytest
from tokenizers import Tokenizer, models
from transformers import BertTokenizer, PreTrainedTokenizerFast

from electra_accel.errors import UserError
from electra_accel.text.corpus import Corpus, read_documents
from electra_accel.text.tokenizer import SPECIAL_TOKENS, load_tokenizer, train_tokenizer
from electra_accel.text.wordpiece import WordPiece, count_tokens, count_words
from electra_accel.text.writing import normalise
from tests.helpers import shared_data

TEXTS = [f"영화가 {n}번 봐도 재밌다, 정말! Really good Café number {n % 7} 映画" for n in range(200)]
ODD = ["", " \t", "☃ 쀍", "##재밌다 a##b", "재밌쀍다", "x" * 100 + " " + "x" * 101, "[MASK] Café Café"]


def assert_equal_to_the_library(tokenizer, texts):
    words, wordpiece = count_words([texts], tokenizer), WordPiece(tokenizer)
    backend = tokenizer.backend_tokenizer
    assert {word: wordpiece.pieces(word) or [tokenizer.unk_token] for word in words} == {
        word: [token.value for token in backend.model.tokenize(word)] for word in words
    }
    backend.encode_special_tokens = True
    tokens = [token for text in texts for token in backend.encode(normalise(text), add_special_tokens=False).tokens]
    assert count_tokens(words, tokenizer) == (len(tokens), tokens.count(tokenizer.unk_token))


@pytest.mark.parametrize("lowercase", [False, True])
def test_words_and_pieces_are_the_library_s(tmp_path, lowercase):
    assert_equal_to_the_library(train_tokenizer(lambda: [TEXTS], 150, tmp_path, lowercase), TEXTS[:20] + ODD)


@pytest.mark.parametrize("vocabulary", ["koelectra_v1_vocab.txt", "bert_uncased_vocab.txt"])
def test_on_real_text(vocabulary):
    corpus = Corpus(files=(str(shared_data("corpora/nsmc_reviews.csv.xz")),), text_column="sen")
    tokenizer = load_tokenizer(shared_data(f"vocab/{vocabulary}"))
    assert_equal_to_the_library(tokenizer, next(read_documents(corpus)).documents + ODD)


def test_a_token_that_continues_a_word_is_cut_as_inside_one(tmp_path):
    tokens = [*SPECIAL_TOKENS, "a", "b", "##a", "##b", "##c", "##bc", "abc"]
    wordpiece = WordPiece(BertTokenizer(vocab={token: number for number, token in enumerate(tokens)}))
    assert wordpiece.pieces("abc") == ["abc"] and wordpiece.pieces("##abc") == ["##a", "##bc"]
    assert wordpiece.pieces("##abd") is None
    wordpiece.remove("##bc")
    wordpiece.add("##ab")
    assert wordpiece.pieces("##abc") == ["##ab", "##c"] and wordpiece.pieces("babc") == ["b", "##ab", "##c"]


def test_the_characters_that_a_vocabulary_lacks_are_all_that_a_word_needs():
    tokens = [*SPECIAL_TOKENS, "a", "ab", "##a", "##b", "##bc"]
    wordpiece = WordPiece(BertTokenizer(vocab={token: number for number, token in enumerate(tokens)}))
    for word, lacking in {
        "abba": [],
        "abc": ["##c"],  # ab is taken, although a ##bc would do
        "cabxac": ["c", "##x", "##c"],
        "b" + "a" * 100: [],  # too long for any vocabulary
    }.items():
        assert wordpiece.lacking(word) == lacking
        for token in lacking:
            assert wordpiece.ends(word) is None
            wordpiece.add(token)
        assert (wordpiece.ends(word) is not None) == (len(word) <= 100)
        for token in lacking:
            wordpiece.remove(token)


def test_other_kinds_of_tokenizers_are_refused():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), name_or_path="some/bpe")
    with pytest.raises(UserError, match=r"tokenizer.learn_tokens work with WordPiece .* this is BPE \(some/bpe\)"):
        WordPiece(tokenizer)
