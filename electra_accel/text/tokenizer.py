"""Load or train a tokenizer, check that ELECTRA can work with it, and name it by what it does."""

import hashlib
import json
import os
import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from electra_accel.errors import UserError
from electra_accel.text.letters import DESCRIPTION, SETTINGS, Letters, about, read_settings, said_in, settle
from electra_accel.text.vocab_file import is_mended, read_vocab
from electra_accel.text.writing import normalise

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # ids 0 to 4 of the vocabularies trained here
MIN_VOCAB_SIZE = 64
LONGEST_WORD = 100  # characters; the library's limit (max_input_chars_per_word), and Google's
# What may be a longer word: no blank in it (\v, \f and the like are none here, the tokenizer drops them), no ASCII punctuation
# and no Chinese character, each of which ends a word.
_BLANKS, _CHINESE = r" \t\n\r\u00a0\u2000-\u200a\u2028\u2029\u3000", r"\u3400-\u4dbf\u4e00-\u9fff"
_LONG_RUN = re.compile(rf"[^{_BLANKS}!-/:-@\[-`{{-~{_CHINESE}]{{{LONGEST_WORD + 1}}}")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_TEXT_TO_IDS = ("normalizer", "pre_tokenizer", "model", "added_tokens")  # parts of a tokenizer.json
_DESCRIPTIONS = (DESCRIPTION, SETTINGS, "config.json", "special_tokens_map.json", "added_tokens.json")


def load_tokenizer(
    path_or_id: str | Path, revision: str | None = None, log: Callable[[str], None] = lambda line: None
) -> PreTrainedTokenizerFast:
    """Loads any fast tokenizer with the five special tokens that ELECTRA needs.

    Args:
        path_or_id: a folder, a bare vocab.txt (WordPiece, one token a line), or an id on the Hugging Face hub.
        log: told what the files do not say of capitals and accents, or say against the vocabulary (see letters.py).

    Raises:
        UserError: not there, not readable, not a fast tokenizer, a special token is missing or stands for another, or its ids
            are not 0, 1, 2, … without gaps.
    """
    path, name = Path(path_or_id), str(path_or_id)
    vocab = path / "vocab.txt"
    if path.is_file():
        return _from_vocab(path, path, log)
    if not path.is_dir() and (os.path.lexists(path) or name.startswith((".", "/")) or name.count("/") > 1):
        raise UserError(f"{path_or_id}: no such tokenizer folder or vocab.txt (option tokenizer.path)")
    for file in (path / name for name in _DESCRIPTIONS):
        if file.is_file() and file.read_bytes().startswith(BOM_UTF8):
            raise UserError(
                f"{file} begins with a byte order mark, which transformers cannot read: save it as UTF-8 without one"
            )
    settings = read_settings(path_or_id, revision)
    tokens = read_vocab(vocab) if vocab.is_file() and not (path / DESCRIPTION).is_file() else None
    # AutoTokenizer is told what to build by a model's config.json, or by the tokenizer's own settings.
    if tokens and not (path / "config.json").is_file() and not settings.keys() & {"tokenizer_class", "auto_map"}:
        return _from_vocab(vocab, path, log)
    # The library takes a byte order mark and blank lines at the end for tokens, and several kinds of blanks for one.
    mended = {"vocab": _numbered(tokens)} if tokens and is_mended(vocab, tokens) else {}
    if settings.get("do_lower_case", False) is None:  # says nothing, which the library cannot take
        mended["do_lower_case"] = False
    try:
        tokenizer = AutoTokenizer.from_pretrained(path_or_id, revision=revision, **mended)
    except Exception as error:  # of many kinds: `tokenizers` raises this one itself
        where = "in this folder" if path.is_dir() else "at this path, and none on the hub that can be reached"
        raise UserError(
            f"{path_or_id}: no tokenizer {where} (option tokenizer.path): {' '.join(str(error).split())[:150]}"
        ) from error
    if len(tokenizer) == len(set(tokenizer.all_special_ids)):  # what AutoTokenizer makes of a config.json alone
        raise UserError(f"{path_or_id}: a model without a tokenizer (option tokenizer.path)")
    if tokens:
        # BertTokenizer adds what its vocabulary lacks, with an id that no embedding was trained for.
        base = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
        _require(path, [token for token in tokenizer.all_special_tokens if token not in base])
    _audit(tokenizer, path_or_id)
    _treat_letters(tokenizer, path_or_id, revision, log)
    return tokenizer


def _from_vocab(path: Path, place: Path, log: Callable[[str], None]) -> PreTrainedTokenizerFast:
    """A BERT tokenizer from its vocabulary, with capitals and accents as the files in ``place`` say, if it is a folder."""
    tokens = read_vocab(path)
    if "[UNK]" not in tokens:
        raise UserError(f"{path}: not a WordPiece vocabulary: no line '[UNK]' (option tokenizer.path)")
    _require(path, [token for token in SPECIAL_TOKENS if token not in tokens])
    letters, lines = settle(tokens, said_in(place))
    for line in lines:
        log(about(place, line))
    return BertTokenizer(vocab=_numbered(tokens), do_lower_case=letters.lowercase, strip_accents=letters.strips)


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}


def _treat_letters(
    tokenizer: PreTrainedTokenizerFast, path_or_id: str | Path, revision: str | None, log: Callable[[str], None]
) -> None:
    """Makes a tokenizer that the library has loaded treat letters as its files say, else as its vocabulary shows.

    The library knows tokenizer_config.json alone: its own default stands before what tokenizer.json says.
    """
    backend = tokenizer.backend_tokenizer
    normalizer = backend.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer) or not isinstance(backend.model, models.WordPiece):
        return
    present = Letters(normalizer.lowercase, normalizer.strip_accents)
    is_general = type(tokenizer) is PreTrainedTokenizerFast  # which does what tokenizer.json says, and nothing else
    said = present if is_general else said_in(path_or_id, revision)
    letters, lines = settle(backend.get_vocab(with_added_tokens=False), said, DESCRIPTION if is_general else SETTINGS)
    if not letters.same_as(present):
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=normalizer.clean_text,
            handle_chinese_chars=normalizer.handle_chinese_chars,
            strip_accents=letters.strip_accents,
            lowercase=letters.lowercase,
        )
        # What is saved says it too, for the library that loads it.
        tokenizer.do_lower_case, tokenizer.strip_accents = letters
        tokenizer.init_kwargs |= {"do_lower_case": letters.lowercase, "strip_accents": letters.strip_accents}
    for line in lines:
        log(about(path_or_id, line))


def _audit(tokenizer: PreTrainedTokenizerFast, name: str | Path) -> None:
    if not tokenizer.is_fast:
        raise UserError(f"{name}: only fast tokenizers can be used (one with tokenizer.json; option tokenizer.path)")
    known = tokenizer.get_vocab()
    tokens = {kind: getattr(tokenizer, f"{kind}_token") for kind in ("pad", "unk", "cls", "sep", "mask")}
    _require(name, [f"[{kind.upper()}]" for kind, token in tokens.items() if token is None or token not in known])
    if len({known[token] for token in tokens.values()}) < len(tokens):
        raise UserError(f"{name}: special tokens of the tokenizer share an id: {tokens}")
    if max(known.values()) >= len(known):
        raise UserError(
            f"{name}: the tokenizer's ids have gaps: {len(known)} tokens, but the greatest id is {max(known.values())}; give "
            "each id below it a token (option tokenizer.path)"
        )


def _require(name: str | Path, missing: list[str]) -> None:
    if missing:
        raise UserError(
            f"{name}: the tokenizer has no {' '.join(missing)} token, which ELECTRA needs; "
            "take one of the BERT or ELECTRA kind, or train one (option tokenizer.train_vocab_size)"
        )


def fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """32 hexadecimal digits, equal for two tokenizers that turn text into ids in the same way, wherever they are stored.

    Padding, truncation, decoding, and how [CLS] and [SEP] are put around a text do not count.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    behaviour = {key: value for key, value in backend.items() if key in _TEXT_TO_IDS}
    behaviour["special"] = [tokenizer.pad_token, tokenizer.cls_token, tokenizer.sep_token, tokenizer.mask_token]
    return hashlib.blake2b(json.dumps(behaviour, sort_keys=True).encode(), digest_size=16).hexdigest()


def vocabulary_conflict(one: PreTrainedTokenizerFast, other: PreTrainedTokenizerFast) -> tuple[int, str, str] | None:
    """The first id that stands for different tokens, and these tokens; None where ids that both know mean the same."""
    both = list(range(min(len(one), len(other))))
    pairs = zip(one.convert_ids_to_tokens(both), other.convert_ids_to_tokens(both), strict=True)
    return next(((number, mine, theirs) for number, (mine, theirs) in enumerate(pairs) if mine != theirs), None)


def train_tokenizer(
    batches: Callable[[], Iterable[list[str]]],
    vocab_size: int,
    folder: Path,
    lowercase: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> PreTrainedTokenizerFast:
    """Trains a WordPiece vocabulary and saves it (see :func:`save_tokenizer`).

    Text is composed (``normalise``) and split as BERT does; accents are kept, and case too unless ``lowercase``.
    A character that makes up less than a millionth of the text, or is not among the vocab_size / 4 most frequent, becomes
    [UNK]. Words of more than ``LONGEST_WORD`` characters, which become [UNK] whatever the vocabulary, are left out and
    counted in a line to ``log``: the trainer takes time by the square of the longest one.

    The same text gives the same vocabulary. The library alone numbers the "##" characters in the order of a hash table that
    differs between runs, and breaks ties between merges by these numbers. So they are numbered beforehand, as special tokens
    of the trainer.

    Args:
        batches: gives the texts in batches; called twice (characters are counted first).
        vocab_size: upper limit; a small corpus may give fewer tokens.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise UserError(f"tokenizer.train_vocab_size must be at least {MIN_VOCAB_SIZE}, not {vocab_size}")
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    splitter = Tokenizer.from_str(backend.to_str())  # the trainer's own is locked while it asks for text

    def cleaned() -> Iterator[list[tuple[str, int]]]:
        for batch in batches():
            yield [_without_long_words(normalise(text), splitter) for text in batch]

    characters, left_out = Counter(), 0
    for text, long_words in chain.from_iterable(cleaned()):
        characters.update(text)
        left_out += long_words
    if left_out:
        words = f"{left_out:,} word{'s' * (left_out > 1)} of more than {LONGEST_WORD} characters"
        log(f"left out of the vocabulary's text: {words}, which become [UNK]")
    alphabet = _alphabet(characters, backend, vocab_size // 4)
    # Punctuation and Chinese characters stand alone: their "##" forms would never be used.
    words_of = backend.pre_tokenizer.pre_tokenize_str
    inside = [c for c in alphabet if len(words_of(backend.normalizer.normalize_str(f"a{c}"))) == 1]

    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        special_tokens=SPECIAL_TOKENS + [f"##{c}" for c in inside],
        show_progress=False,
    )
    backend.train_from_iterator(([text for text, _ in batch] for batch in cleaned()), trainer)
    learned = backend.get_vocab()
    vocab = {token: number for number, token in enumerate(sorted(learned, key=learned.get))}
    tokenizer = BertTokenizer(vocab=vocab, do_lower_case=lowercase, strip_accents=False)
    save_tokenizer(tokenizer, folder)
    return tokenizer


def _without_long_words(text: str, splitter: Tokenizer) -> tuple[str, int]:
    """A text without words that no WordPiece tokenizer cuts into pieces, and how many these are; any other text as it is."""
    if not _LONG_RUN.search(text):
        return text, 0
    words = [word for word, _ in splitter.pre_tokenizer.pre_tokenize_str(splitter.normalizer.normalize_str(text))]
    kept = [word for word in words if len(word) <= LONGEST_WORD]
    return (" ".join(kept), len(words) - len(kept)) if len(kept) < len(words) else (text, 0)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes what AutoTokenizer loads, and for WordPiece a vocab.txt beside it, which older tools read: a line an id."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # the library in Rust has no other
        if not (found := _OS_ERROR.search(str(error))):
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(folder)) from error
    if isinstance(tokenizer.backend_tokenizer.model, models.WordPiece):
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


def _alphabet(characters: Counter[str], backend: Tokenizer, limit: int) -> list[str]:
    """Up to ``limit`` characters as they are after normalisation, the most frequent first."""
    normalised: Counter[str] = Counter()
    for character, count in characters.items():
        for c in backend.normalizer.normalize_str(character):
            if not c.isspace():
                normalised[c] += count
    enough = normalised.total() / 1e6
    ranked = sorted((c for c in normalised if normalised[c] >= enough), key=lambda c: (-normalised[c], c))
    if not ranked:
        raise UserError("no usable text to train a vocabulary on")
    return ranked[:limit]
