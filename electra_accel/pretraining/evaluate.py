"""Held-out figures that compare: one fixed corruption for the whole run (invariant 10).

Positions are keyed by ``eval.seed``, replacements are drawn once: by the starting pair's generator, or by unigram draws when
training from scratch. They are kept in the run folder with a fingerprint, so that a resumed run scores the same sentences.
The figures against the run's own current generator are given apart.
"""

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from electra_accel.batch import RTDBatch
from electra_accel.data.loader import StepLoader
from electra_accel.data.manifest import unknown_tokens
from electra_accel.data.prepare import Prepared
from electra_accel.durable import flush, flush_names
from electra_accel.engines.engine import Engine
from electra_accel.engines.recorded import Tensors
from electra_accel.errors import UserError
from electra_accel.model.metrics import SCALARS, calibration, standard_errors, summarise
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.planned import Planned
from electra_accel.pretraining.progress import Progress
from electra_accel.runs import run_folder

PREFIX = {"held_out": "eval", "general": "general"}  # of the figures of each held-out split
GENERATOR_LOSS = SCALARS.index("generator_loss")
UNIGRAM_SAMPLE = 20_000_000  # tokens of the training buffer that are counted

Draw = Callable[[RTDBatch], torch.Tensor]  # gives the replacements of a batch, int64 [R, S]


@dataclass
class HeldOut:
    """This process's share of a held-out set."""

    name: str  # prefix of its figures: ``eval`` gives eval/… and eval_own/…
    batches: list[RTDBatch]  # on the CPU
    replacements: list[torch.Tensor]  # int64 [R, S] per batch, the fixed replacement at each slot
    identity: dict[str, Any]  # see :func:`identity_of`; equal on every process and after every resume
    # :func:`judging`, recorded for the shapes of these batches; None: not recorded.
    judge: Callable[..., Tensors] | None = None

    def describe(self) -> str:
        """For the start-up lines."""
        name = "" if self.name == PREFIX["held_out"] else f"{self.name} text, "
        return f"{name}{self.identity['examples']:,} examples, corruption {self.identity['corruption']}"


def identity_of(
    config: Config,
    prepared: Prepared,
    split: str,
    corruption: str,
    replacements: str,
    counts: dict[str, int],
    hits: int,
) -> dict[str, Any]:
    """What figures of two pairs must share to be compared, and counts of the whole set.

    Args:
        corruption: fingerprint of positions and replacements; ``replacements``: who drew them, in words.
        counts: examples, tokens, judged (tokens without [CLS] and [SEP]), selected, replaced.
        hits: selected tokens that are the most frequent one; ``chance`` is the accuracy of always guessing it.
    """
    return {
        "corruption": corruption,
        "replacements": replacements,
        "mask_prob": config.eval.mask_prob,
        "seed": config.eval.seed,
        "data": prepared.manifest["splits"][split]["fingerprint"],
        "tokenizer": prepared.manifest["tokenizer"],
        **counts,
        "chance": hits / max(counts["selected"], 1),
        "unknown": round(unknown_tokens(prepared.manifest)[split].share, 6),
    }


def unigram_counts(prepared: Prepared) -> np.ndarray:
    """How often each token occurs at the start of the training buffer (int64 [vocabulary]); special tokens count as 0."""
    counts = np.bincount(prepared.train.tokens[:UNIGRAM_SAMPLE], minlength=len(prepared.tokenizer))
    counts[prepared.tokenizer.all_special_ids] = 0
    return counts


def unigram_draw(counts: np.ndarray) -> Draw:
    """Draws by token frequency, from the batch's keyed uniform numbers."""
    cumulative = torch.from_numpy(np.cumsum(counts, dtype=np.float64))

    def draw(batch: RTDBatch) -> torch.Tensor:
        return torch.searchsorted(cumulative, batch.slot_uniform * cumulative[-1], right=True)

    return draw


def generator_draw(model: nn.Module, device: torch.device, source: str = "") -> Draw:
    """Samples of the present generator of a joint module; UserError where one with a ``source`` answers with NaN."""

    @torch.no_grad()
    def draw(batch: RTDBatch) -> torch.Tensor:
        model.eval()
        output = model(batch.to(device))
        if source and output.generator_loss_sum.isnan():
            raise UserError(f"--reference_generator: {source} answers with NaN: its weights are damaged")
        return output.sampled.cpu()

    return draw


def build_held_out(
    config: Config,
    prepared: Prepared,
    split: str,
    loader: StepLoader,
    draw: Draw,
    replacements: str,
    *,
    most_frequent: int,
    engine: Engine,
    file: Path,
    origin: Path | None = None,
) -> HeldOut:
    """Fix the corruption, or take it from ``file`` when the run is resumed. Called on every process.

    Args:
        loader: of the held-out text: one pass, keyed by ``eval.seed``, of which ``eval.batches`` steps are used at most.
        replacements: who drew them, in words.
        most_frequent: token of the baseline ``chance``.
        file: .npy in the run folder, int64 [2, bins, S]: positions and replacements of every bin.
        origin: the same file of the run that this one was resumed from, if it was another.

    Raises:
        UserError: the file does not belong to this held-out set.
    """
    layout, bins_per_step = loader.layout, loader.plan.bins_per_step
    planned = [step.micro_batches for step in islice(loader.steps(), config.eval.batches)]
    batches = [batch for micro_batches in planned for batch in micro_batches]
    rows, inside = [], []  # for each batch: which bins of the set its rows are; False where the layout filled up a step
    for index, micro_batches in enumerate(planned):
        for micro in range(len(micro_batches)):
            in_step = (micro * layout.world_size + engine.rank) * layout.rows + torch.arange(layout.rows)
            inside.append(in_step < bins_per_step)
            rows.append((index * bins_per_step + in_step)[inside[-1]])
    known = [path for path in (file, origin) if path is not None]
    drawn = engine.on_main(lambda: next((np.load(path) for path in known if path.exists()), None))
    if drawn is None:
        drawn = torch.zeros(2, len(planned) * bins_per_step, batches[0].slot_positions.shape[1], dtype=torch.int64)
        for batch, row, real in zip(batches, rows, inside):
            drawn[:, row] = torch.stack([batch.slot_positions, draw(batch)])[:, real]
        drawn = engine.sum(drawn.to(engine.device)).cpu().numpy()
    engine.on_main(lambda: file.exists() or _save(file, drawn))
    drawn = torch.from_numpy(drawn)
    fixed, sums = [], torch.zeros(6, dtype=torch.int64)
    for batch, row, real in zip(batches, rows, inside):
        if not torch.equal(drawn[0, row], batch.slot_positions[real]):
            raise UserError(f"{file} does not belong to this held-out set; use another --run.dir")
        fixed.append(torch.zeros_like(batch.slot_positions))
        fixed[-1][real] = drawn[1, row]
        replaced, hits = batch.slot_labels != fixed[-1], batch.slot_labels == most_frequent
        counted = (batch.examples >= 0, batch.real, batch.inner, batch.slot_used, replaced & batch.slot_used)
        sums += torch.stack([which.sum() for which in (*counted, hits & batch.slot_used)])
    *counts, hits = engine.sum(sums.to(engine.device)).tolist()
    counts = dict(zip(("examples", "tokens", "judged", "selected", "replaced"), counts, strict=True))
    fingerprint = hashlib.sha256(drawn.numpy().tobytes()).hexdigest()[:16]
    identity = identity_of(config, prepared, split, fingerprint, replacements, counts, hits)
    return HeldOut(PREFIX[split], batches, fixed, identity)


def fixed_held_out(planned: Planned, engine: Engine, progress: Progress) -> list[HeldOut]:
    """The held-out sets of a run, the domain's first: replacements by the starting pair's generator, or by token frequency from
    scratch. ``progress`` takes up the corruptions' fingerprint.

    Raises:
        UserError: the corruption that a resumed run was judged by is gone, so its figures would no longer compare.
    """
    config, folder, prepared = planned.config, planned.folder / run_folder.HELD_OUT, planned.prepared
    counts = unigram_counts(prepared)
    draw, replacements = unigram_draw(counts), "token frequency"
    if config.from_pair and not config.is_mlm:
        draw, replacements = generator_draw(engine.model, engine.device), "generator of the starting pair"
    origin = planned.checkpoint and planned.checkpoint.resolve().parent.parent / run_folder.HELD_OUT
    common, sets = dict(most_frequent=int(counts.argmax()), engine=engine), {}
    for split, loader in planned.held_out_loaders().items():
        files = dict(file=folder / f"{split}.npy", origin=origin and origin / f"{split}.npy")
        sets[split] = build_held_out(config, prepared, split, loader, draw, replacements, **files, **common)
    fingerprint = "+".join(each.identity["corruption"] for each in sets.values())
    if progress.corruption not in ("", fingerprint):
        raise UserError(
            f"{folder}: {', '.join(f'{split}.npy' for split in sets)} is not the held-out corruption "
            "of this run: restore it, or use another --run.dir"
        )
    progress.corruption = fingerprint
    for split, held_out in sets.items():
        engine.on_main(lambda s=split, h=held_out: run_folder.write_json(folder / f"{s}.json", h.identity))
    return list(sets.values())


def evaluate(
    sets: list[HeldOut], engine: Engine, *, one_network: bool
) -> tuple[dict[str, float], list[tuple[float, float, int]] | None]:
    """All metrics of each set on its fixed corruption (``eval/…``) and against the own generator (``eval_own/…``), over all
    processes; and the first set's calibration on the fixed one. Of ``one_network``, a masked language model, the generator's
    metrics alone.
    """
    figures, calibrations = {}, []
    for held_out in sets:
        name = held_out.name
        corrupted = zip(held_out.batches, held_out.replacements)
        fixed, own = engine.sum(totals(engine, corrupted, held_out.judge)).cpu()
        calibrated = calibration(fixed)
        calibrations.append(calibrated.bins)
        found = summarise(fixed) | standard_errors(fixed) | {"calibration_error": calibrated.error}
        named = {f"{name}/{key}": value for key, value in found.items()}
        named |= {f"{name}_own/{key}": value for key, value in summarise(own).items()}
        figures |= {
            key: value for key, value in named.items() if not one_network or key.startswith(f"{name}/generator_")
        }
    return figures, None if one_network else calibrations[0] or None


@torch.no_grad()
def totals(
    engine: Engine, corrupted: Iterable[tuple[RTDBatch, torch.Tensor]], judge: Callable[..., Tensors] | None = None
) -> torch.Tensor:
    """This process's counters over batches with their fixed replacements: float64 [2, counters] on the device, of the
    discriminator on the fixed corruption and against its own generator. ``judge``: :func:`judging`, where it was recorded."""
    judge, total = judge or judging(engine), 0
    engine.model.eval()
    for batch, replacements in corrupted:
        (found,) = judge(replacements.to(engine.device), *batch.to(engine.device).tensors())
        total += found
    engine.model.train()
    return total


def judging(engine: Engine) -> Callable[..., Tensors]:
    """Takes the fixed replacements and the tensors of a batch, and gives its share of :func:`totals`."""

    def judge(replacements: torch.Tensor, *tensors: torch.Tensor) -> Tensors:
        batch = RTDBatch(*tensors)
        fixed = engine.model(batch, replacements)
        own = fixed if fixed.discriminator_logits is None else engine.model(batch)
        # Of a generator whose losses are NaN nothing can be drawn, so nothing is known of verdicts on it.
        drawn = torch.where(own.counters[GENERATOR_LOSS].isnan(), math.nan, 0.0)
        return (torch.stack([fixed.counters, own.counters + drawn]),)

    return judge


def _save(file: Path, array: np.ndarray) -> None:
    with run_folder.storage_errors(file.parent.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(file.name + ".partial")
        with open(partial, "wb") as out:
            np.save(out, array)
        flush(partial)
        partial.replace(file)
        flush_names(file.parent)
        flush_names(file.parent.parent)
