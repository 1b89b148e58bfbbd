"""Fine-tune one model on one task with one seed: learning rate -> micro-steps -> step -> log -> judge dev -> save; then score.

Order and dropout are keyed by the seed, so a fine-tuning that was stopped begins again after its last whole epoch and ends
with the same bits. A step is ``train.batch_size`` examples whatever the hardware; the last one of an epoch may have fewer.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch

from electra_accel.engines.engine import Engine
from electra_accel.errors import UserError
from electra_accel.finetuning import job as jobs
from electra_accel.finetuning.heads import build
from electra_accel.finetuning.job import Job, State
from electra_accel.finetuning.kinds.kind import are_numbers
from electra_accel.finetuning.layer_rates import build_adamw, peak_learning_rate
from electra_accel.finetuning.saving import save_model
from electra_accel.finetuning.tasks import Encoded
from electra_accel.randomness import Purpose, key, permute
from electra_accel.runs import checkpoint, run_folder
from electra_accel.runs.micro_steps import StepSums, micro_steps
from electra_accel.runs.schedule import learning_rate
from electra_accel.runs.stopping import StopRequests
from electra_accel.terminal import Terminal, duration
from electra_accel.text.letters import about
from electra_accel.text.unknown import told
from electra_accel.tracking.recorder import Recorder

LOWER_RATE = "give a lower --optim.learning_rate, and another --run.dir"
OUT_OF_TIME = ("run.deadline", "signal SIGUSR1")  # of a stop that the next start will meet too; Slurm sends the signal
LONGER = "give more time, or fewer examples (--task.train_rows, with another --run.dir)"
MAX_GRAD_NORM = 1.0  # as in the released code
CPU_MICRO_BATCH = 16  # half of a batch: film reviews of 20 tokens, padded to their longest, train 1.5 times as fast


def finetune(
    job: Job,
    engine: Engine,
    start_recorder: Callable[[Job, State], Recorder],
    terminal: Terminal,
    stop_requests: StopRequests,
) -> None:
    """From the newest checkpoint, or the start, to ``result.json``. Called on every process.

    Raises:
        UserError: model or data cannot be used; the loss is not finite; no space is left.
        Preempted: a process was asked to stop; it goes on after its last whole epoch.
    """
    encoded = job.encoded()
    if job.seed == job.settings.run.seeds[0]:
        for name, split in encoded.items():
            if split.cut:
                terminal.line(f"{job.name}: {split.cut:,} of {len(split):,} texts of {name} are cut at task.max_length")
        for line in told({name: split.unknown for name, split in encoded.items()}):
            terminal.line(about(job.name, line))
    path = engine.on_main(lambda: checkpoint.newest_valid(job.folder / run_folder.CHECKPOINTS, terminal.warn))
    state = engine.together(lambda: jobs.read_state(path))
    engine.on_main(lambda: jobs.begin(job, state))
    recorder = start_recorder(job, state)
    _prepare(job, engine, path)
    train(job, engine, encoded["train"], encoded["dev"], state, recorder, terminal, stop_requests)

    result: dict[str, Any] = {
        "best_epoch": state.best_epoch,
        "metric": job.data.task.metric,
        "seconds": round(state.seconds, 2),
        "rows": {name: len(split) for name, split in encoded.items()},
        "cut_texts": {name: split.cut for name, split in encoded.items()},
        "unknown_tokens": {name: round(split.unknown.share, 6) for name, split in encoded.items()},
        "computed_with": _computed_with(job, engine),
        "dev": state.dev[state.best_epoch - 1],
    }
    keeps = job.settings.run.save_models == "best"
    best = engine.on_main(lambda: jobs.best_checkpoint(job, state)) if keeps or "test" in encoded else None
    if "test" in encoded:
        # The best epoch's weights, by the one way of loading that every engine has.
        engine.release()
        _prepare(job, engine, best)
        records = score(engine, encoded["test"], job)
        engine.on_main(lambda: jobs.write_predictions(job, "test", records))
        result["test"] = job.data.kind.figures(records)
    if keeps:
        engine.on_main(lambda: save_model(job, best, result))
    engine.on_main(lambda: jobs.finish(job, result))
    engine.release()
    last = {f"final/{split}/{name}": v for split in ("dev", "test") for name, v in result.get(split, {}).items()}
    last = {name: value for name, value in last.items() if value is not None}
    recorder.summary(last | {"final/epoch": state.best_epoch}, state.step)
    engine.on_main(recorder.close)


def _at_once(job: Job, engine: Engine) -> int:
    settings = job.settings.train
    return settings.micro_batch_size or (CPU_MICRO_BATCH if engine.device.type == "cpu" else settings.batch_size)


def _computed_with(job: Job, engine: Engine) -> str:
    """What decides rounding and the draws of dropout, beside the seed."""
    precision = "fp32" if engine.precision == "no" else engine.precision
    return f"{engine.device.type}, {precision}, {engine.world_size} x {_at_once(job, engine)} examples at once"


def _prepare(job: Job, engine: Engine, path) -> None:
    model = engine.together(lambda: build(job.encoder, job.data, job.seed))
    optimizer = build_adamw(model, job.settings.optim)
    engine.prepare(model, optimizer, path, max_norm=MAX_GRAD_NORM)


def train(
    job: Job,
    engine: Engine,
    data: Encoded,
    dev: Encoded,
    state: State,
    recorder: Recorder,
    terminal: Terminal,
    stop_requests: StopRequests,
) -> None:
    """Train from ``state``, which is updated in place, to the last epoch; a checkpoint of the best epoch stays."""
    settings, epochs = job.settings, job.settings.train.epochs
    size, weights, lengths, at_once = settings.train.batch_size, data.weights(), data.lengths(), _at_once(job, engine)
    steps_an_epoch = -(-len(data) // size)
    total = epochs * steps_an_epoch
    if state.step != len(state.dev) * steps_an_epoch:
        raise UserError(f"{job.folder} was stopped inside an epoch by an earlier version: remove it to train it again")
    peak = peak_learning_rate(settings.optim, job.encoder.config)
    warmup = round(settings.optim.warmup_fraction * total)
    began = time.monotonic() - state.seconds
    terminal.start(state.step, total)
    for epoch in range(len(state.dev), epochs):
        epoch_began = time.monotonic()
        order = permute(np.arange(len(data)), len(data), key(job.seed, Purpose.ORDER, epoch))
        engine.model.train()
        loss_so_far, targets_so_far = torch.zeros((), dtype=torch.float64, device=engine.device), 0.0
        loss_of_epoch = targets_of_epoch = 0.0
        for begin in range(0, len(data), size):
            examples = order[begin : begin + size]
            examples = examples[np.argsort(lengths[examples], kind="stable")]  # so that its parts need less padding
            targets = max(1.0, float(weights[examples].sum()))
            sums = StepSums(engine, stop_requests)
            for piece in micro_steps(engine, job.seed, state.step, split_over(examples, engine, at_once)):
                inputs, wanted = data.batch(piece if len(piece) else examples[:1], engine.device)
                # A process without an example of a short batch must take part all the same.
                loss = job.data.kind.loss_sum(engine.model(**inputs).logits, wanted) * (len(piece) > 0)
                engine.backward(loss / targets)
                loss_so_far += loss.detach()
            rate = partial(learning_rate, state.step, warmup_steps=warmup, total_steps=total, schedule="linear")
            norm = engine.step(rate)
            state.step, targets_so_far = state.step + 1, targets_so_far + targets
            terminal.update(state.step)
            epoch_ends = begin + size >= len(data)
            if epoch_ends or state.step % settings.tracking.log_every == 0:
                whole = engine.sum(loss_so_far).item()
                if not np.isfinite(whole):
                    raise UserError(f"{job.name}: the loss is not finite at step {state.step}: {LOWER_RATE}")
                state.seconds = time.monotonic() - began
                figures = {
                    "train/step": state.step,
                    "train/epoch": state.step / steps_an_epoch,
                    "train/loss": whole / targets_so_far,
                    "train/learning_rate": rate(peak),
                    "train/gradient_norm": norm.item(),
                    "speed/examples_per_second": state.step * size / state.seconds,
                }
                recorder.metrics(figures)
                loss_of_epoch, targets_of_epoch = loss_of_epoch + whole, targets_of_epoch + targets_so_far
                targets_so_far = 0.0
                loss_so_far.zero_()
            if not epoch_ends and sums.asked_to_stop():
                seconds, out_of_time = time.monotonic() - epoch_began, sums.why() in OUT_OF_TIME
                line, again = _lost(job, engine, state.step, steps_an_epoch, seconds, out_of_time)
                if again:
                    engine.on_main(recorder.close)
                    raise UserError(line)
                terminal.line(line)
                sums.stop(recorder.close)
        records = score(engine, dev, job)
        found = job.data.kind.figures(records)
        if state.judge(found, job.data.task.metric):
            engine.on_main(lambda records=records: jobs.write_predictions(job, "dev", records))
        named = {f"dev/{name}": float("nan") if value is None else value for name, value in found.items()}
        recorder.metrics({"train/step": state.step, "train/epoch": epoch + 1.0, **named})
        shown = ", ".join(f"{name} {'undefined' if v is None else format(v, '.4f')}" for name, v in found.items())
        mean = loss_of_epoch / targets_of_epoch
        terminal.line(f"{job.name}  epoch {epoch + 1}/{epochs}  loss {mean:.4f}  dev: {shown}")
        state.seconds = time.monotonic() - began
        _save(job, engine, state, terminal.warn)
        if state.step < total and sums.asked_to_stop():
            sums.stop(recorder.close)
    terminal.stop()


def _save(job: Job, engine: Engine, state: State, warn: Callable[[str], None]) -> None:
    """After an epoch; the best one stays beside it."""
    snapshot, best = engine.snapshot(), {state.best_step}
    engine.on_main(
        lambda: checkpoint.write(job.folder, snapshot, state.step, asdict(state), warn, keep=1, protect=best)
    )


def _lost(
    job: Job, engine: Engine, step: int, steps_an_epoch: int, seconds: float, out_of_time: bool
) -> tuple[str, bool]:
    """What a stop inside an epoch means, ``seconds`` after that began. Called on every process.

    Returns: the line to print; and whether the time ran out in the start before this one too, inside the same epoch. Then the
        job must end with an error: it would requeue itself for ever.
    """
    done, epoch = step % steps_an_epoch, step // steps_an_epoch + 1
    again = out_of_time and engine.on_main(lambda: jobs.stopped_here_before(job, step - done))
    where = f"{job.name}: stopped{' again' * again} at step {done} of {steps_an_epoch} of epoch {epoch}"
    then = (
        "with as little time another start would end in the same way"
        if again
        else "the next start begins this epoch again"
    )
    takes = duration(seconds / done * steps_an_epoch)
    return f"{where}. Only whole epochs are saved: {then}. An epoch takes about {takes}: {LONGER}", again


def split_over(examples: np.ndarray, engine: Engine, most: int) -> list[np.ndarray]:
    """The parts of a batch that this process computes one after the other; the same number of them on every process.

    Args:
        most: examples at once. A part may be empty.
    """
    parts = -(-len(examples) // (most * engine.world_size))
    return np.array_split(examples, parts * engine.world_size)[engine.rank :: engine.world_size]


@torch.no_grad()
def score(engine: Engine, data: Encoded, job: Job) -> list[dict]:
    """Predictions of the engine's model for every row once, in order, on every process (see ``Kind.predictions``).

    Raises:
        UserError: its outputs are not finite.
    """
    model, size = engine.model, job.settings.train.micro_batch_size or job.settings.train.batch_size
    model.eval()
    by_length = np.argsort(data.lengths(), kind="stable")  # less padding, the same figures
    mine: list[list[np.ndarray]] = []
    for begin in range(0, len(data), size * engine.world_size):
        examples = by_length[begin : begin + size * engine.world_size]
        piece = np.array_split(examples, engine.world_size)[engine.rank]
        inputs, targets = data.batch(piece if len(piece) else examples[:1], engine.device)
        mine.append(job.data.kind.outputs(model(**inputs).logits, targets)[: len(piece)])
    batches = zip(*engine.everywhere(mine), strict=True)
    ordered = [output for of_all in batches for of_one in of_all for output in of_one]
    if not are_numbers(ordered):
        raise UserError(f"{job.name}: the model's outputs are not finite: {LOWER_RATE}")
    in_place = [ordered[i] for i in np.argsort(by_length)]
    return job.data.kind.predictions(data.rows, in_place, data.words)
