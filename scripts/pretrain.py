"""Pre-train or domain-adapt ELECTRA by replaced token detection.

    accelerate launch --config_file accelerate_configs/single.yaml scripts/pretrain.py --config recipes/tiny-python-docs.yaml
    accelerate launch --config_file accelerate_configs/ddp.yaml --num_processes 2 scripts/pretrain.py --config …
    python scripts/pretrain.py --config … --dry_run     # check everything, prepare the data, print the plan, train nothing

A run that stopped goes on when the same command is given again with its --run.dir. Exit codes: 0 done, 2 the input is wrong,
75 asked to stop (a signal, a file run.dir/stop, run.deadline) and saved, 1 a bug. ``accelerate launch`` turns all but 0 into
1; the real one is in run.dir/status.json.
"""

import os
import sys
from pathlib import Path

from electra_accel.cli import exit_with_one_line
from electra_accel.pretraining.config import resolve
from electra_accel.pretraining.config_checks import check
from electra_accel.pretraining.config_parser import default_folder, keep_recorded, parse
from electra_accel.terminal import Terminal, quiet_libraries


def main() -> None:
    asked = parse(sys.argv[1:], description=__doc__)
    folder = Path(asked.config.run.dir or default_folder(asked.recipe))
    keep_recorded(asked.config, folder)
    config = resolve(asked.config)
    warnings = check(config)
    quiet_libraries()
    terminal = Terminal(speaks=os.environ.get("RANK", "0") == "0")
    for warning in warnings:
        terminal.warn(warning)

    # Imported only now, so that --help and mistakes are answered at once.
    from electra_accel.engines.open import open_engine
    from electra_accel.pretraining import dry_run, warm_start
    from electra_accel.pretraining.opening import finished
    from electra_accel.pretraining.planned import plan
    from electra_accel.runs.stopping import STOP_FILE, StopRequests
    from electra_accel.tracking.trackers import usable_trackers

    if asked.dry_run:
        return dry_run.report(config, terminal, cpu=asked.cpu, folder=folder)
    trackers = usable_trackers(config.tracking.trackers, terminal.warn)
    how = dict(precision=config.train.precision, optimizer=config.optim.kind, cpu=asked.cpu)
    engine = open_engine(**how, trackers=trackers, folder=folder)
    folder = engine.on_main(lambda: folder)
    stop = StopRequests(folder / STOP_FILE if engine.is_main else None, config.run.deadline)
    planned = plan(config, folder, engine, terminal)
    if message := engine.on_main(lambda: finished(folder, planned.total_steps)):
        terminal.line(message)
    else:
        if engine.on_main(lambda: warm_start.is_due(planned)):
            warm = engine.together(lambda: warm_start.configuration(planned.config, folder))
            train_networks(plan(warm, Path(warm.run.dir), engine, terminal), engine, stop, terminal)
            engine.release()
        train_networks(planned, engine, stop, terminal)


def train_networks(planned, engine, stop, terminal: Terminal) -> None:
    """From the networks' start to their export. Called on every process."""
    from electra_accel.pretraining import taking
    from electra_accel.pretraining.evaluate import fixed_held_out
    from electra_accel.pretraining.exporting import export_run
    from electra_accel.pretraining.judge import Judge
    from electra_accel.pretraining.log import Log
    from electra_accel.pretraining.loop import train
    from electra_accel.pretraining.model_identity import write_model_identity
    from electra_accel.pretraining.networks import joint_module, networks
    from electra_accel.pretraining.optim import build_optimizer
    from electra_accel.pretraining.recording import start_trackers
    from electra_accel.reports import story
    from electra_accel.reports.adaptation import story_of_run
    from electra_accel.reports.closing import closing_lines
    from electra_accel.reports.report import write_report
    from electra_accel.tracking.recorder import Recorder

    config, folder, checkpoint, prepared = planned.config, planned.folder, planned.checkpoint, planned.prepared

    # The networks as one module under one engine.
    new = None if checkpoint else folder
    pair = engine.together(lambda: networks(config, prepared.tokenizer, terminal.line, new))
    model = engine.together(lambda: joint_module(config, pair, prepared.tokenizer, terminal.line))
    engine.on_main(lambda: taking.require_space(folder, model, config, planned.total_steps))
    progress = engine.together(planned.progress)
    optimizer = build_optimizer(model, config.optim)
    engine.prepare(model, optimizer, checkpoint, max_norm=config.optim.max_grad_norm, compile=config.train.compile)
    engine.on_main(lambda: taking.begin(planned, engine, progress, terminal.warn))
    engine.on_main(lambda: write_model_identity(folder, model, prepared))

    with stop, taking.recorded_status(planned, progress, terminal, write_report):
        held_out = fixed_held_out(planned, engine, progress)
        samples = config.tracking.samples
        recorder = Recorder(engine.accelerator, folder, samples=samples, warn=terminal.warn, page=write_report)
        records = start_trackers(recorder, config, progress) if engine.is_main else ""
        recorder.report()
        judged_on = "; ".join(each.describe() for each in held_out)
        for line in planned.opening_lines(engine.describe(), judged_on, records, progress.step):
            terminal.line(line)
        costs = planned.one_pass.costs(*(network and network.config for network in pair))
        log = Log(planned, engine, costs, recorder, terminal)
        judge = Judge(planned, engine, held_out, recorder, terminal)
        train(planned, engine, progress, log, judge, stop)
        exported = export_run(config, engine, progress, folder, story.card, terminal.warn)
        told = engine.on_main(lambda: story_of_run(folder, exported))
        recorder.summary(story.summary_values(told), progress.step)
        recorder.close()
    for line in closing_lines(folder, told):
        terminal.line(line)


if __name__ == "__main__":
    exit_with_one_line(main)
