"""The training loop: learning rate -> micro-steps -> clip and step -> log -> evaluate -> save."""

import time

import torch
from transformers import PreTrainedTokenizerBase

from electra_accel.data.loader import StepLoader
from electra_accel.engines.engine import Engine
from electra_accel.errors import Preempted
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.evaluate import HeldOut, evaluate
from electra_accel.pretraining.progress import Progress, save
from electra_accel.pretraining.window import Window
from electra_accel.randomness import Purpose, torch_seed
from electra_accel.runs.schedule import learning_rate
from electra_accel.runs.stopping import StopRequests
from electra_accel.terminal import Terminal, duration
from electra_accel.tracking.health import CHECKS, REMIND_STEPS, diagnose, watched_from
from electra_accel.tracking.recorder import Recorder
from electra_accel.tracking.samples import LEGEND, reconstruct

FIXED_SHOWN, RANDOM_SHOWN = 3, 2  # sentences each time


def train(
    config: Config,
    engine: Engine,
    loader: StepLoader,
    held_out: list[HeldOut],
    progress: Progress,
    total_steps: int,
    window: Window,
    recorder: Recorder,
    terminal: Terminal,
    stop_requests: StopRequests,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Train from ``progress`` on to ``total_steps``, or until ``eval.metric`` has stopped improving. Called on every process.

    ``progress`` is updated in place; the last checkpoint in the run folder is of its final state.

    Raises:
        UserError: the loss is not finite; no space is left for a checkpoint.
        Preempted: a process was asked to stop; the state after its last step is saved.
    """
    model, objective, folder = engine.model, config.objective, recorder.folder
    last_save = time.monotonic()
    if progress.step >= total_steps or progress.stopped_because:
        # Killed after its last step, before all was exported; or it had stopped before, and has fewer steps now.
        if progress.judged_step < progress.step:
            judge_held_out(config, engine, held_out, progress, recorder, terminal)
            show_samples(config, engine, held_out, progress, recorder, terminal, tokenizer)
            recorder.report()
            save(
                folder, engine, progress, terminal.warn, keep=config.checkpoint.keep, keep_best=config.eval.patience > 0
            )
        return
    if progress.step == 0 and progress.judged_step < 0:  # its checkpoint has been judged before it was saved
        judge_held_out(config, engine, held_out, progress, recorder, terminal)
        show_samples(config, engine, held_out, progress, recorder, terminal, tokenizer)
        recorder.report()
        if config.eval.patience:  # the start may turn out to be the best
            save(folder, engine, progress, terminal.warn, keep=config.checkpoint.keep, keep_best=True)
    terminal.start(progress.step, total_steps)
    model.train()
    window.go_on(progress.window)
    waiting = time.monotonic()
    for global_step in loader.steps(progress.cursor, progress.step):
        window.data_wait += time.monotonic() - waiting
        step = progress.step
        rate = learning_rate(
            step,
            peak=config.optim.learning_rate,
            warmup_steps=config.optim.warmup_steps,
            total_steps=total_steps,
            schedule=config.optim.schedule,
        )
        # Both denominators are those of the whole global step, known before the first backward (invariant 3). The same sum
        # tells every process whether any of them was asked to stop.
        counts = torch.stack([batch.counts() for batch in global_step.micro_batches]).sum(0)
        asked_to_stop = stop_requests.reason()
        totals = engine.sum(torch.cat([counts, counts.new_tensor([bool(asked_to_stop)])]).to(engine.device))
        selected, tokens = totals[:2].clamp(min=1)
        votes = engine.read_later(totals[2])
        micro_batches = [batch.to(engine.device) for batch in global_step.micro_batches]
        for micro, batch in enumerate(micro_batches):
            # Dropout depends on the micro-batch's number in the global step, not on the process that computes it.
            number = micro * engine.world_size + engine.rank
            torch.manual_seed(torch_seed(config.run.seed, Purpose.DROPOUT, step, number))
            with engine.micro_step(last=micro == len(micro_batches) - 1):
                output = model(batch)
                loss = (
                    objective.generator_weight * output.generator_loss_sum / selected
                    + objective.discriminator_weight * output.discriminator_loss_sum / tokens
                )
                engine.backward(loss)
            window.add(loss, output.counters)
        gradient_norm = engine.step(rate)
        window.end_step(gradient_norm)

        progress.step, progress.cursor, progress.epoch = step + 1, global_step.cursor, global_step.epoch
        progress.tokens += global_step.tokens
        terminal.update(progress.step)
        done = progress.step == total_steps
        log_due, evaluate_due, samples_due, save_due = (
            done or progress.step % every == 0
            for every in (
                config.tracking.log_every,
                config.eval.every,
                config.tracking.samples_every,
                config.checkpoint.every,
            )
        )
        # A window of figures ends wherever a checkpoint may be written: so a resumed run logs the same figures, and no
        # checkpoint holds weights that a bad loss has touched.
        if log_due or evaluate_due or save_due:
            window.require_finite(progress.step)
            figures = window.figures(progress) | {
                "train/learning_rate": rate,
                "train/gradient_norm": gradient_norm.item(),
                **progress.axes(),
            }
            if progress.step >= watched_from(config.optim.warmup_steps, total_steps):
                figures |= watch(figures, progress, terminal)
            recorder.metrics(figures)
            show_figures(figures, total_steps, terminal)
            window.restart()
            if config.checkpoint.minutes:
                # One clock decides: processes that disagreed would wait for each other for ever.
                minutes = engine.everywhere((time.monotonic() - last_save) / 60)[0]
                save_due = save_due or minutes >= config.checkpoint.minutes
        began = time.monotonic()
        if evaluate_due:
            improved = judge_held_out(config, engine, held_out, progress, recorder, terminal)
            save_due = save_due or (improved and config.eval.patience > 0)
        if samples_due:
            show_samples(config, engine, held_out, progress, recorder, terminal, tokenizer)
        if evaluate_due or samples_due:
            recorder.report()
        stop = done or 0 < config.eval.patience <= progress.bad_evaluations
        preempted = votes() > 0 and not stop
        progress.window = {}
        if preempted:
            window.require_finite(progress.step)
            progress.window = window.unfinished()
        if stop and not done:
            progress.stopped_because = (
                f"{config.eval.metric} has not improved since step {progress.best_step} ({progress.best:.4f})"
            )
            terminal.line(f"stopped early: {progress.stopped_because}")
        if save_due or stop or preempted:
            save(
                folder, engine, progress, terminal.warn, keep=config.checkpoint.keep, keep_best=config.eval.patience > 0
            )
            last_save = time.monotonic()
        if preempted:
            engine.on_main(recorder.close)  # now: when the first process leaves, the launcher ends the others
            raise Preempted(next(filter(None, engine.everywhere(asked_to_stop))))
        if stop:
            break
        window.excluded += time.monotonic() - began
        waiting = time.monotonic()
    terminal.stop()


def judge_held_out(
    config: Config, engine: Engine, held_out: list[HeldOut], progress: Progress, recorder: Recorder, terminal: Terminal
) -> bool:
    """Held-out figures into progress, files and the terminal; True if ``eval.metric`` is the best so far."""
    found = evaluate(held_out, engine, one_network=config.is_mlm)
    figures = found.figures
    recorder.metrics(figures | progress.axes(), found.calibration or None)
    for name in (each.name for each in held_out):
        line = (
            f"{'held out' if name == 'eval' else name + ' text'} at step {progress.step}: generator loss "
            f"{figures[f'{name}/generator_loss']:.3f}, accuracy {figures[f'{name}/generator_accuracy']:.3f}"
        )
        if not config.is_mlm:
            line += (
                f"; discriminator AUC {figures[f'{name}/auc']:.3f} on the fixed corruption, "
                f"{figures[f'{name}_own/auc']:.3f} on its own generator's"
            )
        terminal.line(line)
    return progress.judge(figures, config.eval.metric)


@torch.no_grad()
def show_samples(
    config: Config,
    engine: Engine,
    held_out: list[HeldOut],
    progress: Progress,
    recorder: Recorder,
    terminal: Terminal,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Reconstructions of the same sentences of the domain's held-out text each time, then of some random ones.

    Every process computes, the first one reports.
    """
    if recorder.samples == "none":
        return
    # Which random ones depends on the step alone, so that a resumed run shows the same. The last batches may be empty.
    batches = held_out[0].batches
    sizes = [int((batch.examples >= 0).sum()) for batch in batches]
    chance = torch_seed(config.eval.seed, Purpose.SHOW, progress.step)
    number = chance % max(1, sum(size > 0 for size in sizes))
    last = max(0, sizes[number] - RANDOM_SHOWN)
    first = min(FIXED_SHOWN if number == 0 else 0, last)
    first += chance // len(sizes) % (last - first + 1)
    found = []
    engine.model.eval()
    for which, wanted, fixed in ((0, range(FIXED_SHOWN), True), (number, range(first, first + RANDOM_SHOWN), False)):
        batch = batches[which].to(engine.device)
        output = engine.model(batch)
        if engine.is_main:
            found += reconstruct(batch, output, tokenizer, wanted=wanted, fixed=fixed)
    engine.model.train()
    if not engine.is_main:
        return
    recorder.reconstructions(found, progress.axes())
    terminal.line(f"epoch {progress.epoch:.2f}, step {progress.step}    {LEGEND}")
    for sample in found:
        terminal.pieces("  input : ", sample.input_pieces())
        terminal.pieces("  output: ", sample.output_pieces())


def watch(figures: dict[str, float], progress: Progress, terminal: Terminal) -> dict[str, int]:
    """``health/…`` of a window; what looks like a collapse is told of once, and again if it comes back much later."""
    found = diagnose(figures)
    for name in (name for name, holds in found.items() if holds):
        if name not in progress.warned or progress.step - progress.warned[name] > REMIND_STEPS:
            terminal.warn(f"step {progress.step}: {CHECKS[name]} (health/{name})")
        progress.warned[name] = progress.step
    return {f"health/{name}": holds for name, holds in found.items()}


def show_figures(figures: dict[str, float], total_steps: int, terminal: Terminal) -> None:
    """One log line, and the figures beside the progress bar."""
    step = figures["train/step"]
    left = duration((total_steps - step) * figures["speed/seconds_per_step"])
    speed = f"{figures['speed/tokens_per_second']:,.0f} tokens/s"
    mfu = f", MFU {figures['speed/mfu']:.1%}" if "speed/mfu" in figures else ""
    loss, accuracy = f"loss {figures['train/loss']:.3f}", f"accuracy {figures['train/generator_accuracy']:.3f}"
    short = f"loss {figures['train/loss']:.2f}"
    if "train/auc" in figures:
        loss += f" (generator {figures['train/generator_loss']:.3f}, discriminator {figures['train/discriminator_loss']:.4f})"
        accuracy = (
            f"accuracy: generator {figures['train/generator_accuracy']:.3f}, discriminator "
            f"{figures['train/discriminator_accuracy']:.3f}, AUC {figures['train/auc']:.3f}"
        )
        short += f"  AUC {figures['train/auc']:.3f}"
    terminal.line(
        f"step {step}/{total_steps}  {loss}  {accuracy}  lr {figures['train/learning_rate']:.2e}  {speed} "
        f"({figures['speed/slots_per_second']:,.0f} slots/s{mfu})  {left} left"
    )
    terminal.update(step, f"{left} left  {short}  {speed}", f"{mfu}  data wait {figures['speed/data_wait']:.0%}")
