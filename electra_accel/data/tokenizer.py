"""Load or train a tokenizer, check that ELECTRA can work with it, and name it by what it does."""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from electra_accel.data.encode import normalise
from electra_accel.errors import UserError

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # ids 0 to 4 of the vocabularies trained here
MIN_VOCAB_SIZE = 64
_TEXT_TO_IDS = ("normalizer", "pre_tokenizer", "model", "added_tokens")  # parts of a tokenizer.json
_DESCRIPTIONS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "config.json",
)  # one of these tells AutoTokenizer what to build


def load_tokenizer(path_or_id: str | Path, revision: str | None = None) -> PreTrainedTokenizerFast:
    """Loads any fast tokenizer with the five special tokens that ELECTRA needs.

    Args:
        path_or_id: a folder, a bare vocab.txt (WordPiece, one token a line), or an id on the Hugging Face hub.
        revision: branch, tag or commit on the hub.

    Raises:
        UserError: not there, not readable, not a fast tokenizer, a special token is missing or stands for another, or its ids
            are not 0, 1, 2, … without gaps.
    """
    path = Path(path_or_id)
    vocab = path / "vocab.txt"
    if path.is_file():
        tokenizer = _from_vocab(path)
    elif path.is_dir() and vocab.is_file() and not any((path / name).is_file() for name in _DESCRIPTIONS):
        tokenizer = _from_vocab(vocab)
    elif not path.is_dir() and (
        path.is_absolute() or str(path_or_id).startswith(".") or str(path_or_id).count("/") > 1
    ):
        raise UserError(f"{path_or_id}: no such tokenizer folder or vocab.txt (option tokenizer.path)")
    else:
        try:
            tokenizer = AutoTokenizer.from_pretrained(path_or_id, revision=revision)
        except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
            where = "in this folder" if path.is_dir() else "at this path, and none on the hub that can be reached"
            raise UserError(
                f"{path_or_id}: no tokenizer {where} (option tokenizer.path): {' '.join(str(error).split())[:150]}"
            ) from None
    if len(tokenizer) == len(set(tokenizer.all_special_ids)):  # what AutoTokenizer makes of a config.json alone
        raise UserError(f"{path_or_id}: a model without a tokenizer (option tokenizer.path)")
    if vocab.is_file() and not (path / "tokenizer.json").is_file():
        _read_vocab(vocab)
        # BertTokenizer adds what its vocabulary lacks, with an id that no embedding was trained for.
        base = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
        _require(path, [token for token in tokenizer.all_special_tokens if token not in base])
    _audit(tokenizer, path_or_id)
    return tokenizer


def _from_vocab(path: Path) -> PreTrainedTokenizerFast:
    """A BERT tokenizer from its vocabulary; whether it lower-cases and strips accents is read off the vocabulary."""
    tokens = _read_vocab(path)
    if "[UNK]" not in tokens:
        raise UserError(f"{path}: not a WordPiece vocabulary: no line '[UNK]' (option tokenizer.path)")
    _require(path, [token for token in SPECIAL_TOKENS if token not in tokens])
    ordinary = [token for token in tokens if not (token.startswith("[") and token.endswith("]"))]
    lowercase = all(token == token.lower() for token in ordinary)
    # Stripping accents also takes Hangul syllables apart, so it can only be meant where no token would change by it.
    strip = lowercase and all(token == _without_accents(token) for token in ordinary)
    return BertTokenizer(
        vocab={token: number for number, token in enumerate(tokens)}, do_lower_case=lowercase, strip_accents=strip
    )


def _read_vocab(path: Path) -> list[str]:
    """The tokens of a vocab.txt; the id of a token is the number of its line, from 0."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a vocabulary: not UTF-8 (option tokenizer.path)") from None
    tokens = text.removesuffix("\n").split("\n")  # not splitlines: a token can be a line break of another kind
    first: dict[str, int] = {}
    for number, token in enumerate(tokens, start=1):
        if first.setdefault(token, number) < number:
            raise UserError(
                f"{path}, line {number}: {token!r} stands in line {first[token]} already, so it would have two ids; rename "
                f"the one in line {first[token]}, for example to [unused1] (option tokenizer.path)"
            )
    return tokens


def _without_accents(token: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", token) if unicodedata.category(c) != "Mn")


def _audit(tokenizer: PreTrainedTokenizerFast, name: str | Path) -> None:
    if not tokenizer.is_fast:
        raise UserError(
            f"{name}: only fast tokenizers can be used (a folder with tokenizer.json; option tokenizer.path)"
        )
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

    Covers vocabulary, normalisation, splitting, added and special tokens. Left out: padding, truncation, decoding, and how
    [CLS] and [SEP] are put around a text, which is done here and not by the tokenizer.
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
    batches: Callable[[], Iterable[list[str]]], vocab_size: int, folder: Path, lowercase: bool = False
) -> PreTrainedTokenizerFast:
    """Trains a WordPiece vocabulary and saves it (see :func:`save_tokenizer`).

    Text is composed (see ``encode.normalise``) and treated as BERT does, but accents are kept and case too unless
    ``lowercase``: words split at spaces and punctuation, each Chinese character alone; Hangul syllables stay whole. A
    character that makes up less than a millionth of the text, or is not among the vocab_size / 4 most frequent, becomes
    [UNK].

    The same text gives the same vocabulary. The library alone does not see to that: it numbers the "##" characters in the
    order of a hash table that differs between runs, and breaks ties between merges by these numbers. So they are numbered
    beforehand, as special tokens of the trainer.

    Args:
        batches: gives the texts in batches; called twice (characters are counted first).
        vocab_size: upper limit; a small corpus may give fewer tokens.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise UserError(f"tokenizer.train_vocab_size must be at least {MIN_VOCAB_SIZE}, not {vocab_size}")
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def composed() -> Iterator[list[str]]:
        return ([normalise(text) for text in batch] for batch in batches())

    characters: Counter[str] = Counter()
    for batch in composed():
        characters.update("".join(batch))
    alphabet = _alphabet(characters, backend, vocab_size // 4)
    inside = [c for c in alphabet if _can_continue_a_word(c, backend)]

    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        special_tokens=SPECIAL_TOKENS + [f"##{c}" for c in inside],
        show_progress=False,
    )
    backend.train_from_iterator(composed(), trainer)
    learned = backend.get_vocab()
    vocab = {token: number for number, token in enumerate(sorted(learned, key=learned.get))}
    tokenizer = BertTokenizer(vocab=vocab, do_lower_case=lowercase, strip_accents=False)
    save_tokenizer(tokenizer, folder)
    return tokenizer


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes what AutoTokenizer loads, and for WordPiece a vocab.txt beside it, which older tools read: a line an id."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
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


def _can_continue_a_word(character: str, backend: Tokenizer) -> bool:
    """False for punctuation and Chinese characters, which stand alone: their "##" forms would never be used."""
    return len(backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(f"a{character}"))) == 1
