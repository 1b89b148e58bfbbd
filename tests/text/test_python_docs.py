"""The built-in corpus: what counts as prose, and that a harvest is large, quick, repeatable and free of markup."""

import pytest

from electra_accel.text import python_docs

PACKAGES = ("numpy", "click")

DOCSTRING = """
Apply a 2D convolution over an input signal composed of several planes.

See :class:`~torch.nn.Conv2d` for details; it is the *same* as ``conv2d`` of the `page <https://x.y>`_ that everybody reads.

.. note:: The result may depend on the device
    on which it was computed.

.. code-block:: python

    result = conv2d(some, thing)  # This is code. It must not be kept here.

An example follows and shows the way in which it is called::

    This indented sentence is code to the reader of the page.

Parameters
----------
x : array_like, optional
    The input that is going to be convolved.
size (int, optional): The number of rows that the kernel has.

>>> conv2d(1)
The output of an example is not prose either.

Returns:
    Tensor: The tensor that holds the result of it all.

Too short.
| a | table of | numbers and signs | is | no | prose | 1 | 2 |.
"""


def test_prose_is_kept_and_the_rest_is_dropped():
    assert python_docs.paragraphs(DOCSTRING) == [
        "Apply a 2D convolution over an input signal composed of several planes.",
        "See torch.nn.Conv2d for details; it is the same as conv2d of the page that everybody reads.",
        "The result may depend on the device on which it was computed.",
        "An example follows and shows the way in which it is called:",
        "The input that is going to be convolved.",
        "The number of rows that the kernel has.",
        "The tensor that holds the result of it all.",
    ]


@pytest.fixture(scope="module")
def harvest() -> list[tuple[str, list[str]]]:
    """Standard library and two packages; the whole corpus takes about 15 seconds."""
    return list(python_docs.harvest(PACKAGES))


def test_a_harvest_is_prose_without_repeated_paragraphs(harvest):
    documents = [document for _, texts in harvest for document in texts]
    assert sum(map(len, documents)) > 1.5e6
    paragraphs = [paragraph.casefold() for document in documents for paragraph in document.split("\n") if paragraph]
    assert len(set(paragraphs)) == len(paragraphs)
    text = "\n".join(documents)
    assert sum(text.count(markup) for markup in (">>>", "```", ":class:", "::\n", "`", "<http")) < 5
    letters = sum(map(str.isalpha, text[:1_000_000])) + text[:1_000_000].count(" ")
    assert letters > 0.94 * 1_000_000
    unparsed = sum(texts == [""] for _, texts in harvest)
    assert unparsed <= 5


def test_sources_are_distinct_and_in_a_fixed_order(harvest):
    sources = [source for source, _ in harvest]
    assert len(set(sources)) == len(sources)
    assert "numpy/linalg/_linalg.py" in sources
    assert list(dict.fromkeys(source.split("/")[0] for source in sources)) == ["python", *PACKAGES]
    assert not [source for source in sources if "/tests/" in source or "site-packages" in source]
