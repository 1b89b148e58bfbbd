"""Fine-tune encoders on tasks and compare them: several models, several seeds, one table.

    python scripts/finetune.py --models runs/general/discriminator runs/adapted/discriminator --task.kind classification \\
        --task.train_file train.tsv --task.dev_file dev.tsv --task.test_file test.tsv --run.dir runs/sentiment --run.seeds 1 2 3
    accelerate launch --config_file accelerate_configs/ddp.yaml --num_processes 2 scripts/finetune.py --models …
    python scripts/finetune.py --models … --suite recipes/suites/korean.yaml --suite_data DIR --run.dir runs/korean
    python scripts/finetune.py --config runs/korean/config.yaml --dry_run     # read and check everything, train nothing

The first model is what the others are compared with. Figures are in RUN/results.json and RUN/results.md, predictions, curves
and checkpoints in RUN/<task>/<model>/seed-<n>/. The same command goes on where it stopped; more models, seeds or tasks
may be added to it. Exit codes as of pretrain.py.
"""

import os
import sys
from pathlib import Path

from electra_accel.cli import exit_with_one_line
from electra_accel.finetuning.config import check, default_folder
from electra_accel.finetuning.config_parser import dump, parse
from electra_accel.terminal import Terminal, quiet_libraries


def main() -> None:
    asked = parse(sys.argv[1:], description=__doc__)
    settings = asked.settings
    check(settings, asked.tasks, asked.of_tasks)
    quiet_libraries()
    terminal = Terminal(speaks=os.environ.get("RANK", "0") == "0")

    # Imported only now, so that --help and mistakes are answered at once.
    from electra_accel.engines.open import open_engine
    from electra_accel.finetuning import dry_run, opening
    from electra_accel.finetuning.job import remove_checkpoints
    from electra_accel.finetuning.loop import finetune
    from electra_accel.runs.environment import require_equal_data
    from electra_accel.runs.opening import take
    from electra_accel.runs.stopping import STOP_FILE, StopRequests
    from electra_accel.tracking.trackers import usable_trackers

    folder = Path(settings.run.dir or default_folder())
    if asked.dry_run:
        return dry_run.report(asked, terminal, folder)
    trackers = usable_trackers(settings.tracking.trackers, terminal.warn)
    engine = open_engine(precision=settings.train.precision, cpu=asked.cpu, trackers=trackers, folder=folder)
    folder = engine.on_main(lambda: folder)
    settings.run.dir = str(folder)  # so that config.yaml says where to go on
    stop = StopRequests(folder / STOP_FILE if engine.is_main else None, settings.run.deadline)

    jobs = engine.together(lambda: opening.read_jobs(asked, folder))
    tasks = opening.tasks_of(jobs)
    require_equal_data(engine, " ".join(data.fingerprint() for data in tasks))
    engine.on_main(lambda: opening.open_run(folder, jobs))
    engine.on_main(lambda: take(folder, engine, dump(asked), step=-1))
    for line in opening.notes_of(jobs):
        terminal.line(line)

    if others := engine.on_main(lambda: opening.left_out(folder, jobs)):
        terminal.warn(
            f"{folder} also holds {', '.join(others)}, perhaps of other rows or settings: not in this table; to have them in "
            "one, name them in --models"
        )

    start_recorder = opening.recorder_of(engine, terminal)
    with stop, opening.recorded_status(folder, jobs, terminal):
        for job in jobs:
            if engine.on_main(job.result):
                engine.on_main(lambda job=job: remove_checkpoints(job))
                terminal.line(f"{job.name} is finished")
                continue
            finetune(job, engine, start_recorder, terminal, stop)
            engine.on_main(lambda: opening.write_results(folder, jobs))
        table = engine.on_main(lambda: opening.write_results(folder, jobs))
    terminal.line(table)
    terminal.line(f"written to {folder / opening.RESULTS_JSON} and {folder / opening.RESULTS_TABLE}")


if __name__ == "__main__":
    exit_with_one_line(main)
