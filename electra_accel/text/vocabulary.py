"""Vocabulary extension for a domain: a pair's WordPiece tokenizer with more tokens.

The tokenizer of a published pair was made for other text: words of the domain fall into many pieces. New tokens become
entries of the WordPiece model itself, at the end of the vocabulary; the ids of all others stay. (Hugging Face's "added
tokens" are something else: they cut words apart wherever they occur.)
"""

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from electra_accel.errors import UserError, named
from electra_accel.text.files import file_errors, regular_file
from electra_accel.text.learn_tokens import learn
from electra_accel.text.tokenizer import fingerprint
from electra_accel.text.unknown import lacking_in, name_tokens
from electra_accel.text.wordpiece import WordPiece, count_tokens, count_words, never_used
from electra_accel.text.writing import normalise


def adapt(
    tokenizer: PreTrainedTokenizerFast,
    add_tokens: Sequence[str],
    learn_tokens: int | None,
    batches: Iterable[list[str]],
    log: Callable[[str], None],
) -> tuple[PreTrainedTokenizerFast, dict]:
    """Extends a tokenizer by given tokens, then by ``learn_tokens`` of those that save most on the texts.

    Returns:
        The tokenizer, and for the manifest: ``base`` (fingerprint of the given tokenizer), ``added``, ``words`` of the texts,
        their tokens before and after (whole words, nothing cut off), and how many of these are [UNK].
    """
    extended = extend(tokenizer, add_tokens)
    words = count_words(batches, tokenizer)
    if learn_tokens:
        log(f"learning {learn_tokens} tokens from {len(words):,} distinct words")
        extended = extend(extended, learn(words, extended, learn_tokens))
    (before, unknown_before), (after, unknown_after) = count_tokens(words, tokenizer), count_tokens(words, extended)
    added = len(extended) - len(tokenizer)
    change = f" ({after / before - 1:+.1%})" if before else ""
    log(
        f"vocabulary: {added} tokens added, {after:,} tokens of training text instead of {before:,}{change}, "
        f"of them [UNK] {unknown_after:,} instead of {unknown_before:,}"
    )
    if lacking := name_tokens(lacking_in(words, extended), extended):
        log(f"[UNK] mostly for want of {lacking}; a file for tokenizer.add_tokens can name them")
    return extended, {
        "base": fingerprint(tokenizer),
        "added": added,
        "words": words.total(),
        "tokens_before": before,
        "tokens_after": after,
        "unknown_before": unknown_before,
        "unknown_after": unknown_after,
    }


def extend(tokenizer: PreTrainedTokenizerFast, tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    """A copy with ``tokens`` in its WordPiece vocabulary, ids from len(tokenizer) on; everything else is unchanged.

    UserError: not a WordPiece tokenizer; tokens that it has already or could never use, by their lines in the file.
    """
    wordpiece, special = WordPiece(tokenizer), tokenizer.get_added_vocab()
    problems = []
    for line, token in enumerate(tokens, start=1):
        if token in wordpiece or token in special:
            problems.append(f"line {line}: {token!r} is in the vocabulary already")
        elif reason := never_used(token, tokenizer):
            problems.append(f"line {line}: {token!r} could never be used, {reason}")
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(f"tokenizer.add_tokens: delete or change {'; '.join(problems[:5])}{more}")

    description = json.loads(tokenizer.backend_tokenizer.to_str())
    vocab: dict[str, int] = description["model"]["vocab"]
    # A loader renumbers added tokens that the vocabulary does not hold, to its end. Their text never reaches the model.
    for added in description["added_tokens"]:
        vocab.setdefault(added["content"], added["id"])
    vocab.update({token: number for number, token in enumerate(tokens, start=len(tokenizer))})
    extended = copy.deepcopy(tokenizer)
    extended._tokenizer = Tokenizer.from_str(json.dumps(description))
    return extended


def read_tokens(path: str | Path) -> list[str]:
    """The tokens in a file, one a line; those that only continue a word begin with "##". UserError names the line."""
    path = Path(path)
    first: dict[str, int] = {}
    with named("tokenizer.add_tokens"), file_errors(path):
        regular_file(path)
        text = path.read_text(encoding="utf-8-sig").rstrip()
        if not text:
            raise UserError(f"{path} is empty; write one token a line")
        for number, line in enumerate(text.split("\n"), start=1):
            if not (token := normalise(line.rstrip())):
                raise UserError(f"{path}, line {number} is empty; delete it")
            if first.setdefault(token, number) < number:
                raise UserError(f"{path}, line {number}: {token!r} stands in line {first[token]} already; delete one")
    return list(first)
