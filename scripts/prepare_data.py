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
from electra_accel.options.declare import kind_of, names
from electra_accel.options.help import METAVARS
from electra_accel.pretraining.config import Data, Tokenizer
from electra_accel.runs.run_folder import require_creatable

TEXT = "train_files dataset text_column eval_files eval_fraction eval_general_files replay_files max_length join_lines"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add_options(parser.add_argument_group("text (train_files or dataset)"), Data, TEXT)
    tokens = parser.add_argument_group("tokens (tokenizer or train_vocab_size)")
    tokens.add_argument("--tokenizer", metavar="PATH", help="folder, vocab.txt or hub id")
    add_options(tokens, Tokenizer, "train_vocab_size add_tokens learn_tokens")
    parser.add_argument("--processes", type=int, metavar="N", help="that tokenise [by the number of cores]")
    out = dict(type=Path, metavar="FOLDER", default=Path("prepared"))
    parser.add_argument("--out", **out, help="of all prepared data [prepared]")
    asked = parser.parse_args(arguments)
    if bool(asked.tokenizer) == bool(asked.train_vocab_size):
        parser.error("give either --tokenizer or --train_vocab_size")
    if not asked.out.is_dir():
        require_creatable(asked.out, "--out")
    return asked


def add_options(group: argparse._ArgumentGroup, of: type, wanted: str) -> None:
    """Options of pre-training with their help and defaults, here without the name of their group."""
    known = dict(names(of))
    for name in wanted.split():
        (kind, several), default, about = kind_of(known[name].type), getattr(of(), name), known[name].metadata
        how = (
            {"action": "store_true"} if kind is bool else {"type": kind, "metavar": about["metavar"] or METAVARS[kind]}
        )
        how |= {"nargs": "+"} if several else {}
        shown = f" [{default}]" if default else ""
        group.add_argument(f"--{name}", default=default, help=(about["help"] + shown).replace("%", "%%"), **how)


def main() -> None:
    asked = parse(sys.argv[1:])

    # Imported only now, so that --help and mistakes are answered at once.
    from electra_accel.data.prepare import Prepared, prepare
    from electra_accel.text.corpus import Corpus
    from electra_accel.text.tokenizer import load_tokenizer
    from electra_accel.text.vocabulary import read_tokens

    files = {"held_out": asked.eval_files, "general": asked.eval_general_files, "replay": asked.replay_files}
    others = {name: Corpus(files=tuple(given), text_column=asked.text_column) for name, given in files.items() if given}
    folder = prepare(
        asked.out,
        Corpus(files=tuple(asked.train_files or ()), dataset=asked.dataset, text_column=asked.text_column),
        replay=others.pop("replay", None),
        held_out=others,
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
        f"{folder}\nnext: accelerate launch --config_file accelerate_configs/single.yaml scripts/pretrain.py {start} "
        f"--data.prepared {shlex.quote(str(folder))} --data.max_length {asked.max_length}"
    )


if __name__ == "__main__":
    exit_with_one_line(main)
