"""Small made-up texts for the tests of the data path."""

_WORDS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()


def text(number: int, length: int) -> str:
    """A text of ``length`` words and its number, which makes it distinct."""
    return " ".join(_WORDS[(number * 7 + n * n) % 16] for n in range(length)) + f" {number}"


TEXTS = [text(n, 9) for n in range(500)] + ["[MASK] 한글"]
