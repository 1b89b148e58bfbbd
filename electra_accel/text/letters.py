"""What a BERT tokenizer makes of capitals and accents: what its files say about that, and what its vocabulary shows.

A vocabulary is made of text that went through the same treatment: one that holds capitals was made with them. Where no file
says anything, the library makes capitals small and takes accents off, and with them Hangul syllables apart.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from electra_accel import json_text
from electra_accel.errors import UserError

SETTINGS, DESCRIPTION = "tokenizer_config.json", "tokenizer.json"
_SMALL = frozenset("abcdefghijklmnopqrstuvwxyz")
_HANGUL = re.compile("[가-힣]")  # whole syllables


class Letters(NamedTuple):
    """What becomes of capitals and accents, or what files say of it."""

    lowercase: bool | None = None  # capitals become small letters; None: nothing is said
    strip_accents: bool | None = None  # accents are taken off; None: as ``lowercase``

    @property
    def strips(self) -> bool:
        return self.lowercase if self.strip_accents is None else self.strip_accents

    def same_as(self, other: "Letters") -> bool:
        return (self.lowercase, self.strips) == (other.lowercase, other.strips)


def about(name: str | Path, line: str) -> str:
    """The line with the name of what it is about; "warning: " stays in front."""
    mark = "warning: " if line.startswith("warning: ") else ""
    return f"{mark}{name}: {line.removeprefix(mark)}"


def said_in(path_or_id: str | Path, revision: str | None = None) -> Letters:
    """What tokenizer_config.json says, and where that is silent tokenizer.json; UserError as of :func:`read_settings`."""
    settings = read_settings(path_or_id, revision)
    normalizer = read_description(path_or_id, DESCRIPTION, revision).get("normalizer") or {}
    if normalizer.get("type") != "BertNormalizer":
        normalizer = {}
    both = (("do_lower_case", "lowercase"), ("strip_accents", "strip_accents"))
    return Letters(*(normalizer.get(there) if settings.get(here) is None else settings[here] for here, there in both))


def read_settings(path_or_id: str | Path, revision: str | None = None) -> dict:
    """tokenizer_config.json; {} where there is none. UserError: unreadable, or it says neither true nor false of letters."""
    settings = read_description(path_or_id, SETTINGS, revision)
    for option in ("do_lower_case", "strip_accents"):
        if not isinstance(settings.get(option), bool | None):
            raise UserError(
                f"{path_or_id}: {SETTINGS}: {option} must be true, false or null, not {json.dumps(settings[option])[:40]}"
            )
    return settings


def read_description(path_or_id: str | Path, name: str, revision: str | None = None) -> dict:
    """A json file of a tokenizer, of an id on the hub among what was fetched; {} where there is none. UserError: unreadable."""
    place = Path(path_or_id) / name
    if not Path(path_or_id).exists():
        from huggingface_hub import try_to_load_from_cache  # here: most tokenizers are folders

        cached = try_to_load_from_cache(str(path_or_id), name, revision=revision)
        place = Path(cached) if isinstance(cached, str) else place
    if not place.is_file():
        return {}
    try:
        found = json_text.loads(place.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{place}: not readable json: {error}; fetch it again") from None
    return found if isinstance(found, dict) else {}


def settle(tokens: Iterable[str], said: Letters, file: str = SETTINGS) -> tuple[Letters, list[str]]:
    """How letters are to be treated, and lines for a person: what was read off the vocabulary, and where it contradicts.

    What is said is done, also where tokens are never used then: some networks were trained so, on vocabularies made with
    accents by code that took accents off. But whole Hangul syllables stay whole where the vocabulary could not write them
    otherwise: taken apart each is [UNK], which no network can have been meant to read. ``file`` is where it is to be said.
    """
    words = [token.removeprefix("##") for token in tokens if not (token.startswith("[") and token.endswith("]"))]
    single = {word for word in words if len(word) == 1}
    capitals, accents = _lost(words, single, str.lower), _lost(words, single, without_accents)
    hangul = {word: without_accents(word) for word in words if _HANGUL.search(word)}
    letters, lines = said, []
    if said.lowercase is None:
        lowercase = not capitals
        strips = (lowercase and not accents) if said.strip_accents is None else said.strip_accents
        letters = Letters(lowercase, None if strips == lowercase else strips)
        lines.append(
            "its files do not say what happens to capitals and accents; its vocabulary shows that capitals "
            f"{'become small letters' if lowercase else 'are kept'} and accents are {'taken off' if strips else 'kept'}"
        )
    if letters.strips and not all(_can_write(single, *both) for both in hangul.items()):
        option = "do_lower_case" if said.strip_accents is None else "strip_accents"
        letters = Letters(letters.lowercase, False if letters.lowercase else None)
        lines.append(
            f'warning: "{option}": true takes accents off, and Hangul syllables apart with them, but {len(hangul):,} tokens of '
            f'the vocabulary have whole ones: these stay whole, accents are kept; write "strip_accents": false into its {file}'
        )
    for happens, number, kind, option in (
        ("capitals become small letters", letters.lowercase and capitals, "capitals", "do_lower_case"),
        ("accents are taken off", letters.strips and accents, "accents", "strip_accents"),
    ):
        if number:
            lines.append(
                f"warning: {happens}, as its {file} says, but {number:,} tokens of the vocabulary have {kind} and are never "
                f'used then; if its networks were trained with {kind}, write "{option}": false there'
            )
    if not letters.lowercase and not capitals and single >= _SMALL:
        lines.append(
            f"warning: capitals are kept, as its {file} says, but no token of the vocabulary has one, so that words with "
            'capitals become [UNK]; if its networks were trained without, write "do_lower_case": true there'
        )
    return letters, lines


def _lost(words: Iterable[str], single: set[str], change: Callable[[str], str]) -> int:
    """How many words a change of letters makes useless; 0 unless the vocabulary was made without it.

    It was where a single letter changes, or a word into letters that it lacks. Other words that change were put in by hand.
    """
    changed = [(word, new) for word in words if (new := change(word)) != word]
    made_without = any(len(word) == 1 or not _can_write(single, word, new) for word, new in changed)
    return len(changed) if made_without else 0


def _can_write(single: set[str], word: str, new: str) -> bool:
    """Whether a vocabulary with these single letters has those of ``new`` that are not in ``word``."""
    return single.issuperset(set(new) - set(word))


def without_accents(word: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", word) if unicodedata.category(c) != "Mn")
