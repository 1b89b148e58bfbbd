"""Make Hugging Face folders of a run's checkpoint, at any time: discriminator/ and generator/, with a corrective head also
corrector/ (objective.kind mlm: encoder/).

    python scripts/export.py runs/books --to exported/books                                  # the newest whole checkpoint
    python scripts/export.py runs/books/checkpoints/step-00001000 --to exported/books-1000
    python scripts/export.py runs/books --to exported/books --tasks runs/books-tasks         # the card tells of tasks
    python scripts/export.py runs/books --to exported/books --licence apache-2.0 --push_to_hub me/electra-books

The run may go on meanwhile, and nothing in its folder is changed. Its text and its starting pair are not needed. At its end a
run exports by itself into its own folder.
"""

import sys
from functools import partial
from pathlib import Path

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError
from electra_accel.runs import run_folder
from electra_accel.terminal import quiet_libraries


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("checkpoint", type=Path, metavar="FOLDER", help="a checkpoint in its run folder, or a run")
    parser.add_argument("--to", type=Path, metavar="FOLDER", required=True, help="where the folders are made")
    parser.add_argument("--licence", metavar="NAME", help="of the weights, for the model card, as the hub writes it")
    parser.add_argument(
        "--tasks",
        type=Path,
        metavar="FOLDER",
        help="run.dir of scripts/finetune.py with these weights, for the model card",
    )
    parser.add_argument(
        "--push_to_hub", metavar="NAME", help="also upload, to NAME-discriminator and so on (private where new)"
    )
    asked = parser.parse_args(sys.argv[1:])
    quiet_libraries()

    # Imported only now, so that --help and mistakes are answered at once.
    from electra_accel.pretraining.exporting import checkpoint_to_export, export_checkpoint
    from electra_accel.reports.story import card
    from electra_accel.reports.tasks import read_results
    from electra_accel.runs.export import WHAT, push_to_hub

    taken = [str(asked.to / name) for name in WHAT if (asked.to / name).exists()]
    if taken:
        raise UserError(f"--to {asked.to}: {taken[0]} exists already; name another folder")
    run_folder.require_creatable(asked.to, "--to")
    checkpoint = checkpoint_to_export(asked.checkpoint, lambda line: print(f"warning: {line}", file=sys.stderr))
    if asked.tasks:
        read_results(asked.tasks)  # refused before anything is made
    more = {"licence": asked.licence, "source": asked.push_to_hub or ""}
    try:
        names = export_checkpoint(checkpoint, asked.to, partial(card, finetuned=asked.tasks), **more)
    except OSError as error:
        raise UserError(f"--to {asked.to} cannot be written ({error.strerror}); choose another folder") from error
    for name in names:
        print(f"made    {asked.to / name}, of {checkpoint}")
    if asked.push_to_hub:
        for address in push_to_hub(asked.to, names, asked.push_to_hub):
            print(f"pushed  {address}")


if __name__ == "__main__":
    exit_with_one_line(main)
