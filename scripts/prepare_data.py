"""Text -> a folder of tokens that pretrain.py reads; it does this by itself too, this does it beforehand.

    python scripts/prepare_data.py --train_files "books/*.csv" --text_column sen --tokenizer google/electra-base-discriminator
    python scripts/prepare_data.py --train_files reviews.csv.xz --text_column sen --train_vocab_size 8000
    python scripts/prepare_data.py --dataset python_docs --train_vocab_size 4000

Files: txt, csv, tsv, json, jsonl, parquet, each also as .gz or .xz; UTF-8. In txt every line is a document; with --join_lines
blank lines separate documents. A json file that is one array is read into memory whole: use jsonl for large text. A second
call with the same content and settings finds the folder and is done.
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from electra_accel.cli import exit_with_one_line
from electra_accel.errors import UserError
from electra_accel.options import parser
from electra_accel.options.declare import COUNT, Alternative, option, outside_intervals
from electra_accel.options.help import FLAGS
from electra_accel.pretraining.config import Data, Tokenizer
from electra_accel.runs.run_folder import require_creatable


@dataclass
class Options(Tokenizer, Data):
    prepared: ClassVar = None
    replay_fraction: ClassVar = None
    num_workers: ClassVar = None
    path: ClassVar = None
    tokenizer: str | None = option(None, "in place of train_vocab_size: folder, hub id or vocab.txt", "PATH")
    processes: int | None = option(None, "that tokenise; default: by the number of cores", within=COUNT)
    out: str = option("prepared", "folder of all prepared data", "FOLDER")


CHOICES = (
    (Alternative(("train_files",)), Alternative(("dataset",))),
    (Alternative(("tokenizer",)), Alternative(("train_vocab_size",))),
)


def parse(arguments: list[str]) -> Options:
    layers, _ = parser.layers(Options, arguments, __doc__, {"--help": FLAGS["--help"]})
    asked = parser.read(Options, layers, CHOICES)
    problems = outside_intervals(asked, "--")
    if not asked.tokenizer and not asked.train_vocab_size:
        problems.append("give either --tokenizer or --train_vocab_size")
    if problems:
        raise UserError("; ".join(problems))
    if not Path(asked.out).is_dir():
        require_creatable(Path(asked.out), "--out")
    return asked


def main() -> None:
    asked = parse(sys.argv[1:])

    # Imported only now, so that --help and mistakes are answered at once.
    from electra_accel.data.prepare import Prepared, prepare
    from electra_accel.text.corpus import Corpus
    from electra_accel.text.tokenizer import load_tokenizer
    from electra_accel.text.vocabulary import read_tokens

    files = {"held_out": asked.eval_files, "general": asked.eval_general_files, "replay": asked.replay_files}
    others = {name: Corpus(files=tuple(given), text_column=asked.text_column) for name, given in files.items() if given}
    replay = others.pop("replay", None)
    folder = prepare(
        Path(asked.out),
        Corpus(files=tuple(asked.train_files or ()), dataset=asked.dataset, text_column=asked.text_column),
        others,
        replay=replay,
        add_tokens=tuple(read_tokens(asked.add_tokens)) if asked.add_tokens else (),
        learn_tokens=asked.learn_tokens,
        tokenizer=load_tokenizer(asked.tokenizer, log=print) if asked.tokenizer else None,
        train_vocab_size=asked.train_vocab_size,
        max_length=asked.max_length,
        eval_fraction=asked.eval_fraction,
        join_lines=asked.join_lines,
        processes=asked.processes,
    )
    for name, split in Prepared(folder).manifest["splits"].items():
        skipped = sum(split["skipped"].values())
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in split["skipped"].items())
        print(
            f"{name}: {split['documents']:,} documents, {split['examples']:,} examples, {split['tokens']:,} tokens; "
            f"skipped {skipped / (split['documents'] + skipped):.2%} of the documents"
            + (f" ({reasons})" if reasons else "")
        )
    start = "--model.size tiny --train.epochs 1"
    if asked.add_tokens or asked.learn_tokens:  # only given networks can get rows for them
        start = "--model.generator GENERATOR --model.discriminator DISCRIMINATOR"
    print(
        f"{folder}\nnext: accelerate launch scripts/pretrain.py {start} "
        f"--data.prepared {shlex.quote(str(folder))} --data.max_length {asked.max_length}"
    )


if __name__ == "__main__":
    exit_with_one_line(main)
