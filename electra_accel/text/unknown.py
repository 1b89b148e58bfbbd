"""How much of a text a vocabulary does not know, and what the likely cause is: the words for every script that makes tokens."""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerFast

from electra_accel.text.encode import MANY_UNKNOWN
from electra_accel.text.letters import SETTINGS, Letters, settle
from electra_accel.text.wordpiece import WordPiece, count_words, never_used
from electra_accel.text.writing import normalise

SAMPLE = 200_000  # characters that the cause is looked for in
_MOST_LACKING = 10  # characters named that a vocabulary lacks
_CAUSES = "a vocabulary of another language, or one made with capitals and accents treated in another way?"


class Unknown(NamedTuple):
    unknown: int  # tokens of a text that are [UNK]
    tokens: int  # all of them but [CLS] and [SEP]
    cause: str = ""  # in words, where it was asked for

    @property
    def share(self) -> float:
        return self.unknown / max(1, self.tokens)

    @property
    def is_high(self) -> bool:
        return self.share > MANY_UNKNOWN


def told(found: Mapping[str, Unknown]) -> list[str]:
    """Lines for a person: the share of unknown tokens in each text, by its name, and a warning where one is high."""
    lines = ["unknown tokens: " + ", ".join(f"{text.share:.2%} of {name}" for name, text in found.items())]
    if high := {name: text for name, text in found.items() if text.is_high}:
        shares = " and ".join(f"{text.share:.1%} of the tokens of {name}" for name, text in high.items())
        cause = next((text.cause for text in high.values() if text.cause), _CAUSES)
        lines.append(f"warning: {shares} are [UNK], so a network cannot read them; the likely cause: {cause}")
    return lines


def measure(ids: Iterable[Iterable[int]], tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Unknown:
    """Of texts that have been made tokens, with or without special ones; ``texts``: the same, for the cause."""
    tokens = np.fromiter(chain.from_iterable(ids), np.int64)
    special = [tokenizer.cls_token_id, tokenizer.sep_token_id]
    found = Unknown(int((tokens == tokenizer.unk_token_id).sum()), int((~np.isin(tokens, special)).sum()))
    return found._replace(cause=cause_in(texts, tokenizer)) if found.is_high else found


def sample_of(texts: Iterable[str]) -> list[str]:
    """The first ``SAMPLE`` characters, as they are tokenised."""
    sample, left = [], SAMPLE
    for text in texts:
        sample.append(normalise(text[:left]))
        left -= len(sample[-1])
        if left <= 0:
            break
    return sample


def cause_in(texts: Iterable[str], tokenizer: PreTrainedTokenizerFast) -> str:
    """Why words of the texts are unknown, in words; "" where it cannot be told. Their beginning is read (``SAMPLE``)."""
    sample = sample_of(texts)
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()  # which it was perhaps asked for last
    return _letters_cause(sample, backend, tokenizer.unk_token_id) or (
        _words_cause(sample, tokenizer) if isinstance(backend.model, models.WordPiece) else ""
    )


def _letters_cause(sample: list[str], backend: Tokenizer, unknown: int) -> str:
    """Whether another treatment of capitals and accents would make half of the unknown tokens known, or more."""
    present, now = backend.normalizer, _share(sample, backend, unknown)
    if not now or not isinstance(present, normalizers.BertNormalizer):
        return ""
    shares, clean, chinese = {}, present.clean_text, present.handle_chinese_chars
    shown, _ = settle(backend.get_vocab(with_added_tokens=False), Letters())  # first: of equal ones the first is best
    for letters in (shown, Letters(False), Letters(True), Letters(True, False)):
        other = Tokenizer.from_str(backend.to_str())
        other.normalizer = normalizers.BertNormalizer(clean, chinese, letters.strips, letters.lowercase)
        shares[letters] = _share(sample, other, unknown)
    best = min(shares, key=shares.get)
    if 2 * shares[best] > now:
        return ""
    setting = json.dumps({"do_lower_case": best.lowercase, "strip_accents": best.strips})
    return (
        f"the vocabulary was made with capitals and accents treated in another way; with {setting[1:-1]} in the tokenizer's "
        f"{SETTINGS} {shares[best]:.1%} of a sample would be unknown"
    )


def _share(sample: list[str], backend: Tokenizer, unknown: int) -> float:
    ids = Counter()
    for encoding in backend.encode_batch_fast(sample, add_special_tokens=False):
        ids.update(encoding.ids)
    return ids[unknown] / max(1, ids.total())


def _words_cause(sample: list[str], tokenizer: PreTrainedTokenizerFast) -> str:
    wordpiece, words = WordPiece(tokenizer), count_words([sample], tokenizer)
    unknown = Counter({word: count for word, count in words.items() if wordpiece.ends(word) is None})
    if 2 * sum(count for word, count in unknown.items() if len(word) > wordpiece.limit) > unknown.total():
        return f"words of more than {wordpiece.limit} characters, which are never cut: are blanks missing, or is it no prose?"
    if not (lacking := lacking_in(unknown, tokenizer)):
        return ""
    scripts = Counter()
    for token, count in lacking.items():
        scripts[_script(token)] += count
    script = max(scripts, key=scripts.get)
    known, missing = (
        len({token[-1] for token in tokens if token and _script(token) == script})
        for tokens in (tokenizer.backend_tokenizer.get_vocab(), lacking)
    )
    if script and known < missing:
        return (
            f"the vocabulary is of another language or too small: it has {known:,} {script} letters and lacks "
            f"{missing:,} of a sample; choose one that was made for such text"
        )
    return (
        f"the vocabulary lacks {name_tokens(lacking, tokenizer)}; train a larger one, or where networks are given name "
        "them in a file for tokenizer.add_tokens"
    )


def _script(token: str) -> str:
    """Hangul, Latin, Cyrillic, …: with which word the name of its last letter begins; "" for what is none."""
    if unicodedata.category(token[-1])[0] not in "LM":  # letters, and the marks that are half of some scripts
        return ""
    return unicodedata.name(token[-1], "other").partition(" ")[0].capitalize().replace("Cjk", "Chinese")


def lacking_in(words: Counter[str], tokenizer: PreTrainedTokenizerFast) -> Counter[str]:
    """The characters, as tokens, for want of which words become [UNK], and how many do."""
    wordpiece, counts = WordPiece(tokenizer), Counter()
    for word, count in words.items():
        counts.update(dict.fromkeys(wordpiece.lacking(word), count))
    return counts


def name_tokens(counts: Counter[str], tokenizer: PreTrainedTokenizerFast) -> str:
    """The most frequent of what :func:`lacking_in` gave that a vocabulary could use."""
    usable = (f"{token} ({count:,})" for token, count in counts.most_common() if not never_used(token, tokenizer))
    return ", ".join(islice(usable, _MOST_LACKING))
