"""How good is a pair? All held-out figures of its generator and its discriminator, on any text, on one fixed corruption.

    python scripts/evaluate.py --run runs/my-text --files "new/*.txt"
    python scripts/evaluate.py --run runs/b --held_out runs/a     # on the text and the corruption that runs/a was judged by
    python scripts/evaluate.py --generator google/electra-base-generator --discriminator google/electra-base-discriminator \\
        --files reviews.csv --text_column sen --json figures.json

Files as for pretrain.py; all of their text is used. Which tokens are replaced, and by what, depends on the text, the tokenizer,
--mask_prob, --seed and --max_length alone (or on --reference_generator too), so that figures of several pairs compare: they do
where the printed fingerprints agree. A run that has not ended is judged by its newest whole checkpoint. Always in fp32.
"""

import argparse
import json
import sys
from pathlib import Path

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import writing
from electra_accel.runs.run_folder import require_file
from electra_accel.terminal import quiet_libraries

MAX_LENGTH = 128  # of a pair without a run, as data.max_length


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    pair = parser.add_argument_group("the pair (run, or generator and discriminator)").add_argument
    pair("--run", type=Path, metavar="FOLDER", help="a run")
    pair("--generator", metavar="PATH", help="folder or hub id")
    pair("--discriminator", metavar="PATH", help="folder or hub id")
    text = parser.add_argument_group("the text (files or held_out)").add_argument
    text("--files", nargs="+", metavar="FILE", default=[], help="any text; globs in quotes")
    text("--text_column", metavar="NAME", default="text", help="column with the text, not for txt [text]")
    held_out = "held-out text of a run [that of --run], with the corruption that the run was judged by"
    text("--held_out", nargs="?", const=True, metavar="RUN", help=held_out)
    corruption = parser.add_argument_group("the corruption of files").add_argument
    corruption("--mask_prob", type=float, metavar="X", help="share selected [eval.mask_prob of the run]")
    corruption("--seed", type=int, metavar="N", help="fixes which tokens [eval.seed of the run]")
    longest = f"tokens of an example [data.max_length of the run, else {MAX_LENGTH}]"
    corruption("--max_length", type=int, metavar="N", help=longest)
    draws = "draws the replacements, instead of the text's token frequency"
    corruption("--reference_generator", metavar="PATH", help=draws)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write figures, counts and fingerprints")
    parser.add_argument("--cpu", action="store_true", help="use the CPU although there is a GPU")
    asked = parser.parse_args(arguments)
    of_files = ("mask_prob", "seed", "max_length", "reference_generator")
    given = next((name for name in of_files if getattr(asked, name) is not None), None)
    if bool(asked.run) == bool(asked.generator or asked.discriminator):
        parser.error("give either --run, or --generator and --discriminator")
    if not asked.run and not (asked.generator and asked.discriminator):
        parser.error("--generator and --discriminator go together")
    if bool(asked.files) == bool(asked.held_out):
        parser.error("give either --files or --held_out")
    if asked.held_out is True and not asked.run:
        parser.error("--held_out: name the run whose held-out text is meant")
    if given and not asked.files:
        parser.error(f"--{given} goes with --files: --held_out has the corruption of its run")
    if asked.mask_prob is not None and not 0 < asked.mask_prob <= 1:
        parser.error(f"--mask_prob must lie in (0, 1], not {asked.mask_prob}")
    if asked.json:
        require_file(asked.json, "--json")
    return asked


def main() -> None:
    asked = parse(sys.argv[1:])
    quiet_libraries()

    # Imported only now, so that --help and mistakes are answered at once.
    from electra_accel.engines.open import launched
    from electra_accel.pretraining.evaluate_saved import evaluate_files, evaluate_held_out
    from electra_accel.pretraining.saved_pairs import given_pair, run_pair

    launched()  # refuses what would change numbers before the text is made tokens
    if asked.run:
        saved = run_pair(asked.run)
    else:
        max_length = MAX_LENGTH if asked.max_length is None else asked.max_length
        saved = given_pair(asked.generator, asked.discriminator, max_length)
    if asked.files:
        wanted = {name: getattr(asked, name) for name in ("mask_prob", "seed", "max_length", "cpu")}
        found = evaluate_files(saved, asked.files, asked.text_column, reference=asked.reference_generator, **wanted)
    else:
        found = evaluate_held_out(saved, asked.run if asked.held_out is True else Path(asked.held_out), cpu=asked.cpu)
    show(saved.weights, found)
    if asked.json:
        told = {name: getattr(asked, name) for name in ("generator", "discriminator", "files")}
        told |= {"run": asked.run and str(asked.run), "weights": saved.weights, "step": saved.step, **found}
        with writing("--json", asked.json):
            asked.json.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def show(weights: str, found: dict) -> None:
    """What was judged, on what, and the figures with their standard errors."""
    from rich.console import Console
    from rich.table import Table

    of = found["held_out"]
    print(f"\npair        {weights}")
    print(f"text        {of['examples']:,} examples, {of['tokens']:,} tokens ({of['data'][:12]})")
    print(
        f"corruption  {of['corruption']}: {of['selected']:,} tokens selected, {of['replaced']:,} replaced, by "
        f"{of['replacements']} (mask_prob {of['mask_prob']}, seed {of['seed']}, max_length {of['max_length']})\n"
    )
    table = Table("", "fixed corruption", "±", "own generator", "±", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name in (name for name in found["eval"] if not name.endswith("_se")):
        figures = (source[kind] for kind in ("eval", "eval_own") for source in (found, found["standard_errors"]))
        table.add_row(name.replace("_", " "), *(_digits(each[name]) if name in each else "" for each in figures))
    Console(highlight=False).print(table)
    print(
        "\n± is one standard error, tokens taken as independent. Always guessing the most frequent token has generator "
        f"accuracy {of['chance']:.4f}; an AUC of 0.5 is chance."
    )
    if None in (found["eval"]["generator_loss"], found["eval"]["discriminator_loss"]):
        print("The networks' outputs are not finite numbers. Figures that cannot be computed from them are shown as –.")


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    exit_with_one_line(main)
