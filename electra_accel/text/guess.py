"""What a file of text is where it is not what it should be: for the line that says how to mend it."""

import codecs
import re

HEAD = 4096  # bytes of a file that tell
_MARKS = {  # utf-32 first: its mark begins with that of utf-16
    **dict.fromkeys((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "utf-32"),
    **dict.fromkeys((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-16"),
}
# How files begin that hold no text, whatever their name says.
_BINARY = {
    b"PK\x03\x04": "a zip archive, as .xlsx is",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"%PDF": "a PDF",
    b"PAR1": "a parquet file",
    b"SQLite format 3": "a database",
    b"\x1f\x8b": "compressed by gzip",
    b"\xfd7zXZ": "compressed by xz",
    b"BZh91AY&SY": "compressed by bzip2",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
}
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "the sign |"}
# Share of zero bytes: in UTF-16, 0 of a Hangul syllable's two bytes, 1 of an ASCII character's.
_FEW, _MANY = 0.02, 0.25


def wide_encoding(head: bytes) -> str:
    """utf-16, utf-32 or one of their kinds, as iconv calls them, if a text that begins so is in it; "" if not.

    Excel's "Unicode text" has a mark; other programs leave it out, and English in UTF-16 is then valid UTF-8, full of zeros.
    """
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    zeros = head.count(0)
    if zeros <= (_MANY if _is_utf8(head) else _FEW) * len(head):
        return ""
    order = "le" if head[1::2].count(0) >= head[::2].count(0) else "be"
    return f"utf-{32 if 2 * zeros > len(head) else 16}{order}"


def binary_kind(head: bytes) -> str:
    """What a file is that begins so and is no text, in words; "" where that cannot be told."""
    return next((kind for mark, kind in _BINARY.items() if head.startswith(mark)), "")


def _is_utf8(head: bytes) -> bool:
    """Whether these bytes, which may end within a character, are UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
        return True
    except UnicodeDecodeError:
        return False


def separator(line: str) -> str:
    """The sign that separates the cells of a table's first line, in words; "" where there is none."""
    outside = re.sub('"[^"]*"', "", line)  # of quotes
    found = max(_SEPARATORS, key=outside.count)
    return _SEPARATORS[found] if found in outside else ""
