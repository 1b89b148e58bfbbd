"""Pre-train or domain-adapt ELECTRA by replaced token detection.

    accelerate launch --config_file accelerate_configs/single.yaml scripts/pretrain.py --config recipes/tiny-python-docs.yaml
    accelerate launch --config_file accelerate_configs/ddp.yaml --num_processes 2 scripts/pretrain.py --config …
    python scripts/pretrain.py --config … --dry_run     # check everything, prepare the data, print the plan, train nothing

A run that stopped goes on when the same command is given again with its --run.dir. Exit codes: 0 done, 2 the input is wrong,
75 asked to stop (a signal, a file run.dir/stop, run.deadline) and saved, 1 a bug. ``accelerate launch`` turns all but 0 into
1; run.dir/status.json has the truth.
"""

import os
import sys
from pathlib import Path

from electra_accel.cli import exit_with_one_line
from electra_accel.pretraining.config import Config, resolve
from electra_accel.pretraining.config_checks import check, check_asked
from electra_accel.pretraining.config_parser import parse
from electra_accel.terminal import Terminal, quiet_libraries


def main() -> None:
    asked = parse(sys.argv[1:], description=__doc__)
    config = resolve(asked.config)
    check_asked(config)
    warnings = check(config)
    quiet_libraries()
    terminal = Terminal(speaks=os.environ.get("RANK", "0") == "0")
    for warning in warnings:
        terminal.warn(warning)

    # Imported only now, so that --help and mistakes are answered at once.
    from electra_accel.engines.engine import Engine
    from electra_accel.pretraining import assemble, dry_run
    from electra_accel.runs.stopping import STOP_FILE, StopRequests
    from electra_accel.tracking.trackers import usable_trackers

    folder = Path(config.run.dir or assemble.default_folder(asked.recipe))
    if asked.dry_run:
        return dry_run.report(config, terminal, cpu=asked.cpu, folder=folder)
    trackers = usable_trackers(config.tracking.trackers, terminal.warn)
    engine = Engine(precision=config.train.precision, cpu=asked.cpu, trackers=trackers, folder=folder)
    folder = engine.on_main(lambda: folder)
    stop = StopRequests(folder / STOP_FILE if engine.is_main else None, config.run.deadline)
    pretrain(config, engine, folder, stop, terminal)
    engine.leave()


def pretrain(config: Config, engine, folder: Path, stop, terminal: Terminal) -> None:
    """One run, from text to exported networks. Called on every process."""
    from electra_accel.pretraining import assemble, opening, summary, warm_start
    from electra_accel.pretraining.content import content_of
    from electra_accel.pretraining.evaluate import fixed_held_out
    from electra_accel.pretraining.exporting import export_run
    from electra_accel.pretraining.judge import Judge
    from electra_accel.pretraining.log import Log
    from electra_accel.pretraining.loop import train
    from electra_accel.pretraining.model_identity import write_model_identity
    from electra_accel.pretraining.networks import joint_module, networks
    from electra_accel.pretraining.optim import build_adamw
    from electra_accel.pretraining.progress import Progress, read
    from electra_accel.reports import story
    from electra_accel.reports.adaptation import story_of_run
    from electra_accel.reports.closing import closing_lines
    from electra_accel.reports.report import write_report
    from electra_accel.runs.environment import require_equal_data
    from electra_accel.tracking.recorder import Recorder

    checkpoint = engine.on_main(lambda: opening.open_run(folder, config, terminal.warn))

    # Text -> tokens -> plan: all that is random about the data is settled here, for any hardware.
    prepared = engine.together(lambda: assemble.prepared_data(config, terminal.line))
    require_equal_data(engine, prepared.fingerprint)
    content = engine.on_main(lambda: content_of(config, prepared))
    engine.on_main(lambda: opening.require_same_content(folder, checkpoint, config, content, terminal.line))
    place = {"world_size": engine.world_size, "rank": engine.rank, "device": engine.device.type}
    loader = assemble.step_loader(config, prepared, held_out=False, **place)
    total_steps, one_pass = assemble.total_steps(config, loader, prepared)
    warnings = check(config)
    config = resolve(config, total_steps)
    for warning in set(check(config, total_steps)) - set(warnings):
        terminal.warn(warning)
    if message := engine.on_main(lambda: opening.finished(folder, total_steps)):
        return terminal.line(message)

    if engine.on_main(lambda: warm_start.is_due(config, folder, checkpoint, content)):
        warm = engine.together(lambda: warm_start.configuration(config, folder))
        pretrain(warm, engine, Path(warm.run.dir), stop, terminal)
        engine.release()

    # The networks as one module under one engine.
    tokenizer = prepared.tokenizer
    pair = engine.together(lambda: networks(config, tokenizer, terminal.line, None if checkpoint else folder))
    model = joint_module(config, pair)
    engine.on_main(lambda: opening.require_space(folder, model, config))
    data = assemble.data_identity(loader, prepared)
    progress = engine.together(lambda: read(checkpoint, folder, data, total_steps)) if checkpoint else Progress(data)
    optimizer = build_adamw(model, config.optim)
    engine.prepare(model, optimizer, checkpoint, max_norm=config.optim.max_grad_norm, compile=config.train.compile)
    engine.on_main(lambda: opening.begin(folder, config, content, engine, progress if checkpoint else None))
    engine.on_main(lambda: write_model_identity(folder, model, prepared))

    with stop, opening.recorded_status(folder, config, progress, loader.layout, terminal, write_report):
        held_out_loaders = assemble.held_out_loaders(config, prepared, **place)
        held_out = fixed_held_out(config, held_out_loaders, prepared, engine, progress, folder, checkpoint)
        samples = config.tracking.samples
        recorder = Recorder(engine.accelerator, folder, samples=samples, warn=terminal.warn, page=write_report)
        progress.run_id, records = recorder.start(config, progress.run_id, progress.step)
        recorder.report()
        window = assemble.window(config, engine, loader, pair, prepared)
        log = Log(config, total_steps, window, recorder, terminal)
        judge = Judge(config, engine, held_out, tokenizer, recorder, terminal)
        plan = summary.plan_lines(loader.plan, loader.layout, prepared.manifest, total_steps, one_pass)
        judged_on = "; ".join(each.describe() for each in held_out)
        for line in summary.opening_lines(folder, engine.describe(), plan, judged_on, records, progress.step):
            terminal.line(line)
        train(config, engine, loader, progress, total_steps, log, judge, stop)
        exported = export_run(config, engine, progress, folder, story.card, terminal.warn)
        told = engine.on_main(lambda: story_of_run(folder, exported))
        recorder.summary(story.summary_values(told), progress.step)
        recorder.close()
    for line in closing_lines(folder, told):
        terminal.line(line)


if __name__ == "__main__":
    exit_with_one_line(main)
