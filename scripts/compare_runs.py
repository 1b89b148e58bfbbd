"""Several runs side by side: what differs, and which differences are more than noise.

    python scripts/compare_runs.py runs/a runs/b                      # run folders; the first one is the reference
    python scripts/compare_runs.py 'runs/mask-*' --out comparison     # globs in quotes
    python scripts/compare_runs.py runs/a runs/b/wandb/offline-run-*  # offline W&B folders
    python scripts/compare_runs.py wandb:me/electra-accel             # a W&B project, or wandb:me/electra-accel/ID
    python scripts/compare_runs.py runs/a runs/b --rescore            # or --rescore new.txt

Runs that differ in run.seed alone are one group. Prints the runs' figures and differing settings, and the verdict on the
primary figure; writes comparison.html (curves over steps, tokens, hours, FLOPs), comparison.md and comparison.csv into --out.
Reading from W&B's server needs an account, and was never tried for want of one.

A discriminator's figures compare on one corruption only. Where runs were judged on different ones, --rescore judges all of
them again through scripts/evaluate.py: on the held-out text and the corruption of the first run, or on files that no run was
trained on (with --reference_generator by the replacements of that generator).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError
from electra_accel.runs import run_folder

EVALUATE = Path(__file__).with_name("evaluate.py")
NUMBER = len("0.1234")  # which a narrow terminal must not break


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="run folders, W&B folders, globs, wandb:entity/project[/run]"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", default=Path("comparison"), help="where the three files go [comparison]"
    )
    parser.add_argument(
        "--rescore",
        nargs="*",
        metavar="FILE",
        help="judge all runs again on this text (globs in quotes), or on the held-out text of the first run",
    )
    parser.add_argument(
        "--text_column", metavar="NAME", help="column of --rescore's files with the text, not for txt [text]"
    )
    parser.add_argument(
        "--reference_generator", metavar="FOLDER", help="with --rescore: it draws the replacements, not token frequency"
    )

    asked = parser.parse_args(arguments)
    if not asked.runs:
        parser.error("give at least two runs, such as 'runs/*'")
    for name in ("text_column", "reference_generator"):
        if getattr(asked, name) and not asked.rescore:
            parser.error(f"--{name} goes with --rescore FILE: the text to judge the runs on")
    return asked


def main() -> None:
    asked = parse(sys.argv[1:])
    run_folder.require_creatable(asked.out, "--out")

    # Imported only now, so that --help and mistakes are answered at once.
    from electra_accel.reports.sources import read_experiments

    runs = read_experiments(asked.runs, lambda line: print(f"warning: {line}", file=sys.stderr))
    if asked.rescore is not None:
        for run in runs:
            rescore(run, runs[0], asked)

    from electra_accel.reports.compare import compare
    from electra_accel.reports.comparison_page import comparison_page
    from electra_accel.reports.comparison_text import csv_text, figure_rows, flags, markdown_text, settings_rows

    comparison = compare(runs)
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("comparison.html", comparison_page(comparison)),
            ("comparison.md", markdown_text(comparison)),
            ("comparison.csv", csv_text(comparison)),
        ):
            run_folder.write_atomically(asked.out / name, text)
    except OSError as error:
        raise UserError(f"--out {asked.out} cannot be written ({error.strerror}); choose another folder") from error
    show(*figure_rows(comparison, with_groups=False))
    show(*settings_rows(comparison))
    for flag in flags(comparison):
        print(f"note: {flag}")
    for verdict in comparison.verdicts:
        if verdict.figure == comparison.primary:
            print(f"{verdict.figure.name}, {verdict.group.label}: {verdict.text}")
    print(f"{len(runs)} runs in {len(comparison.groups)} groups: {asked.out}/comparison.html, .md, .csv")


def show(columns: list[str], rows: list[list]) -> None:
    """A table; where the output is no terminal, each row on a line of its own, however long."""
    from rich.console import Console
    from rich.table import Table

    from electra_accel.reports.page import cell_text

    console = Console(highlight=False, markup=False, emoji=False)  # names and settings are the user's
    if not console.is_terminal:
        console.width = 10_000
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", min_width=NUMBER)
    for row in rows:
        table.add_row(*map(cell_text, row))
    console.print(table)
    console.print()


def rescore(run, reference, asked: argparse.Namespace) -> None:
    """Let scripts/evaluate.py judge a run; one without weights (read from W&B) or without a pair keeps its own figures.

    Raises:
        UserError: evaluate.py refuses, or the run may have been trained on the held-out text of the first one.
    """
    if run.folder is None:
        print(f"warning: {run.name} was read from W&B, which has no weights: it is not scored again", file=sys.stderr)
        return
    if run.options["objective.kind"] == "mlm":
        why = "trained one network (objective.kind mlm), there is no pair to judge"
        print(f"warning: {run.name} {why}: it is not scored again", file=sys.stderr)
        return
    from electra_accel.reports.experiments import Judgement

    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "figures.json"
        command = [sys.executable, EVALUATE, "--run", run.folder, "--json", out]
        if asked.rescore:
            command += ["--files", *asked.rescore]
            for option in ("eval.mask_prob", "eval.seed", "data.max_length"):  # one corruption for all
                command += [f"--{option.partition('.')[2]}", reference.options[option]]
        elif reference.folder is None:
            raise UserError(f"--rescore: {reference.name} was read from W&B; give --rescore FILE, or its folder first")
        elif run.held_out.get("data") != reference.held_out.get("data"):
            raise UserError(
                f"--rescore: {run.name} is not known to share the held-out text of {reference.name} and may have been trained "
                "on it; give --rescore FILE with text that no run was trained on"
            )
        else:
            command += ["--held_out", reference.folder]
        for name in ("text_column", "reference_generator"):
            command += [f"--{name}", getattr(asked, name)] if getattr(asked, name) else []
        print(f"scoring {run.name}", flush=True)
        environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(list(map(str, command)), capture_output=True, encoding="utf-8", env=environment)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise UserError(f"{run.name} cannot be scored again: {reason.removeprefix('error: ')}")
        for line in done.stdout.splitlines():
            if line.startswith(("unknown tokens: ", "warning: ")):
                print(line)
        scored = json.loads(out.read_text(encoding="utf-8"))
    run.rescored = Judgement(scored["step"], scored["eval"], scored["held_out"])


if __name__ == "__main__":
    exit_with_one_line(main)
