"""What to read: files, a data set of the Hugging Face hub, or the built-in corpus -> batches of documents."""

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from electra_accel.errors import UserError
from electra_accel.text import python_docs
from electra_accel.text.columns import column_index
from electra_accel.text.files import file_errors, regular_file
from electra_accel.text.readers import READERS, format_of, placed_texts

_BATCH_DOCUMENTS = 1000
_BATCH_CHARACTERS = 1 << 20
_WHOLE = 16 << 20  # bytes; smaller files are fingerprinted whole


@dataclass(frozen=True)
class Corpus:
    """Where documents come from: files or a data set, never both."""

    files: tuple[str, ...] = ()  # paths or globs (``**`` too) of what readers.py reads
    dataset: str | None = None  # ``python_docs``, or ``NAME[:CONFIG[:SPLIT]]`` on the hub (split train if not given)
    text_column: str = "text"  # or field; not used for txt and the built-in corpus

    @property
    def split_by_source(self) -> bool:
        """Whether whole sources are held out: the docstrings of one file repeat each other, so they stay on one side."""
        return self.dataset == "python_docs"


class Batch(NamedTuple):
    source: str  # file or data set
    documents: list[str]  # may hold empty strings: cells without text


def resolve(corpus: Corpus) -> list[Path]:
    """The files of a corpus, globs expanded and sorted, each once, however it is written and linked to; [] for a data set.

    UserError: one is not there or cannot be read, or a glob matches nothing; files and a data set.
    """
    if bool(corpus.files) == bool(corpus.dataset):
        raise UserError("name the text to read: either files (data.train_files) or a data set (data.dataset), not both")
    paths: dict[str, Path] = {}
    for pattern in corpus.files:
        matches = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not matches:
            above = filter(os.path.isdir, Path(pattern).parents)
            closed = next((folder for folder in above if not os.access(folder, os.R_OK | os.X_OK)), None)
            why = f"no permission to look into {closed}" if closed else "no such file, and no file that matches it"
            raise UserError(f"{pattern}: {why}")
        for match in matches:
            paths.setdefault(os.path.realpath(match), Path(match))
    for path in paths.values():
        regular_file(path)
        format_of(path)
    return list(paths.values())


def read_documents(corpus: Corpus, join_lines: bool = False) -> Iterator[Batch]:
    """All documents in a fixed order, in batches of one source, at most 1,000 documents or about a million characters.

    ``join_lines`` as of ``readers.placed_texts``. Memory does not grow with the corpus.
    """
    if corpus.dataset == "python_docs":
        yield from map(Batch._make, _harvested())
    elif corpus.dataset:
        yield from _batches(corpus.dataset, _hub_texts(corpus.dataset, corpus.text_column))
    else:
        for path in resolve(corpus):
            texts = (text for _, text in placed_texts(path, corpus.text_column, join_lines))
            yield from _batches(str(path), texts)


@cache
def _harvested() -> list[tuple[str, list[str]]]:
    """Kept in memory (some 10 MB): the corpus is read several times, and harvesting takes 15 seconds."""
    return list(python_docs.harvest())


def _batches(source: str, texts: Iterable[str]) -> Iterator[Batch]:
    documents, size = [], 0
    for text in texts:
        documents.append(text)
        size += len(text)
        if len(documents) >= _BATCH_DOCUMENTS or size >= _BATCH_CHARACTERS:
            yield Batch(source, documents)
            documents, size = [], 0
    if documents:
        yield Batch(source, documents)


def _hub_texts(dataset: str, column: str) -> Iterator[str]:
    """Streams one split of a data set on the hub: nothing but its metadata is stored on this machine."""
    import datasets  # here: it takes a second to import, and only this function needs it
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    name, config, split = (*dataset.split(":"), "", "")[:3]
    try:
        HfApi().dataset_info(name, timeout=10)  # answers at once where load_dataset would retry for half a minute
    except RepositoryNotFoundError:
        raise UserError(f"{dataset}: no such data set on the hub, or it is private and you are not logged in") from None
    except Exception as error:  # the client lets through what its HTTP library raises, and changes that library
        raise UserError(
            f"{dataset}: the Hugging Face hub cannot be reached ({_first_line(error)}); "
            "connect, or download the data set and name its files in data.train_files"
        ) from None
    try:
        stream = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
    except (OSError, ValueError) as error:  # unknown config or split: the message lists those that exist
        raise UserError(f"{dataset}: {_first_line(error)}") from None
    for record in stream:
        names = tuple(record)
        text = record[names[column_index(dataset, column, names)]]
        if not isinstance(text, str | None):
            raise UserError(f"{dataset}: column {column!r} holds {type(text).__name__}, not text")
        yield text or ""


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def content_key(corpus: Corpus) -> str:
    """Hexadecimal digest of what the corpus will yield, without reading all of it.

    Files up to 16 MiB count by all of their bytes; larger ones by size, modification time and their first and last MiB. Names
    do not count, the order of the files does. The built-in corpus counts by the versions of what is harvested. A
    data set on the hub counts by its name alone, so that a machine without network finds what was prepared before.
    """
    name = python_docs.content_key() if corpus.dataset == "python_docs" else corpus.dataset or ""
    digest = hashlib.blake2b(name.encode(), digest_size=16)
    for path in resolve(corpus):
        status = regular_file(path)
        digest.update(f"{format_of(path)} {status.st_size} ".encode())
        with file_errors(path), open(path, "rb") as file:
            if status.st_size <= _WHOLE:
                digest.update(file.read())
            else:
                digest.update(str(status.st_mtime_ns).encode() + file.read(1 << 20))
                file.seek(-(1 << 20), os.SEEK_END)
                digest.update(file.read())
    return digest.hexdigest()


def text_bytes(corpus: Corpus) -> int:
    """Estimated size of the decompressed files in bytes; 0 for data sets (unknown, or small)."""
    return sum(READERS[format_of(path)].text_bytes(path) for path in resolve(corpus))


def versions(corpus: Corpus) -> dict[Path, tuple[int, int]]:
    """Size in bytes and time of modification in nanoseconds of each file: another value is another content."""
    return {path: (found.st_size, found.st_mtime_ns) for path in resolve(corpus) for found in [regular_file(path)]}
