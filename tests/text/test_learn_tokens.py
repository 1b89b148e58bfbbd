"""Learnt tokens: exactly the greedy choice, never a new [UNK], only usable tokens, the same for the same words."""

import random
from collections import Counter

import pytest
from transformers import BertTokenizer

from electra_accel.text.corpus import Corpus, read_documents
from electra_accel.text.learn_tokens import learn
from electra_accel.text.tokenizer import SPECIAL_TOKENS, load_tokenizer
from electra_accel.text.vocabulary import extend
from electra_accel.text.wordpiece import WordPiece, count_tokens, count_words
from tests.helpers import shared_data


def letters(characters: str, *more: str) -> BertTokenizer:
    """A vocabulary of single characters, at the start of a word and inside, and ``more`` tokens."""
    tokens = [*SPECIAL_TOKENS, *characters, *(f"##{c}" for c in characters), *more]
    return BertTokenizer(vocab={token: n for n, token in enumerate(tokens)}, do_lower_case=False)


def random_words(seed: int) -> Counter[str]:
    draw = random.Random(seed)
    parts = ["ab", "abc", "bca", "c", "dd", "aab", "cabd"]
    return Counter("".join(draw.choices(parts, k=draw.randint(1, 4))) for _ in range(120))


def greedy(words: dict[str, int], tokenizer, number: int) -> list[int]:
    """Tokens left after each choice, by trying every part of every word: the definition, without any shortcut."""
    wordpiece, left = WordPiece(tokenizer), []
    parts = {
        "##" * (i > 0) + word[i:j] for word in words for i in range(len(word)) for j in range(i + 1, len(word) + 1)
    }
    for _ in range(number):
        totals = {}
        for token in sorted(part for part in parts if part not in wordpiece):
            wordpiece.add(token)
            totals[token] = sum(count * len(wordpiece.ends(word)) for word, count in words.items())
            wordpiece.remove(token)
        best = min(totals, key=totals.get)
        left.append(totals[best])
        wordpiece.add(best)
    return left


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_token_is_the_one_that_saves_most(seed):
    """Nearly: tokens that end inside a present piece are no candidates, though now and then one would save more."""
    words, tokenizer = random_words(seed), letters("abcd", "ab", "##ca", "##bd")
    tokens = learn(words, tokenizer, 8)
    words = Counter({word: count for word, count in words.items() if count > 1})
    left = [count_tokens(words, extend(tokenizer, tokens[:number]))[0] for number in range(9)]
    best = greedy(words, tokenizer, 8)
    assert left[1:4] == best[:3]
    assert left[0] - left[8] >= 0.98 * (left[0] - best[7])


def test_ties_and_the_order_of_words_do_not_matter():
    words = random_words(4)
    turned = Counter(dict(reversed(list(words.items()))))
    assert learn(words, letters("abcd"), 20) == learn(turned, letters("abcd"), 20)
    assert learn(Counter({"ba": 5, "dc": 5}), letters("abcd"), 2) == ["ba", "dc"]


def test_words_that_occur_once_count_for_nothing_and_all_of_it_may_be_learnt():
    words = Counter({"abab": 2, "cdcd": 1, "a": 100})
    assert learn(words, letters("abcd"), 10) == ["abab"]
    assert learn(Counter(), letters("abcd"), 10) == []


def test_long_words_become_one_token_by_and_by():
    word = "abcdefghijklmnopqrstuvwxyz"
    assert learn(Counter({word: 5}), letters(word), 100)[-1] == word


@pytest.mark.parametrize("count", [1, 5])
def test_no_token_turns_a_word_into_unknown(count):
    """Behind "ab", "abx" would be left with "##x", which the vocabulary lacks; "abx" counts although it is rare."""
    tokens = [*SPECIAL_TOKENS, *"abcd", "##b", "##c", "##d", "##bx"]
    tokenizer = BertTokenizer(vocab={token: number for number, token in enumerate(tokens)})
    words = Counter({"abb": 50, "abc": 50, "abd": 50})
    assert learn(words, tokenizer, 1) == ["ab"]
    words["abx"] = count
    longer = extend(tokenizer, learn(words, tokenizer, 10))
    assert "ab" not in longer.get_vocab() and longer.tokenize("abb abc abd") == ["abb", "abc", "abd"]
    assert count_tokens(words, longer)[1] == 0


def test_real_reviews():
    """Every token learnt is usable (``extend`` checks it), no word is lost, and the gain is worth having."""
    tokenizer = load_tokenizer(shared_data("vocab/koelectra_v1_vocab.txt"))
    corpus = Corpus(files=(str(shared_data("corpora/nsmc_reviews.csv.xz")),), text_column="sen")
    batches = [batch.documents for batch, _ in zip(read_documents(corpus), range(5), strict=False)]
    words = count_words(batches, tokenizer)
    tokens = learn(words, tokenizer, 200)
    (before, unknown), (after, still) = count_tokens(words, tokenizer), count_tokens(words, extend(tokenizer, tokens))
    assert len(tokens) == 200 and still == unknown and after < 0.96 * before
