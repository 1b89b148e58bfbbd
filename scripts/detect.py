"""Which tokens of a text look replaced? At each [MASK] in it, what does the generator think stood there?

    python scripts/detect.py --run runs/my-text "The chef ate the meal." "The chef [MASK] the meal."
    python scripts/detect.py --run runs/reviews --file new.txt --html detect.html
    echo "The chef ate the meal." | python scripts/detect.py --discriminator google/electra-small-discriminator --json

Texts: as arguments, from --file (txt: a text a line; csv, tsv, json, jsonl, parquet too), else from standard input, a text a
line. The discriminator reads a text with the generator's most probable token at each [MASK]. Needs an exported pair, as a
finished run holds it; it is loaded by stock transformers. Write -- before a text that begins with -.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError
from electra_accel.tracking.terminal import quiet_libraries


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a text; [MASK] in it asks the generator")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="a finished run: its discriminator and generator")
    parser.add_argument("--discriminator", metavar="PATH", help="instead of --run: folder or hub id")
    parser.add_argument("--generator", metavar="PATH", help="the same, only for texts with [MASK]")
    parser.add_argument("--file", metavar="FILE", help="texts to read")
    parser.add_argument("--text_column", metavar="NAME", default="text", help="of --file, not for txt [text]")
    parser.add_argument("--top_k", type=int, metavar="N", default=5, help="candidates at each [MASK] [5]")
    parser.add_argument("--json", action="store_true", help="one JSON object a text on standard output")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page")
    asked = parser.parse_intermixed_args(arguments)
    if bool(asked.run) == bool(asked.discriminator):
        parser.error("give either --run or --discriminator")
    if asked.run and asked.generator:
        parser.error("--generator goes with --discriminator; a run has its own generator")
    if asked.texts and asked.file:
        parser.error("give either texts or --file")
    if asked.top_k < 1:
        parser.error(f"--top_k must be at least 1, not {asked.top_k}")
    return asked


def exported_pair(run: Path) -> tuple[str, str, int | None]:
    """The two folders of a finished run, and the length that it was trained at."""
    from electra_accel import config_parser, run_folder

    if not run.is_dir():
        raise UserError(f"--run {run}: no such folder")
    options = config_parser.load(run / run_folder.CONFIG) if (run / run_folder.CONFIG).exists() else None
    if options and options.is_mlm:
        raise UserError(
            f"--run {run}: one network was trained (objective.kind mlm), there is no discriminator that could read a text"
        )
    folders = [run / name for name in ("discriminator", "generator")]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"--run {run}: no {folder.name}/ in it, which a run writes when it ends; finish it, or export a checkpoint "
                f"(python scripts/export.py {run} --to FOLDER) and name its folders with --discriminator and --generator"
            )
    return *map(str, folders), options and options.data.max_length


def texts(asked: argparse.Namespace) -> Iterator[str]:
    """The texts that were given; blank lines of a file and of standard input are no texts."""
    from electra_accel.data.corpus import Corpus, read_documents

    if asked.texts:
        yield from asked.texts
    elif asked.file:
        batches = read_documents(Corpus(files=(asked.file,), text_column=asked.text_column))
        yield from (text for batch in batches for text in batch.documents if text.strip())
    else:
        if sys.stdin.isatty():
            print("type a text and press Enter; Ctrl-D ends", file=sys.stderr)
        try:
            yield from (line.strip() for line in sys.stdin if line.strip())
        except UnicodeDecodeError:
            raise UserError(
                "standard input is not UTF-8; convert it, for example by `iconv -f cp949 -t utf-8`"
            ) from None


def main() -> None:
    asked = parse(sys.argv[1:])
    quiet_libraries()

    # Imported only now, so that --help and mistakes are answered at once.
    from rich.console import Console
    from transformers import logging

    from electra_accel.tracking import detect_views
    from electra_accel.tracking.detect import Detector

    logging.set_verbosity_error()
    sources = exported_pair(asked.run) if asked.run else (asked.discriminator, asked.generator, None)
    detector = Detector(*sources)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    readings, number = [], 0
    for number, text in enumerate(texts(asked), 1):
        reading = detector.read(text, asked.top_k)
        if asked.html:
            readings.append(reading)
        if asked.json:
            console.out(json.dumps(reading.record(), ensure_ascii=False))  # as it is, and `… | head` is no error
            continue
        if number == 1:
            console.print(detect_views.LEGEND, style="dim")
        console.print(f"\ntext {number}: {detect_views.summary(reading)}")
        for line in detect_views.terminal_lines(reading, console.width):
            console.print(line)
    if not number:
        raise UserError("no text: give one in quotes, with --file, or on standard input")
    if asked.html:
        try:
            asked.html.write_text(detect_views.html(readings), encoding="utf-8")
        except OSError as error:
            raise UserError(f"--html {asked.html} cannot be written: {error.strerror}") from None
        print(f"page: {asked.html}", file=sys.stderr)


if __name__ == "__main__":
    exit_with_one_line(main)
