"""Text -> a folder of tokens that pretrain.py reads; it does this by itself too, this does it beforehand.

    python scripts/prepare_data.py --train_files "books/*.csv" --text_column sen --tokenizer google/electra-base-discriminator
    python scripts/prepare_data.py --train_files reviews.csv.xz --text_column sen --train_vocab_size 8000
    python scripts/prepare_data.py --dataset python_docs --train_vocab_size 4000

Files: txt, csv, tsv, json, jsonl, parquet, each also as .gz or .xz; UTF-8. In txt every line is a document; with --join_lines
blank lines separate documents. A json file that is one array is read into memory whole: use jsonl for large text. A second
call with the same content and settings finds the folder and is done.
"""

import argparse
import shlex
import sys
from pathlib import Path

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.runs.run_folder import require_creatable


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    files = dict(nargs="+", metavar="FILE", default=[])
    text = parser.add_argument_group("text (train_files or dataset)")
    text.add_argument("--train_files", **files, help="training text; globs in quotes")
    text.add_argument("--dataset", metavar="NAME", help="python_docs (built in), or a hub id NAME[:CONFIG[:SPLIT]]")
    text.add_argument("--text_column", metavar="NAME", default="text", help="column with the text, not for txt [text]")
    text.add_argument("--eval_files", **files, help="held-out text; loses what train has too")
    share = "share held out if no eval_files are given [0.01]"
    text.add_argument("--eval_fraction", type=float, metavar="X", default=0.01, help=share)
    text.add_argument("--eval_general_files", **files, help="general text to judge by beside the domain's")
    text.add_argument("--replay_files", **files, help="general text to be mixed into the training text")
    tokens = parser.add_argument_group("tokens (tokenizer or train_vocab_size)")
    tokens.add_argument("--tokenizer", metavar="PATH", help="folder, vocab.txt or hub id")
    tokens.add_argument(
        "--train_vocab_size", type=int, metavar="N", help="train a WordPiece vocabulary of N tokens at most"
    )
    tokens.add_argument("--add_tokens", metavar="FILE", help="tokens to add to the tokenizer's, one a line")
    saving = "add N tokens: those that save most on the training text"
    tokens.add_argument("--learn_tokens", type=int, metavar="N", help=saving)
    tokens.add_argument("--max_length", type=int, metavar="N", default=128, help="tokens of an example at most [128]")
    tokens.add_argument("--join_lines", action="store_true", help="fill examples with consecutive lines of a document")
    parser.add_argument("--processes", type=int, metavar="N", help="that tokenise [by the number of cores]")
    out = dict(type=Path, metavar="FOLDER", default=Path("prepared"))
    parser.add_argument("--out", **out, help="of all prepared data [prepared]")
    asked = parser.parse_args(arguments)
    if bool(asked.tokenizer) == bool(asked.train_vocab_size):
        parser.error("give either --tokenizer or --train_vocab_size")
    if not asked.out.is_dir():
        require_creatable(asked.out, "--out")
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
        asked.out,
        Corpus(files=tuple(asked.train_files), dataset=asked.dataset, text_column=asked.text_column),
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
        amounts = ", ".join(f"{split[unit]:,} {unit}" for unit in ("documents", "examples", "tokens"))
        share = f"skipped {skipped / (split['documents'] + skipped):.2%} of the documents"
        print(f"{name}: {amounts}; {share}" + (f" ({reasons})" if reasons else ""))
    start = "--model.size tiny --train.epochs 1"
    if asked.add_tokens or asked.learn_tokens:  # only given networks can get rows for them
        start = "--model.generator GENERATOR --model.discriminator DISCRIMINATOR"
    print(
        f"{folder}\nnext: accelerate launch scripts/pretrain.py {start} "
        f"--data.prepared {shlex.quote(str(folder))} --data.max_length {asked.max_length}"
    )


if __name__ == "__main__":
    exit_with_one_line(main)
