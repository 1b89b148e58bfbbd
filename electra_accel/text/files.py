"""Opens text files, plain or compressed. A file that cannot be read is named with the line at fault and the remedy."""

import codecs
import gzip
import lzma
import os
import shlex
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from electra_accel.errors import UserError

_OPENERS = {".gz": gzip.open, ".xz": lzma.open}
_HEAD = 4096  # bytes at the start of a file that tell what it is
_MARKS = {  # utf-32 first: its mark begins with that of utf-16
    **dict.fromkeys((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "utf-32"),
    **dict.fromkeys((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-16"),
}
_BINARY = {  # how files begin that hold no text, whatever their name says
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
# Share of zero bytes: in UTF-16, 0 of a Hangul syllable's two bytes, 1 of an ASCII character's.
_FEW, _MANY = 0.02, 0.25


def suffix_of(path: Path) -> str:
    """The suffix in small letters, without that of a compression: ".csv" of a.CSV.gz; "" where there is none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return "".join(suffixes[-2:-1] if path.suffix.lower() in _OPENERS else suffixes[-1:])


def regular_file(path: Path) -> os.stat_result:
    """The status of a regular file with something in it; UserError for a folder, pipe, socket or device, or an empty file."""
    with file_errors(path):
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} is a pipe, a socket or a device; text is read more than once: save it in a file")
    if not found.st_size:
        raise UserError(f"{path} is empty")
    return found


def open_bytes(path: Path) -> IO[bytes]:
    """The decompressed bytes of ``path``."""
    return _OPENERS.get(path.suffix.lower(), open)(path, "rb")


def decompressed_bytes(path: Path) -> int:
    """Size of the file's text in bytes; of a compressed file an estimate, by the ratio in its first 4 MiB of text."""
    size, opener = regular_file(path).st_size, _OPENERS.get(path.suffix.lower())
    if opener is None:
        return size
    with file_errors(path), open(path, "rb") as compressed:
        return len(opener(compressed).read(4 << 20)) * size // max(1, compressed.tell())


def require_content(path: Path, is_text: bool) -> None:
    """Raises UserError unless a file has something in it, where ``is_text`` in UTF-8: UTF-16 and UTF-32 may pass for it."""
    with file_errors(path), open_bytes(path) as file:
        head = file.read(_HEAD)
    if not head:
        raise UserError(f"{path} is empty")
    if not is_text:
        return
    if kind := next((kind for mark, kind in _BINARY.items() if head.startswith(mark)), ""):
        raise UserError(f"{path} is {kind}, no text; save its text as UTF-8 (in Excel: CSV UTF-8)")
    if encoding := wide_encoding(head):
        raise UserError(
            f"{path}: {encoding.upper()}, not UTF-8; save it as UTF-8 (in Excel: CSV UTF-8), or convert it by "
            f"`iconv -f {encoding} -t utf-8`"
        )


def wide_encoding(head: bytes) -> str:
    """utf-16, utf-32 or one of their kinds, as iconv calls them, if a text that begins so is in it; "" if not.

    Excel's "Unicode text" has a mark; other programs leave it out, and English in UTF-16 is then valid UTF-8, full of zeros.
    """
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # which may end within a character
        allowed = _MANY
    except UnicodeDecodeError:
        allowed = _FEW
    zeros = head.count(0)
    if zeros <= allowed * len(head):
        return ""
    order = "le" if head[1::2].count(0) >= head[::2].count(0) else "be"
    return f"utf-{32 if 2 * zeros > len(head) else 16}{order}"


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Whatever reading ``path`` raises becomes a UserError that names the file and, where it can be told, the line."""
    try:
        yield
    except FileNotFoundError:
        target = f": a link to {os.readlink(path)}, which is not there" if os.path.islink(path) else ": no such file"
        raise UserError(f"{path}{target}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name its files, for example {shlex.quote(f'{path}/*.txt')}") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read it") from None
    except UnicodeDecodeError:
        raise UserError(
            f"{path}, line {_undecodable_line(path)}: not UTF-8; convert the file, for example a Korean Windows file by "
            "`iconv -f cp949 -t utf-8`"
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path}: damaged or cut-off compressed file ({error}); fetch or compress it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def _undecodable_line(path: Path) -> int:
    with open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    raise UserError(f"{path} was changed while it was read; start again when it is at rest")
