"""Did it help? Held-out figures of runs before and after, on the domain's text and on general text, cost, and advice.

    python scripts/adaptation.py runs/books
    python scripts/adaptation.py runs/books runs/books-replay --json story.json     # side by side
    python scripts/adaptation.py runs/books --tasks runs/books-tasks                # and did it help tasks?

Reads what a run has recorded, also while it goes on. Figures on general text need data.eval_general_files in the run. The cost
of a generator's warm start stands beside that of the run. More than three runs are a row each, with fewer figures; --json has
all figures. "Better on the domain's text" does not mean better on tasks. For those, fine-tune the network that the run started
from and the run's own with scripts/finetune.py, and give that folder as --tasks.
"""

import dataclasses
import json
import sys
from pathlib import Path

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError, writing
from electra_accel.runs import run_folder


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders")
    parser.add_argument("--tasks", type=Path, metavar="FOLDER", help="run.dir of scripts/finetune.py")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all of it")
    asked = parser.parse_args(sys.argv[1:])
    if asked.json:
        run_folder.require_file(asked.json, "--json")

    # Imported only now, so that --help and mistakes are answered at once.
    from electra_accel.reports.adaptation import held_out_sets, story_of_run
    from electra_accel.reports.story import side_by_side, verdict
    from electra_accel.reports.tasks import sentence, task_changes

    stories = []
    for run in asked.runs:
        if (told := story_of_run(run)) is None:
            raise UserError(f"{run} has judged no held-out text yet; wait for its first evaluation")
        if asked.tasks:
            told = dataclasses.replace(told, tasks=task_changes(run, asked.tasks))
        stories.append(told)
    side_by_side(stories, [held_out_sets(run) for run in asked.runs]).show()
    for told in stories:
        print(f"{told.name}: {verdict(told)}")
        if told.tasks:
            print(f"{told.name}: {sentence(told.tasks)}")
        for advice in told.advice.values():
            print(f"  advice: {advice}")
    if asked.json:
        found = [{**dataclasses.asdict(told), "verdict": verdict(told)} for told in stories]
        text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
        with writing("--json", asked.json):
            asked.json.write_text(text, encoding="utf-8", errors=run_folder.ESCAPE)  # a folder may have any name


if __name__ == "__main__":
    exit_with_one_line(main)
