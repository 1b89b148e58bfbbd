"""The training loop: log -> judge -> show -> save -> stop, then one step: learning rate -> micro-steps -> clip and step."""

import time
from collections.abc import Callable
from functools import partial

import torch

from electra_accel.batch import RTDBatch
from electra_accel.engines.engine import Engine
from electra_accel.engines.recorded import Tensors
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.judge import Judge
from electra_accel.pretraining.log import Log
from electra_accel.pretraining.planned import Planned
from electra_accel.pretraining.progress import Progress, save
from electra_accel.runs.micro_steps import StepSums, micro_steps
from electra_accel.runs.saver import Saver
from electra_accel.runs.schedule import learning_rate
from electra_accel.runs.stopping import StopRequests


def train(
    planned: Planned, engine: Engine, progress: Progress, log: Log, judge: Judge, stop_requests: StopRequests
) -> None:
    """Train from ``progress`` to the last step, or until ``eval.metric`` has stopped improving. Called on every process.

    ``progress`` is updated in place; the last checkpoint in the run folder is of its final state.

    Raises:
        UserError: the losses of several steps in a row are not finite; no space is left for a checkpoint.
        Preempted: a process was asked to stop; the state after its last step is saved.
    """
    with Saver(engine) as saver:
        _train(planned, engine, progress, log, judge, stop_requests, saver)


def _train(
    planned: Planned,
    engine: Engine,
    progress: Progress,
    log: Log,
    judge: Judge,
    stop_requests: StopRequests,
    saver: Saver,
) -> None:
    config, total_steps = planned.config, planned.total_steps
    patience = config.eval.patience
    intervals = config.tracking.log_every, config.eval.every, config.tracking.samples_every, config.checkpoint.every
    global_steps = planned.loader.steps(progress.cursor, progress.step)
    micro_step = engine_micro_step(engine, config, log.terminal.warn)
    sums, last_save = None, time.monotonic()
    while True:
        # Between two steps: log, judge, show, save, stop, each at this one place.
        done = progress.step >= total_steps or bool(progress.stopped_because)
        if begins := sums is None:
            # All that was due at this step was done before its checkpoint was written, but where the run is new, or was
            # killed after its last step, or ends here because it has fewer steps now.
            evaluate_due = samples_due = progress.judged_step < progress.step and (done or progress.step == 0)
            log_due, save_due = False, done and evaluate_due
        else:
            log_due, evaluate_due, samples_due, save_due = (done or progress.step % n == 0 for n in intervals)
        if not begins and (log_due or evaluate_due or save_due):
            # A window of figures ends wherever a checkpoint may be written: so a resumed run logs the same figures, and no
            # checkpoint holds weights that a bad loss has touched.
            log.write(progress)
            if config.checkpoint.minutes:
                # One clock decides: processes that disagreed would wait for each other for ever.
                minutes = engine.everywhere((time.monotonic() - last_save) / 60)[0]
                save_due = save_due or minutes >= config.checkpoint.minutes
        paused = time.monotonic()
        if log_due or evaluate_due or save_due:
            saver.check()
        if evaluate_due:
            improved = judge.judge(progress)
            save_due = save_due or (improved and patience > 0)
        if samples_due:
            judge.show(progress)
        if evaluate_due or samples_due:
            log.recorder.report()
        if evaluate_due and not done and 0 < patience <= progress.bad_evaluations:
            done, save_due = True, True
            progress.stopped_because = (
                f"{config.eval.metric} has not improved since step {progress.best_step} ({progress.best:.4f})"
            )
            log.terminal.line(f"stopped early: {progress.stopped_because}")
        preempted = not begins and not done and sums.asked_to_stop()
        if not begins:
            progress.window = log.unfinished(progress) if preempted else {}
        if save_due or preempted:
            began = time.monotonic()
            save(log.recorder.folder, saver, progress, config, log.terminal.warn)
            last_save = time.monotonic()
            log.checkpoint_stall += last_save - began
        if preempted or done:
            saver.wait()
        if preempted:
            sums.stop(log.recorder.close)
        if done:
            break
        if begins:
            log.begin(progress)
            engine.model.train()
        log.excluded += time.monotonic() - paused if not begins else 0.0

        # One step.
        asked = time.monotonic()
        global_step = next(global_steps)
        log.data_wait += time.monotonic() - asked
        step = progress.step
        schedule = dict(warmup_steps=config.optim.warmup_steps, total_steps=total_steps, schedule=config.optim.schedule)
        # Both denominators are those of the whole global step, known before the first backward (invariant 3).
        counts = torch.stack([batch.counts() for batch in global_step.micro_batches]).sum(0)
        sums = StepSums(engine, stop_requests, counts)
        selected, tokens = sums.counts.clamp(min=1)
        micro_batches = [batch.to(engine.device) for batch in global_step.micro_batches]
        for batch in micro_steps(engine, config.run.seed, step, micro_batches):
            log.add(*micro_step(selected, tokens, *batch.tensors()))
        rate = partial(learning_rate, step, **schedule)
        gradient_norm = engine.step(rate)
        progress.advance(global_step)
        log.end_step(progress.step, gradient_norm, rate)
    log.terminal.stop()


def engine_micro_step(engine: Engine, config: Config, warn: Callable[[str], None]) -> Callable[..., Tensors]:
    """A forward and a backward pass as a function of tensors alone, so that the engine can record it.

    It takes the two denominators of the global step and the tensors of a batch. It returns the loss, 0-d, without gradient,
    and the counters.
    """
    objective = config.objective

    def micro_step(selected: torch.Tensor, tokens: torch.Tensor, *batch: torch.Tensor) -> Tensors:
        output = engine.model(RTDBatch(*batch))
        loss = (
            objective.generator_weight * output.generator_loss_sum / selected
            + objective.discriminator_weight * output.discriminator_loss_sum / tokens
            + objective.corrective_weight * output.corrective_loss_sum / selected
        )
        engine.backward(loss)
        return loss.detach(), output.counters

    return engine.record(micro_step, warn) if config.train.cuda_graphs == "auto" else micro_step
