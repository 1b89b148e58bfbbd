"""The same function with smaller embeddings: does their size decide how fast fine-tuning can move them?

    python scripts/benchmarks/rescale_embeddings.py runs/general/discriminator --deviation 0.02 --to rescaled/general

A LayerNorm follows the sum of ELECTRA's word, position and type tables, so multiplying all three changes no output (but
through the LayerNorm's epsilon of 1e-12). AdamW's steps do not depend on the size of what they change: at the same learning
rate smaller tables turn faster. 0.02 is the deviation that fresh weights have.
"""

import sys
from pathlib import Path

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("network", type=Path, metavar="FOLDER", help="an ELECTRA discriminator or encoder")
    deviation = "of the word table afterwards [0.02]"
    parser.add_argument("--deviation", type=float, default=0.02, metavar="X", help=deviation)
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where to write it; must be empty")
    asked = parser.parse_args(sys.argv[1:])
    if not 0 < asked.deviation < 1:
        raise UserError(f"--deviation {asked.deviation}: give a number between 0 and 1")
    if asked.to.exists() and (not asked.to.is_dir() or any(asked.to.iterdir())):
        raise UserError(f"--to {asked.to}: not an empty folder; give another one")

    from transformers import ElectraModel

    from electra_accel.model.loading import load_network
    from electra_accel.text.tokenizer import load_tokenizer

    encoder = load_network("FOLDER", ElectraModel, str(asked.network))
    tokenizer = load_tokenizer(asked.network, log=print)
    tables = encoder.embeddings
    before = tables.word_embeddings.weight.std().item()
    if not before:
        raise UserError(f"{asked.network}: its word table holds one number everywhere: there is nothing to scale")
    for table in (tables.word_embeddings, tables.position_embeddings, tables.token_type_embeddings):
        table.weight.data.mul_(asked.deviation / before)
    encoder.save_pretrained(asked.to)
    tokenizer.save_pretrained(asked.to)
    print(f"standard deviation of the word table {before:.4f} -> {asked.deviation:.4f}, written to {asked.to}")


if __name__ == "__main__":
    exit_with_one_line(main)
