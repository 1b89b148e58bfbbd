"""Which tokens of a text look replaced, and what should stand there? At each [MASK], what does the generator think stood there?

    python scripts/detect.py --run runs/my-text "The chef ate the meal." "The chef [MASK] the meal."
    python scripts/detect.py --run runs/reviews --file new.txt --html detect.html
    echo "The chef ate the meal." | python scripts/detect.py --discriminator google/electra-small-discriminator --json

Texts are arguments, else those of --file (txt: a text a line; csv, tsv, json, jsonl, parquet too), else lines of standard
input. Texts with nothing to read in them are left out and named at the end. The discriminator reads the generator's most
probable token at each [MASK]. Needs an exported pair, as a finished run has it; stock transformers load it. What should stand
in place of a token called replaced is told where a corrector/ is beside discriminator/ (objective.corrective_weight).
Write -- before a text that begins with -.
"""

import argparse
import json
import sys
from pathlib import Path

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError, writing
from electra_accel.runs.run_folder import require_file
from electra_accel.terminal import quiet_libraries

MOST_PLACES = 10  # of texts with nothing to read in them that are named


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a text; [MASK] in it asks the generator")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="a finished run: the networks in it")
    parser.add_argument("--discriminator", metavar="PATH", help="instead of --run: folder or hub id")
    parser.add_argument("--generator", metavar="PATH", help="the same, only for texts with [MASK]")
    # A folder has its corrector beside it; on the hub each network is a repository of its own.
    parser.add_argument(
        "--corrector", metavar="PATH", help="the same [corrector/ beside the folder of --discriminator]"
    )
    parser.add_argument("--file", metavar="FILE", help="texts to read")
    parser.add_argument("--text_column", metavar="NAME", default="text", help="of --file, not for txt [text]")
    parser.add_argument("--top_k", type=int, metavar="N", default=5, help="candidates at each [MASK] [5]")
    parser.add_argument("--json", action="store_true", help="one JSON object a text on standard output")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page")
    asked = parser.parse_intermixed_args(arguments)
    if bool(asked.run) == bool(asked.discriminator):
        parser.error("give either --run or --discriminator")
    for role in ("generator", "corrector"):
        if asked.run and getattr(asked, role):
            parser.error(f"--{role} goes with --discriminator; a run has its own {role}")
    if asked.texts and asked.file:
        parser.error("give either texts or --file")
    if asked.top_k < 1:
        parser.error(f"--top_k must be at least 1, not {asked.top_k}")
    if asked.html:
        require_file(asked.html, "--html")
    return asked


def main() -> None:
    asked = parse(sys.argv[1:])
    quiet_libraries()

    # Imported only now, so that --help and mistakes are answered at once.
    from rich.console import Console
    from transformers import logging

    from electra_accel.reports import detect_views
    from electra_accel.reports.detect import Detector
    from electra_accel.reports.detect_inputs import exported_networks, placed
    from electra_accel.runs.export import corrector_beside

    logging.set_verbosity_error()
    if asked.run:
        detector = Detector(*exported_networks(asked.run), asked=False)
    else:
        corrector = asked.corrector or corrector_beside(asked.discriminator)
        detector = Detector(asked.discriminator, asked.generator, corrector, asked=asked.corrector is not None)
    for note in detector.notes:
        print(note, file=sys.stderr)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    readings, left_out, number = [], [], 0
    for place, text in placed(asked.texts, asked.file, asked.text_column):
        reading = detector.read(text, asked.top_k)
        if reading is None:
            left_out.append(place)
            continue
        number += 1
        if asked.html:
            readings.append(reading)
        if asked.json:
            # As it is, and `… | head` is no error.
            console.out(json.dumps(reading.record(), ensure_ascii=not console.encoding.startswith("utf")))
            continue
        if number == 1:
            legend = detect_views.LEGEND + detect_views.CORRECTED_LEGEND * (detector.corrector is not None)
            console.print(legend, style="dim")
        console.print(f"\ntext {number}: {detect_views.summary(reading)}")
        for line in detect_views.terminal_lines(reading, console.width):
            console.print(line)
    if not number:
        why = f" with letters in it ({left_out[-1]}: {text!r})" if left_out else ""
        raise UserError(f"no text{why}: give one in quotes, with --file, or on standard input")
    if left_out:
        places = "; ".join(left_out[:MOST_PLACES]) + "; …" * (len(left_out) > MOST_PLACES)
        print(f"note: nothing to read in {len(left_out)} of {number + len(left_out)} texts: {places}", file=sys.stderr)
    if asked.html:
        with writing("--html", asked.html):
            asked.html.write_text(detect_views.html(readings), encoding="utf-8")
        print(f"page: {asked.html}", file=sys.stderr)
    for line in detector.told():
        print(line, file=sys.stderr)


if __name__ == "__main__":
    exit_with_one_line(main)
