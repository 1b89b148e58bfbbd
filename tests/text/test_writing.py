"""Names that look alike are equal, and letters that are seen stay."""

import unicodedata

import pytest

from electra_accel.text.writing import normalise_name

NOISY = {
    "decomposed": (unicodedata.normalize("NFD", "긍정"), "긍정"),
    "zero-width space and byte order mark": ("\ufeff긍\u200b정", "긍정"),
    "marks of direction, soft hyphen": ("\u200epo\u00adsitive\u202c", "positive"),
    "blanks around": ("\u3000 긍정\u00a0\t", "긍정"),
    "Hangul filler": ("긍정\u3164", "긍정"),
    "variation selectors, fillers of letters, control characters": ("\u2764\ufe0f\u115f\u1160\0\x7f", "\u2764"),
    "a control character among ASCII": ("pos\x08itive", "positive"),
    "joiners between syllables": ("긍\u200d\u200c정", "긍정"),
    "joiners at the ends": ("\u200d부정\u200c", "부정"),
    "letters that a zero-width space keeps apart": ("\u1100\u200b\u1161", "가"),
    "nothing that is seen": (" \u200b\u200d ", ""),
}
KEPT = [
    "Positive",
    "two  blanks",
    "می\u200cخواهم",
    "क्\u200dष",
    "👨\u200d👩\u200d👧",
    "🏴\U000e0067\U000e007f",
    "B-LOC",
    "#1 String",
    "中文",
]


@pytest.mark.parametrize("what", NOISY)
def test_one_way_of_writing(what):
    given, wanted = NOISY[what]
    assert normalise_name(given) == wanted
    assert normalise_name(wanted) == wanted


@pytest.mark.parametrize("name", KEPT, ids=ascii)
def test_what_is_seen_stays(name):
    """Joiners that decide how a word or an emoji looks among it, and what tells the flags of Scotland and Wales apart."""
    assert normalise_name(name) == name
