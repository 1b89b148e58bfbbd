"""One way to write texts, and names of things: two programs may write one word in two ways that look alike."""

import re
import unicodedata

# No letter and not seen: control characters, and Unicode's Default_Ignorable_Code_Point (soft hyphen, marks of direction,
# zero-width space, byte order mark, Hangul fillers, variation selectors, …) but for joiners and the tags of flags.
_UNSEEN = (
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0001\U000e0100-\U000e01ef]"
)
# The two joiners say how letters of Persian or of Indic scripts, and emoji, are drawn; beside these characters they do nothing:
_UNJOINED = r"\s\0-\u024f\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff"
_NAME_NOISE = re.compile(rf"{_UNSEEN}|(?<![^{_UNJOINED}])[\u200c\u200d]|[\u200c\u200d](?![^{_UNJOINED}])")


def normalise(text: str) -> str:
    """Composed Unicode (NFC): macOS writes Hangul as single letters, which hardly a vocabulary holds."""
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def normalise_name(name: str) -> str:
    """For labels, tags, columns and whatever else has a name: composed, without characters that are not seen or blanks around.

    What looks alike is then equal; capitals and small letters, which a reader can tell, stay as they are.
    """
    return (
        name
        if name.isascii() and name.isprintable() and name == name.strip()
        else normalise(_NAME_NOISE.sub("", name)).strip()
    )
