"""Which new tokens would save the most tokens on a corpus."""

import heapq
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate

from transformers import PreTrainedTokenizerFast

from electra_accel.text.wordpiece import WordPiece, never_used

_MIN_COUNT = 2  # rarer words, three quarters of the distinct ones, suggest no tokens: for memory
_MAX_PIECES = 8  # of a candidate, for memory; longer tokens come about in steps: a chosen one is a piece from then on
_GAP = "\0"  # between words that are searched as one string


def learn(words: Counter[str], tokenizer: PreTrainedTokenizerFast, number: int) -> list[str]:
    """The tokens that save the most tokens on the words, each chosen with those before it in place (greedy).

    A candidate is a run of adjacent pieces inside a word; it becomes a "##" token unless the run begins the word. Its gain
    is exact: all words that it would change are cut anew. Candidates wait in a heap by an upper bound of their gain: the
    last one computed, or what their runs would save if that is less. (Where a token ends inside a present piece it may
    save a little more; that is neglected.) The top one is chosen if its gain is still true (lazy greedy, Minoux 1978), of
    equal ones the token that sorts first. No token is chosen that would make one of the words [UNK].

    Words that occur once give no candidates and count for no gain. Fewer tokens than ``number`` come back where no other
    would save anything.
    """
    wordpiece = WordPiece(tokenizer)
    known = [word for word in sorted(words) if wordpiece.ends(word)]
    frequent = _Words(word for word in known if words[word] >= _MIN_COUNT)
    rare = _Words(word for word in known if words[word] < _MIN_COUNT)
    ends = [wordpiece.ends(word) for word in frequent.words]

    bounds: Counter[str] = Counter()  # what each candidate would save if all its runs became one piece
    for word, cuts in zip(frequent.words, ends, strict=True):
        bounds.update(_runs(word, cuts, words[word], wordpiece.prefix))
    heap = [(-bound, token) for token, bound in bounds.items()]
    heapq.heapify(heap)
    gains: dict[str, int] = {}  # exact when it was computed
    changes: dict[str, dict[int, list[int]]] = {}  # of the gains computed since the last choice

    chosen: list[str] = []
    while heap and len(chosen) < number:
        negated, token = heapq.heappop(heap)
        gain = min(bounds[token], gains.get(token, bounds[token]))
        if token in wordpiece or gain <= 0 or gain > -negated:  # in the last case it stood further up too
            continue
        if gain < -negated:  # it was put there before other choices took some of it
            heapq.heappush(heap, (-gain, token))
        elif token not in changes:
            wordpiece.add(token)
            changes[token] = _changes(token, frequent, ends, wordpiece)
            wordpiece.remove(token)
            gains[token] = sum(
                words[frequent.words[index]] * (len(ends[index]) - len(cuts)) for index, cuts in changes[token].items()
            )
            heapq.heappush(heap, (-gains[token], token))
        else:
            wordpiece.add(token)
            places = rare.places(token, wordpiece.prefix)
            if never_used(token, tokenizer) or any(wordpiece.ends(rare.words[index]) is None for index, _ in places):
                wordpiece.remove(token)
                gains[token] = 0
                continue
            chosen.append(token)
            difference: Counter[str] = Counter()
            for index, cuts in changes[token].items():
                word = frequent.words[index]
                difference.subtract(_runs(word, ends[index], words[word], wordpiece.prefix))
                difference.update(_runs(word, cuts, words[word], wordpiece.prefix))
                ends[index] = cuts
            changes.clear()
            bounds.update(difference)
            for other, more in difference.items():
                if more > 0:  # new runs: its gain may be greater than it was
                    gains.pop(other, None)
                    heapq.heappush(heap, (-bounds[other], other))
    return chosen


class _Words:
    """Words in one long string: those that hold a token are found by a text search."""

    def __init__(self, words: Iterable[str]):
        self.words = list(words)
        self._text = _GAP + "".join(word + _GAP for word in self.words)
        self._starts = list(accumulate((len(word) + 1 for word in self.words), initial=1))

    def places(self, token: str, prefix: str) -> Iterator[tuple[int, int]]:
        """(index of a word, where in it the token's characters stand); of "##…" not at 0, of others only there."""
        at_start = not token.startswith(prefix)
        wanted, position = _GAP + token if at_start else token.removeprefix(prefix), -1
        while (position := self._text.find(wanted, position + 1)) >= 0:
            index = bisect_right(self._starts, position + at_start) - 1
            start = position + at_start - self._starts[index]
            if at_start or start > 0:
                yield index, start


def _runs(word: str, ends: list[int], count: int, prefix: str) -> Counter[str]:
    """The candidates in a word that occurs ``count`` times, and what each would save in it."""
    runs: Counter[str] = Counter()
    starts = [0, *ends]
    for first, start in enumerate(starts[:-2]):
        mark = prefix if start else ""
        for saved, end in enumerate(ends[first + 1 : first + _MAX_PIECES], start=1):
            runs[mark + word[start:end]] += saved * count
    return runs


def _changes(token: str, words: _Words, ends: list[list[int]], wordpiece: WordPiece) -> dict[int, list[int]]:
    """The new ends of the pieces of the words that ``token`` changes; none at all if it makes one of them [UNK].

    A word is cut from the left, so the first difference is a place where a piece begins that is shorter than the token.
    """
    length = len(token.removeprefix(wordpiece.prefix))
    changes = {}
    for index, start in words.places(token, wordpiece.prefix):
        old = ends[index]
        piece = bisect_right(old, start)
        begins = old[piece - 1] if piece else 0
        if start == begins and old[piece] < start + length and index not in changes:
            new = wordpiece.ends(words.words[index])
            if new is None:
                return {}
            changes[index] = new
    return changes
