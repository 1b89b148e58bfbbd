"""Text -> a WordPiece tokenizer folder with the special tokens of ELECTRA, which AutoTokenizer loads.

    python scripts/train_tokenizer.py --files reviews.csv.xz --text_column sen --vocab_size 8000 --out tokenizers/reviews

Files as for prepare_data.py. Case and accents are kept, Hangul syllables stay whole. The same text gives the same vocabulary.
The folder appears whole, or not at all.
"""

import argparse
import os
import shlex
import shutil
import sys
from itertools import chain
from pathlib import Path

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.durable import flush, flush_names
from electra_accel.errors import UserError
from electra_accel.runs.run_folder import require_creatable


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--files", nargs="+", metavar="FILE", default=[], help="text to learn from; globs in quotes")
    parser.add_argument("--dataset", metavar="NAME", help="instead: python_docs, or a hub id NAME[:CONFIG[:SPLIT]]")
    column = "column with the text, not for txt [text]"
    parser.add_argument("--text_column", metavar="NAME", default="text", help=column)
    parser.add_argument("--vocab_size", type=int, metavar="N", required=True, help="tokens at most")
    parser.add_argument("--lowercase", action="store_true", help="make no difference between upper and lower case")
    parser.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="new folder for the tokenizer")
    return parser.parse_args(arguments)


def main() -> None:
    asked = parse(sys.argv[1:])
    if asked.out.exists():
        raise UserError(f"{asked.out} exists; name a new folder with --out")
    require_creatable(asked.out, "--out")

    # Imported only now, so that --help and mistakes are answered at once.
    from electra_accel.text.corpus import Corpus, read_documents
    from electra_accel.text.tokenizer import train_tokenizer
    from electra_accel.text.unknown import measure, sample_of, told

    corpus = Corpus(files=tuple(asked.files), dataset=asked.dataset, text_column=asked.text_column)

    def batches():
        return (batch.documents for batch in read_documents(corpus))

    partial = asked.out.with_name(f".tokenizer.{os.getpid()}.partial")
    try:
        tokenizer = train_tokenizer(batches, asked.vocab_size, partial, asked.lowercase, print)
        flush(partial)
        if asked.out.exists():
            raise UserError(f"{asked.out} was made meanwhile; name a new folder with --out")
        os.rename(partial, asked.out)
        flush_names(asked.out.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sample = sample_of(chain.from_iterable(batches()))
    ids = tokenizer(sample, add_special_tokens=False)["input_ids"]
    for line in told({"the first texts": measure(ids, tokenizer, sample)}):
        print(line)
    pieces = (tokenizer.tokenize(text[:200]) for text in chain.from_iterable(batches()))
    first = next(filter(None, pieces), [])  # a text may be of characters that are not seen
    print(f"{len(tokenizer):,} tokens in {asked.out}; the first text reads: {' '.join(first)}")
    options = ["--tokenizer", str(asked.out)]
    options += [] if asked.text_column == "text" else ["--text_column", asked.text_column]
    print(f"next: python scripts/prepare_data.py {shlex.join(options)} --train_files …")


if __name__ == "__main__":
    exit_with_one_line(main)
