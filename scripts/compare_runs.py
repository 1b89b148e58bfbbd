"""Several runs side by side: what differs, and which differences are more than noise.

    python scripts/compare_runs.py runs/a runs/b                      # run folders; the first one is the reference
    python scripts/compare_runs.py 'runs/mask-*' --out comparison     # globs in quotes
    python scripts/compare_runs.py runs/a runs/b/wandb/offline-run-*  # offline W&B folders
    python scripts/compare_runs.py wandb:me/electra-accel             # a W&B project, or wandb:me/electra-accel/ID
    python scripts/compare_runs.py runs/a runs/b --rescore            # or --rescore new.txt

Runs that differ in run.seed alone are one group. Prints the runs' figures, the settings that differ, and the verdict on the
primary figure. Writes comparison.html (curves over steps, tokens, hours, FLOPs), comparison.md and comparison.csv into --out.
Reading from W&B's server needs an account; it has not been tested.

A discriminator's figures compare on one corruption only. Where runs were judged on different ones, --rescore judges all of
them again, as scripts/evaluate.py does: on the held-out text and the corruption of the first run, or on files that no run was
trained on (with --reference_generator by the replacements of that generator).
"""

import argparse
import sys
from pathlib import Path

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import writing
from electra_accel.runs import run_folder
from electra_accel.terminal import quiet_libraries

NUMBER = len("0.1234")  # which a narrow terminal must not break


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="run folders, W&B folders, globs, wandb:entity/project[/run]")
    where = "where the three files go [comparison]"
    add("--out", type=Path, metavar="FOLDER", default=Path("comparison"), help=where)
    what = "judge all runs again on this text (globs in quotes), or on the held-out text of the first run"
    add("--rescore", nargs="*", metavar="FILE", help=what)
    add("--text_column", metavar="NAME", help="column of --rescore's files with the text, not for txt [text]")
    drawn = "with --rescore: it draws the replacements, not token frequency"
    add("--reference_generator", metavar="FOLDER", help=drawn)
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

    def warn(line: str) -> None:
        print(f"warning: {line}", file=sys.stderr)

    runs = read_experiments(asked.runs, warn)
    if asked.rescore is not None:
        quiet_libraries()
        from electra_accel.reports.rescoring import rescore

        rescore(runs, asked.rescore, asked.text_column or "text", asked.reference_generator, warn)

    from electra_accel.reports import comparison_text as views
    from electra_accel.reports.compare import compare
    from electra_accel.reports.comparison_page import comparison_page

    comparison = compare(runs)
    with writing("--out", asked.out):
        asked.out.mkdir(parents=True, exist_ok=True)
    for ending, text in {"html": comparison_page, "md": views.markdown_text, "csv": views.csv_text}.items():
        run_folder.write_atomically(asked.out / f"comparison.{ending}", text(comparison))
    views.runs_table(comparison, with_groups=False).show(NUMBER)
    views.settings_table(comparison).show(NUMBER)
    for flag in views.flags(comparison):
        print(f"note: {flag}")
    for verdict in comparison.verdicts:
        if verdict.figure == comparison.primary:
            print(f"{verdict.figure.name}, {verdict.group.label}: {verdict.text}")
    print(f"{len(runs)} runs in {len(comparison.groups)} groups: {asked.out}/comparison.html, .md, .csv")


if __name__ == "__main__":
    exit_with_one_line(main)
