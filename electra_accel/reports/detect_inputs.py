"""What scripts/detect.py reads: the networks of a run, and texts with their places."""

import codecs
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from electra_accel.errors import UserError
from electra_accel.pretraining import config_parser
from electra_accel.runs import run_folder
from electra_accel.runs.export import corrector_beside
from electra_accel.text.corpus import Corpus, resolve
from electra_accel.text.files import wide_encoding
from electra_accel.text.readers import placed_texts


def exported_networks(run: Path) -> tuple[str, str, str | None, int | None]:
    """The folders of a finished run: discriminator, generator, and corrector where it has one; and the length that it was
    trained at. UserError where there is no pair in it."""
    if not run.is_dir():
        raise UserError(f"--run {run}: no such folder")
    options = config_parser.recorded(run) if (run / run_folder.CONFIG).exists() else None
    if options and options.is_mlm:
        raise UserError(f"--run {run}: one network was trained (objective.kind mlm), there is no discriminator")
    folders = [run / name for name in ("discriminator", "generator")]
    for folder in folders:
        if not folder.is_dir():
            missing = f"no {folder.name}/ in it, which a run writes when it ends"
            command = f"python scripts/export.py {shlex.quote(str(run))} --to FOLDER"
            remedy = f"export a checkpoint ({command}) and name its folders with --discriminator and --generator"
            raise UserError(f"--run {run}: {missing}; finish it, or {remedy}")
    discriminator, generator = map(str, folders)
    return discriminator, generator, corrector_beside(discriminator), options and options.data.max_length


def placed(texts: Sequence[str], file: str | None, text_column: str) -> Iterator[tuple[str, str]]:
    """Texts with their places: those given, else those of a file, else lines of standard input; blank lines are left out."""
    if texts:
        yield from ((f"text {number}", text) for number, text in enumerate(texts, 1))
    elif file:
        for path in resolve(Corpus(files=(file,))):
            for place, text in placed_texts(path, text_column, join_lines=False):
                if text.strip():
                    yield f"{path}, {place}", text
    else:
        if sys.stdin.isatty():
            print("type a text and press Enter; Ctrl-D ends", file=sys.stderr)
        yield from _lines(sys.stdin.buffer, sys.stdin.encoding)


def _lines(stream: BinaryIO, encoding: str) -> Iterator[tuple[str, str]]:
    """The lines of standard input; what should be ASCII may be UTF-8."""
    encoding = codecs.lookup(encoding).name.replace("ascii", "utf-8")
    for number, line in enumerate(stream, 1):
        mark = "\ufeff" if number == 1 else ""  # of Windows programs
        if mark and encoding == "utf-8" and (wide := wide_encoding(line)):
            raise UserError(f"standard input is {wide.upper()}, not UTF-8; convert it by `iconv -f {wide} -t utf-8`")
        try:
            text = line.decode(encoding).removeprefix(mark).strip()
        except UnicodeDecodeError:
            told = f"Python was told to read {encoding}: set PYTHONIOENCODING=utf-8"
            remedy = "convert it, for example by `iconv -f cp949 -t utf-8`" if encoding == "utf-8" else told
            raise UserError(f"standard input, line {number}: not {encoding.upper()}; {remedy}") from None
        if text:
            yield f"line {number}", text
