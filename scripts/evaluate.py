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
from electra_accel.errors import UserError
from electra_accel.runs.run_folder import require_file
from electra_accel.terminal import quiet_libraries

MAX_LENGTH = 128  # of a pair without a run, as data.max_length


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    pair = parser.add_argument_group("the pair (run, or generator and discriminator)")
    pair.add_argument("--run", type=Path, metavar="FOLDER", help="a run")
    pair.add_argument("--generator", metavar="PATH", help="folder or hub id")
    pair.add_argument("--discriminator", metavar="PATH", help="folder or hub id")
    text = parser.add_argument_group("the text (files or held_out)")
    text.add_argument("--files", nargs="+", metavar="FILE", default=[], help="any text; globs in quotes")
    text.add_argument("--text_column", metavar="NAME", default="text", help="column with the text, not for txt [text]")
    text.add_argument(
        "--held_out",
        nargs="?",
        const=True,
        metavar="RUN",
        help="held-out text of a run [that of --run], with the corruption that the run was judged by",
    )
    corruption = parser.add_argument_group("the corruption of files")
    corruption.add_argument("--mask_prob", type=float, metavar="X", help="share selected [eval.mask_prob of the run]")
    corruption.add_argument("--seed", type=int, metavar="N", help="fixes which tokens [eval.seed of the run]")
    corruption.add_argument(
        "--max_length",
        type=int,
        metavar="N",
        help=f"tokens of an example [data.max_length of the run, else {MAX_LENGTH}]",
    )
    corruption.add_argument(
        "--reference_generator", metavar="PATH", help="draws the replacements, instead of the text's token frequency"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write figures, counts and fingerprints")
    parser.add_argument("--cpu", action="store_true", help="use the CPU although there is a GPU")
    asked = parser.parse_args(arguments)
    if bool(asked.run) == bool(asked.generator or asked.discriminator):
        parser.error("give either --run, or --generator and --discriminator")
    if not asked.run and not (asked.generator and asked.discriminator):
        parser.error("--generator and --discriminator go together")
    if bool(asked.files) == bool(asked.held_out):
        parser.error("give either --files or --held_out")
    if asked.held_out is True and not asked.run:
        parser.error("--held_out: name the run whose held-out text is meant")
    given = [
        name for name in ("mask_prob", "seed", "max_length", "reference_generator") if getattr(asked, name) is not None
    ]
    if given and not asked.files:
        parser.error(f"--{given[0]} goes with --files: --held_out has the corruption of its run")
    if asked.mask_prob is not None and not 0 < asked.mask_prob <= 1:
        parser.error(f"--mask_prob must lie in (0, 1], not {asked.mask_prob}")
    if asked.json:
        require_file(asked.json, "--json")
    return asked


def main() -> None:
    asked = parse(sys.argv[1:])
    quiet_libraries()

    # Imported only now, so that --help and mistakes are answered at once.
    from electra_accel.engines.launch_environment import require_neutral
    from electra_accel.pretraining.judged import given_pair, run_pair
    from electra_accel.pretraining.scoring import score_files, score_held_out

    require_neutral()  # before the text is made tokens
    if asked.run:
        judged = run_pair(asked.run)
    else:
        max_length = MAX_LENGTH if asked.max_length is None else asked.max_length
        judged = given_pair(asked.generator, asked.discriminator, max_length)
    if asked.files:
        wanted = {name: getattr(asked, name) for name in ("mask_prob", "seed", "max_length", "cpu")}
        score = score_files(judged, asked.files, asked.text_column, reference=asked.reference_generator, **wanted)
    else:
        score = score_held_out(judged, asked.run if asked.held_out is True else Path(asked.held_out), cpu=asked.cpu)
    show(judged.weights, score)
    if asked.json:
        found = {
            "run": asked.run and str(asked.run),
            "generator": asked.generator,
            "discriminator": asked.discriminator,
            "weights": judged.weights,
            "step": judged.step,
            "files": asked.files,
            "held_out": score.held_out,
            "eval": score.figures,
            "eval_own": score.own,
            "standard_errors": {"eval": score.errors, "eval_own": score.own_errors},
            "calibration": score.calibration,
        }
        try:
            asked.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--json {asked.json} cannot be written: {error.strerror}") from None


def show(weights: str, score) -> None:
    """What was judged, on what, and the figures with their standard errors."""
    from rich.console import Console
    from rich.table import Table

    of = score.held_out
    print(f"\npair        {weights}")
    print(f"text        {of['examples']:,} examples, {of['tokens']:,} tokens ({of['data'][:12]})")
    print(
        f"corruption  {of['corruption']}: {of['selected']:,} tokens selected, {of['replaced']:,} replaced, by "
        f"{of['replacements']} (mask_prob {of['mask_prob']}, seed {of['seed']}, max_length {of['max_length']})\n"
    )
    table = Table("", "fixed corruption", "±", "own generator", "±", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name in (name for name in score.figures if not name.endswith("_se")):
        row = [name.replace("_", " ")]
        for figures, errors in ((score.figures, score.errors), (score.own, score.own_errors)):
            row += [_digits(figures[name]) if name in figures else "", _digits(errors[name]) if name in errors else ""]
        table.add_row(*row)
    Console(highlight=False).print(table)
    print(
        "\n± is one standard error, tokens taken as independent. Always guessing the most frequent token has generator "
        f"accuracy {of['chance']:.4f}; an AUC of 0.5 is chance."
    )
    if None in (score.figures["generator_loss"], score.figures["discriminator_loss"]):
        print("The networks' outputs are not finite numbers: figures that cannot be told from them are shown as –.")


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    exit_with_one_line(main)
