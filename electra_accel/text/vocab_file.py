"""A vocab.txt: WordPiece tokens, one a line."""

import re
from codecs import BOM_UTF8
from pathlib import Path

from electra_accel.errors import UserError


def read_vocab(path: Path) -> list[str]:
    """The tokens of a vocab.txt; the id of a token is the number of its line, from 0. Blank lines at its end are no tokens."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a vocabulary: not UTF-8; save it as UTF-8 (option tokenizer.path)") from None
    # Not splitlines: a token can be a line break of another kind.
    lines = re.split("\r?\n" if "\n" in text else "\r", text)
    while lines and not lines[-1].strip(" \t"):
        lines.pop()
    first: dict[str, int] = {}
    for number, token in enumerate(lines, start=1):
        if first.setdefault(token, number) < number:
            raise UserError(
                f"{path}, line {number}: {token!r} stands in line {first[token]} already, so it would have two ids; rename "
                f"the one in line {first[token]}, for example to [unused1] (option tokenizer.path)"
            )
    return lines


def is_mended(path: Path, tokens: list[str]) -> bool:
    """Whether ``tokens``, as :func:`read_vocab` gave them, are not what the library reads: the file's lines without blanks at
    their ends, those of the same content as one."""
    content = path.read_bytes()
    if content.startswith(BOM_UTF8) or content.count(b"\n") > len(tokens) or b"\n" not in content:
        return True
    return len({token.rstrip() for token in tokens}) < len(tokens)  # two tokens that are blanks of a kind
