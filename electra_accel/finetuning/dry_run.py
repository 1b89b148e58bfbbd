"""``--dry_run`` of fine-tuning: everything up to the first step, without a process group or a GPU; nothing is written."""

from pathlib import Path

from electra_accel.engines.open import planned_device
from electra_accel.finetuning import opening
from electra_accel.finetuning.config_parser import Arguments
from electra_accel.finetuning.heads import build
from electra_accel.finetuning.job import Job
from electra_accel.finetuning.layer_rates import build_adamw, layer_decay, peak_learning_rate
from electra_accel.terminal import Terminal
from electra_accel.text.letters import about
from electra_accel.text.unknown import told
from electra_accel.tracking.trackers import destination, usable_trackers


def report(asked: Arguments, terminal: Terminal, folder: Path) -> None:
    """Read models and data, build each model for each task, print what a run in ``folder`` would do.

    Raises:
        UserError: whatever would stop the run.
    """
    tracking = asked.settings.tracking
    trackers = usable_trackers(tracking.trackers, terminal.warn)
    planned_device(asked.settings.train.precision, asked.cpu, terminal.warn)
    jobs = opening.read_jobs(asked, folder)
    opening.open_run(folder, jobs)
    for line in opening.notes_of(jobs):
        terminal.line(line)
    for job in jobs:
        if job.seed == asked.settings.run.seeds[0]:
            terminal.line(_plan(job))
            for line in told({name: split.unknown for name, split in job.encoded().items()}):
                terminal.line(about(f"{job.data.task.name}/{job.encoder.name}", line))
    done = f"{opening.finished(jobs)} of {len(jobs)} fine-tunings are finished"
    terminal.line(f"records   {destination(tracking, trackers, folder / '<task>/<model>/seed-<n>')}")
    terminal.line(f"run       {folder}, {done if folder.exists() else f'new, {len(jobs)} fine-tunings'}")
    terminal.line("dry run: nothing was trained")


def _plan(job: Job) -> str:
    settings, model = job.settings, build(job.encoder, job.data, job.seed)
    build_adamw(model, settings.optim)
    rows = len(job.data.rows("train", job.seed))
    steps = settings.train.epochs * -(-rows // settings.train.batch_size)
    return (
        f"{job.data.task.name}/{job.encoder.name}: {sum(p.numel() for p in model.parameters()):,} parameters; {steps:,} steps "
        f"({settings.train.epochs} epochs of {rows:,} rows, {settings.train.batch_size} at once) for each seed; learning rate "
        f"{peak_learning_rate(settings.optim, model.config):g}, layer-wise decay {layer_decay(settings.optim, model.config):g}"
    )
