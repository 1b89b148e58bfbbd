"""WordPiece without the library's encodings: words of a text, and the pieces of a word with a vocabulary that may grow."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from tokenizers import models
from transformers import PreTrainedTokenizerFast

from electra_accel.errors import UserError
from electra_accel.text.writing import normalise


class WordPiece:
    """Greedy longest-match-first segmentation of single words, as `tokenizers` does it, with a vocabulary that can grow."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        model = tokenizer.backend_tokenizer.model
        if not isinstance(model, models.WordPiece):
            raise UserError(
                f"tokenizer.add_tokens and tokenizer.learn_tokens work with WordPiece vocabularies only, this is "
                f"{type(model).__name__} ({tokenizer.name_or_path}); leave them out"
            )
        self.prefix: str = model.continuing_subword_prefix
        self.limit: int = model.max_input_chars_per_word
        self._tokens = set(tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False))
        self._longest = max(map(len, self._tokens), default=0)

    def add(self, token: str) -> None:
        self._tokens.add(token)
        self._longest = max(self._longest, len(token))

    def remove(self, token: str) -> None:
        self._tokens.discard(token)

    def __contains__(self, token: str) -> bool:
        return token in self._tokens

    def _cut(self, word: str, continues: bool = False) -> Iterator[tuple[int, int, bool]]:
        """Where each piece begins and ends, and whether there is such a token; where none begins, one character is cut off."""
        start = 0
        while start < len(word):
            mark = self.prefix if continues or start else ""
            ends = range(min(len(word), start + self._longest), start, -1)
            found = next((end for end in ends if mark + word[start:end] in self._tokens), None)
            end = found or start + 1
            yield start, end, found is not None
            start = end

    def ends(self, word: str, continues: bool = False) -> list[int] | None:
        """Where the pieces of a normalised word end, in characters; None where it becomes [UNK].

        ``continues``: the word is the rest of a longer one, so that its first piece is a "##" token too.
        """
        ends = []
        for _, end, known in self._cut(word, continues):
            if not known or len(word) > self.limit:
                return None
            ends.append(end)
        return ends

    def lacking(self, word: str) -> list[str]:
        """The tokens of one character for want of which a normalised word becomes [UNK]; with all of them it would not."""
        cuts = self._cut(word) if len(word) <= self.limit else ()
        return [self.prefix * (start > 0) + word[start:end] for start, end, known in cuts if not known]

    def pieces(self, token: str) -> list[str] | None:
        """The tokens that a word is cut into; of a token "##…" those that it is cut into inside a word."""
        continues, body = token.startswith(self.prefix), token.removeprefix(self.prefix)
        if (ends := self.ends(body, continues)) is None:
            return None
        return [self.prefix * (continues or start > 0) + body[start:end] for start, end in zip([0, *ends], ends)]


def words_of(tokenizer: PreTrainedTokenizerFast) -> Callable[[str], list[str]]:
    """The tokenizer's first half: text -> the normalised words that its WordPiece model then cuts into pieces."""
    backend = tokenizer.backend_tokenizer
    clean = backend.normalizer.normalize_str if backend.normalizer else str
    if backend.pre_tokenizer is None:
        return lambda text: [clean(text)]
    return lambda text: [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(clean(text))]


def count_words(batches: Iterable[list[str]], tokenizer: PreTrainedTokenizerFast) -> Counter[str]:
    """How often each word occurs in the texts, after the tokenizer's normalisation and splitting into words."""
    split, counts = words_of(tokenizer), Counter()
    for documents in batches:
        for text in documents:
            counts.update(split(normalise(text)))
    return counts


def count_tokens(words: Counter[str], tokenizer: PreTrainedTokenizerFast) -> tuple[int, int]:
    """Tokens of the words, and how many of them are [UNK]."""
    wordpiece = WordPiece(tokenizer)
    tokens = unknown = 0
    for word, count in words.items():
        ends = wordpiece.ends(word)
        tokens += count * (1 if ends is None else len(ends))
        unknown += count * (ends is None)
    return tokens, unknown


def never_used(token: str, tokenizer: PreTrainedTokenizerFast) -> str | None:
    """Why a WordPiece tokenizer would never look up this token (its normaliser or its words differ); None if it would."""
    model = tokenizer.backend_tokenizer.model
    body = token.removeprefix(model.continuing_subword_prefix)
    if not body:
        return "it has no characters"
    if len(body) > model.max_input_chars_per_word:
        return f"words of more than {model.max_input_chars_per_word} characters become [UNK]"
    word = body if body == token else f"a{body}"  # any letter before it shows whether it continues a word
    found = words_of(tokenizer)(word)
    return None if found == [word] else f"the tokenizer reads {word!r} as {' '.join(map(repr, found)) or 'nothing'}"
