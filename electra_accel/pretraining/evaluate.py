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

import numpy as np
import torch

from electra_accel.batch import RTDBatch
from electra_accel.data.loader import StepLoader
from electra_accel.data.manifest import unknown_tokens
from electra_accel.engines.engine import Engine
from electra_accel.errors import UserError
from electra_accel.model.metrics import SCALARS, calibration, standard_errors, summarise
from electra_accel.pretraining.planned import Planned
from electra_accel.pretraining.progress import Progress
from electra_accel.runs import run_folder

PREFIX = {"held_out": "eval", "general": "general"}  # of the figures of each held-out split
GENERATOR_LOSS = SCALARS.index("generator_loss")
UNIGRAM_SAMPLE = 20_000_000  # tokens of the training buffer that are counted


@dataclass
class HeldOut:
    """This process's share of a held-out set.

    Attributes:
        name: prefix of its figures: ``eval`` gives eval/… and eval_own/….
        batches: on the CPU.
        replacements: int64 [R, S] per batch, the fixed replacement at each slot.
        fingerprint: of positions and replacements of the whole set, equal on every process and after every resume.
        counts: of the whole set: examples, tokens, judged (tokens without [CLS] and [SEP]), selected, replaced.
        chance: generator accuracy of always guessing the most frequent token.
    """

    name: str
    batches: list[RTDBatch]
    replacements: list[torch.Tensor]
    fingerprint: str
    counts: dict[str, int]
    chance: float

    def describe(self) -> str:
        """For the start-up lines."""
        name = "" if self.name == PREFIX["held_out"] else f"{self.name} text, "
        return f"{name}{self.counts['examples']:,} examples, corruption {self.fingerprint}"


@dataclass
class Evaluation:
    """Held-out figures by name (``eval/…``, ``eval_own/…``), and the calibration on the fixed corruption."""

    figures: dict[str, float]
    calibration: list[tuple[float, float, int]]


def unigram_counts(tokens: np.ndarray, vocab_size: int, special_ids: Iterable[int]) -> np.ndarray:
    """How often each token occurs at the start of the training buffer (int64 [vocab_size]); special tokens count as 0."""
    counts = np.bincount(tokens[:UNIGRAM_SAMPLE], minlength=vocab_size)
    counts[list(special_ids)] = 0
    return counts


def unigram_draw(counts: np.ndarray) -> Callable[[RTDBatch], torch.Tensor]:
    """A drawer of replacements by token frequency: int64 [R, S] from the batch's keyed uniform numbers."""
    cumulative = torch.from_numpy(np.cumsum(counts, dtype=np.float64))

    def draw(batch: RTDBatch) -> torch.Tensor:
        return torch.searchsorted(cumulative, batch.slot_uniform * cumulative[-1], right=True)

    return draw


def generator_draw(engine: Engine) -> Callable[[RTDBatch], torch.Tensor]:
    """A drawer of replacements that are samples of the present generator."""

    @torch.no_grad()
    def draw(batch: RTDBatch) -> torch.Tensor:
        engine.model.eval()
        return engine.model(batch.to(engine.device)).sampled.cpu()

    return draw


def build_held_out(
    name: str,
    loader: StepLoader,
    steps: int,
    draw: Callable[[RTDBatch], torch.Tensor],
    *,
    most_frequent: int,
    engine: Engine,
    file: Path,
    origin: Path | None,
) -> HeldOut:
    """Fix the corruption, or take it from ``file`` when the run is resumed. Called on every process.

    Args:
        loader: of the held-out text: one pass, keyed by ``eval.seed``.
        steps: how many of its steps are used at most.
        draw: gives the replacements of a batch, int64 [R, S].
        most_frequent: token of the baseline ``chance``.
        file: .npy in the run folder, int64 [2, bins, S]: positions and replacements of every bin.
        origin: the same file of the run that this one was resumed from, if it was another.

    Raises:
        UserError: the file does not belong to this held-out set.
    """
    layout, bins_per_step = loader.layout, loader.plan.bins_per_step
    planned = [step.micro_batches for step in islice(loader.steps(), steps)]
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
    replacements = []
    for batch, row, real in zip(batches, rows, inside):
        if not torch.equal(drawn[0, row], batch.slot_positions[real]):
            raise UserError(f"{file} does not belong to this held-out set; use another --run.dir")
        replacements.append(torch.zeros_like(batch.slot_positions))
        replacements[-1][real] = drawn[1, row]
    sums = torch.zeros(6, dtype=torch.int64)
    for batch, replacement in zip(batches, replacements):
        hits, replaced = batch.slot_labels == most_frequent, batch.slot_labels != replacement
        sums += torch.stack(
            [
                (batch.examples >= 0).sum(),
                batch.real.sum(),
                batch.inner.sum(),
                batch.slot_used.sum(),
                (replaced & batch.slot_used).sum(),
                (hits & batch.slot_used).sum(),
            ]
        )
    *counts, hits = engine.sum(sums.to(engine.device)).tolist()
    counts = dict(zip(("examples", "tokens", "judged", "selected", "replaced"), counts, strict=True))
    fingerprint = hashlib.sha256(drawn.numpy().tobytes()).hexdigest()[:16]
    return HeldOut(name, batches, replacements, fingerprint, counts, chance=hits / max(counts["selected"], 1))


def fixed_held_out(planned: Planned, engine: Engine, progress: Progress) -> list[HeldOut]:
    """The held-out sets of a run, the domain's first: replacements by the starting pair's generator, or by token frequency from
    scratch.

    Args:
        progress: takes up the corruptions' fingerprint; one that it has already must be the same.

    Raises:
        UserError: the corruption that a resumed run was judged by is gone, so its figures would no longer compare.
    """
    config, folder, prepared, loaders = planned.config, planned.folder, planned.prepared, planned.held_out_loaders()
    tokenizer = prepared.tokenizer
    counts = unigram_counts(prepared.train.tokens, len(tokenizer), tokenizer.all_special_ids)
    by_generator = config.from_pair and not config.is_mlm
    sets, identities = [], {}
    for split, loader in loaders.items():
        file = Path(run_folder.HELD_OUT) / f"{split}.npy"
        held_out = build_held_out(
            PREFIX[split],
            loader,
            config.eval.batches,
            generator_draw(engine) if by_generator else unigram_draw(counts),
            most_frequent=int(counts.argmax()),
            engine=engine,
            file=folder / file,
            origin=planned.checkpoint.resolve().parent.parent / file if planned.checkpoint else None,
        )
        identities[folder / file.with_suffix(".json")] = {
            "corruption": held_out.fingerprint,
            "replacements": "generator of the starting pair" if by_generator else "token frequency",
            "mask_prob": config.eval.mask_prob,
            "seed": config.eval.seed,
            "data": prepared.manifest["splits"][split]["fingerprint"],
            "tokenizer": prepared.manifest["tokenizer"],
            **held_out.counts,
            "chance": held_out.chance,
            "unknown": round(unknown_tokens(prepared.manifest)[split].share, 6),
        }
        sets.append(held_out)
    fingerprint = "+".join(held_out.fingerprint for held_out in sets)
    if progress.corruption not in ("", fingerprint):
        raise UserError(
            f"{folder / run_folder.HELD_OUT}: {', '.join(f'{split}.npy' for split in loaders)} is not the held-out corruption "
            "of this run: restore it, or use another --run.dir"
        )
    progress.corruption = fingerprint
    engine.on_main(lambda: [run_folder.write_json(file, identity) for file, identity in identities.items()])
    return sets


def evaluate(sets: list[HeldOut], engine: Engine, *, one_network: bool) -> Evaluation:
    """All metrics of each set on its fixed corruption (``eval/…``) and against the own generator (``eval_own/…``), over all
    processes. The calibration is the first set's.

    Args:
        one_network: there is a generator (a masked language model) alone, and figures of nothing else.
    """
    figures, calibrations = {}, []
    for held_out in sets:
        fixed, own = engine.sum(totals(engine, zip(held_out.batches, held_out.replacements))).cpu()
        calibrated = calibration(fixed)
        found = summarise(fixed) | standard_errors(fixed) | {"calibration_error": calibrated.error}
        calibrations.append(calibrated.bins)
        named = {f"{held_out.name}/{key}": value for key, value in found.items()}
        named |= {f"{held_out.name}_own/{key}": value for key, value in summarise(own).items()}
        if one_network:
            named = {name: value for name, value in named.items() if name.startswith(f"{held_out.name}/generator_")}
        figures |= named
    return Evaluation(figures, [] if one_network else calibrations[0])


@torch.no_grad()
def totals(engine: Engine, corrupted: Iterable[tuple[RTDBatch, torch.Tensor]]) -> torch.Tensor:
    """This process's counters over batches with their fixed replacements: float64 [2, counters] on the device, of the
    discriminator on the fixed corruption and against its own generator."""
    model, total = engine.model, 0
    model.eval()
    for batch, replacements in corrupted:
        batch = batch.to(engine.device)
        fixed = model(batch, replacements.to(engine.device))
        own = fixed if fixed.discriminator_logits is None else model(batch)
        # Of a generator whose losses are NaN nothing can be drawn, so nothing is known of verdicts on it.
        drawn = torch.where(own.counters[GENERATOR_LOSS].isnan(), math.nan, 0.0)
        total += torch.stack([fixed.counters, own.counters + drawn])
    model.train()
    return total


def _save(file: Path, array: np.ndarray) -> None:
    with run_folder.storage_errors(file.parent.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(file.name + ".partial")
        with open(partial, "wb") as out:
            np.save(out, array)
        partial.replace(file)
