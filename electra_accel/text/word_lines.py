"""Sentences with a word and its tag in a line, as in the CoNLL shared tasks, and what stands between them.

The word is the first column and the tag the last, tabs or blanks between; a blank line ends a sentence. Where the first column
numbers the words of each sentence, the word is the second; in CoNLL-U (ten columns) the tag is then the fourth (UPOS), and
ranges (1-2) and empty nodes (1.1) are no words.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from electra_accel.errors import UserError
from electra_accel.text.files import open_bytes
from electra_accel.text.writing import normalise_name

DOCUMENT = "-DOCSTART-"  # begins a document in CoNLL-2003
UPOS, CONLL_U_COLUMNS = 3, 10
NO_WORD = re.compile(r"\d+[-.]\d+")  # in place of a word's number


class _Line(NamedTuple):
    number: int
    text: str
    cells: list[str]

    def has_blanks(self) -> bool:
        """Inside a cell, between tabs: no word of a corpus in words has them."""
        return any(" " in cell.strip() for cell in self.cells)


def read_sentences(path: Path, tell: Callable[[str], None]) -> list[tuple[list[str], list[str]]]:
    """The words and the tags of each sentence of a file, in order.

    Args:
        tell: gets a line about what is passed over, and one about columns that are not the first and the last.

    Raises:
        UserError: a word without a tag, or a line that is neither a word nor a comment; names it.
    """
    lines = []
    with open_bytes(path) as file:
        for number, text in enumerate(io.TextIOWrapper(file, "utf-8-sig"), start=1):
            text = text.rstrip("\n")
            lines.append(_Line(number, text, text.split("\t") if "\t" in text else text.split()))
    form = _Form(path, lines)
    is_conll_u = form.numbered and form.columns == {CONLL_U_COLUMNS}
    word_column, tag_column = int(form.numbered), UPOS if is_conll_u else -1
    passed_over: Counter[str] = Counter()
    found = []
    for sentence in _sentences(lines, form.is_comment, passed_over):
        words, tags = [], []
        for number, text, cells in sentence:
            if form.numbered and NO_WORD.fullmatch(cells[0]):
                passed_over["ranges and empty nodes"] += 1
                continue
            where, shown = f"{path}, line {number}", repr(text.strip()[:40])
            if form.tabs and "\t" not in text:
                raise UserError(
                    f"{where}: no tab in {shown}, where other lines have one (a line before a sentence that is none of its "
                    "words begins with #)"
                )
            if len(cells) < 2 + form.numbered or not (tag := normalise_name(cells[tag_column])):
                raise UserError(f"{where}: no tag behind the word {shown}")
            words.append(cells[word_column])
            tags.append(tag)
        if words:
            found.append((words, tags))
    if form.numbered:
        which = "the fourth (UPOS)" if is_conll_u else "the last"
        tell(
            f"{path.name}: the first column numbers the words; they are taken from the second, their tags from {which}"
        )
    if passed_over:
        tell(f"{path.name}: passed over {', '.join(f'{count:,} {kind}' for kind, count in passed_over.items())}")
    return found


def _sentences(
    lines: list[_Line], is_comment: Callable[[_Line, bool], bool], passed_over: Counter[str]
) -> Iterator[list[_Line]]:
    """Args: is_comment: of a line that begins with #, and whether it would be the first of a sentence; passed_over: counts."""
    sentence: list[_Line] = []
    for line in lines:
        if line.text.startswith(DOCUMENT):
            passed_over[f"{DOCUMENT} lines"] += 1
        elif line.text.startswith("#") and is_comment(line, not sentence):
            passed_over["comment lines"] += 1
        elif line.text.strip():
            sentence.append(line)
            continue
        if sentence:
            yield sentence
        sentence = []
    if sentence:
        yield sentence


class _Form:
    """What the lines that surely hold a word have in common; a line that begins with # before a sentence is not sure."""

    def __init__(self, path: Path, lines: list[_Line]):
        sure = list(_sentences(lines, lambda line, first: first or line.has_blanks(), Counter()))
        words = [line for sentence in sure for line in sentence]
        self.path = path
        self.columns = {len(line.cells) for line in words}
        self.tabs = 2 * sum("\t" in line.text for line in words) > len(words)  # in most, so in all
        self.tags = {line.cells[-1] for line in words}
        self.tags_of_all = Counter(line.cells[-1] for line in lines if line.cells)
        # The first column counts the words of every sentence, from 1 or from 0; not where "1" is all the words that there are.
        self.numbered = all(map(_is_numbered, sure)) and any(len(sentence) > 1 for sentence in sure)

    def is_comment(self, line: _Line, first: bool) -> bool:
        """Whether a line that begins with # is none of a word: "#" is one too, and so is "##".

        Args:
            first: it would be the first line of a sentence, which is where comments stand.

        Raises:
            UserError: it could be both.
        """
        tag = line.cells[-1]
        if self.numbered or line.has_blanks():
            return True
        if len(line.cells) not in self.columns | {2} or (self.tabs and "\t" not in line.text):
            return True
        if not first or tag in self.tags:
            return False
        if not line.cells[0].strip("#"):
            return True
        if self.tags_of_all[tag] > 1:  # a hashtag
            return False
        raise UserError(
            f"{self.path}, line {line.number}: {line.text.strip()[:40]!r} is a word, or a comment: no other line has the tag "
            f"{tag[:40]!r}; write a blank behind the # of a comment, or take the line out"
        )


def _is_numbered(sentence: list[_Line]) -> bool:
    numbers = [line.cells[0] for line in sentence if not NO_WORD.fullmatch(line.cells[0])]
    first = int(numbers[:1] == ["1"])
    counted = numbers == [str(first + i) for i in range(len(numbers))]
    return counted and min(len(line.cells) for line in sentence) >= 3
