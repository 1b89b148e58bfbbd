"""All held-out figures of a saved pair on any text, on one fixed corruption, whoever trained the pair and how.

Two pairs that are judged on the same text with one tokenizer, one mask_prob, one seed and one way to draw replacements see
the identical corruption, which its fingerprint shows. In fp32 on one process; nothing is written into a run folder. A run
that is being trained is judged by ``pretraining/evaluate.py``.
"""

import copy
import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from electra_accel.batch import RTDBatch
from electra_accel.data.loader import StepLoader
from electra_accel.data.prepare import Prepared, prepare
from electra_accel.engines.engine import Engine
from electra_accel.engines.open import open_engine
from electra_accel.errors import UserError
from electra_accel.model.figures import standard_errors as figure_errors
from electra_accel.model.metrics import SCALARS, calibration, standard_errors, summarise
from electra_accel.model.pair import check_pair
from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.pretraining import assemble, evaluate, saved_pairs
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.saved_pairs import Log, SavedPair
from electra_accel.runs import run_folder
from electra_accel.text.corpus import Corpus
from electra_accel.text.tokenizer import fingerprint

BINS_PER_STEP = 64  # of a text that no run was judged on; the figures do not depend on it


def evaluate_files(
    saved: SavedPair,
    files: Sequence[str],
    text_column: str = "text",
    *,
    mask_prob: float | None = None,
    seed: int | None = None,
    max_length: int | None = None,
    reference: str | None = None,
    cpu: bool = False,
    log: Log = print,
) -> dict[str, Any]:
    """Judge on a text. Replacements are drawn by the text's own token frequency, or by a reference generator.

    Args:
        files, text_column: as for training; prepared in ``./prepared`` with the pair's tokenizer.
        mask_prob, seed, max_length: ``eval.mask_prob``, ``eval.seed`` and ``data.max_length`` of the run unless given.
        reference: folder or hub id of a generator with the same vocabulary.

    Returns:
        ``eval`` and ``eval_own``: figures by name (``auc``, …) on the fixed corruption, and against the pair's own generator;
            one that has no denominator, or that is not finite, is None.
        ``standard_errors``: of both, for figures that have one (see ``intervals``).
        ``calibration``: see ``model.metrics.Calibration``.
        ``held_out``: what figures of two pairs must share to be compared, and counts; keys as in held_out/held_out.json.

    Raises:
        UserError: the text cannot be read, or the reference generator cannot be used.
    """
    config = copy.deepcopy(saved.config)
    config.eval.mask_prob = config.eval.mask_prob if mask_prob is None else mask_prob
    config.eval.seed = config.eval.seed if seed is None else seed
    length = config.data.max_length = config.data.max_length if max_length is None else max_length
    config.train.bin_tokens = length
    config.train.batch_tokens, config.train.micro_batch_tokens = BINS_PER_STEP * length, None
    _require_fitting(saved, config)
    corpus, how = Corpus(files=tuple(files), text_column=text_column), dict(train_vocab_size=None, eval_fraction=0)
    how |= dict(tokenizer=saved.tokenizer, max_length=length, join_lines=config.data.join_lines, log=log)
    prepared = Prepared(prepare(assemble.PREPARED, corpus, {}, **how), saved.tokenizer)
    engine, loader, frequency = _open(saved, config, prepared, "train", cpu)
    draw, replacements = evaluate.unigram_draw(frequency), "token frequency of this text"
    if reference:
        generator = saved_pairs.reference_generator(reference, saved, length)
        model = ReplacedTokenDetection(generator, saved.pair.discriminator).to(engine.device)
        draw, replacements = evaluate.generator_draw(model, engine.device, reference), f"generator {reference}"
    corruption = _Corruption(loader, draw, int(frequency.argmax()))
    sums = evaluate.totals(engine, corruption).cpu()
    counts = {"examples": prepared.manifest["splits"]["train"]["examples"]}
    counts |= {name: int(sums[0][SCALARS.index(name)]) for name in ("tokens", "judged", "selected", "replaced")}
    known = corruption.fingerprint, replacements, counts, corruption.hits
    return _result(config, sums, evaluate.identity_of(config, prepared, "train", *known))


def evaluate_held_out(saved: SavedPair, run: Path, *, cpu: bool = False, log: Log = print) -> dict[str, Any]:
    """Judge on the held-out text of ``run`` with the corruption that it was judged by itself (held_out/held_out.npy).

    For the pair of ``run`` these are the figures that training logged at the step of its weights, if it computed in fp32.
    Result as of :func:`evaluate_files`.

    Raises:
        UserError: the pair has another tokenizer; the text or the corruption is gone or has changed.
    """
    config = saved_pairs.run_config(run)
    file = run / run_folder.HELD_OUT / "held_out.npy"
    if not file.is_file():
        raise UserError(f"{run} has no held-out corruption ({file}); use --files")
    prepared = saved_pairs.text_of_run(run, config, log)
    if fingerprint(saved.tokenizer) != prepared.manifest["tokenizer"]:
        raise UserError(f"the pair has another tokenizer than {run}: its held-out tokens mean something else to it")
    _require_fitting(saved, config)
    engine, loader, frequency = _open(saved, config, prepared, "held_out", cpu)
    draw = evaluate.unigram_draw(frequency)  # not asked: the file is there
    replacements = saved_pairs.held_out_identity(run).get("replacements", f"those kept in {run}")
    common = dict(most_frequent=int(frequency.argmax()), engine=engine, file=file)
    held_out = evaluate.build_held_out(config, prepared, "held_out", loader, draw, replacements, **common)
    sums = evaluate.totals(engine, zip(held_out.batches, held_out.replacements)).cpu()
    return _result(config, sums, held_out.identity)


class _Corruption:
    """Batches of a text with their replacements, drawn while they are judged, so that a large text needs no memory.

    In the end ``fingerprint`` names all positions and replacements, and so many selected tokens (``hits``) are the most
    frequent one.
    """

    def __init__(self, loader: StepLoader, draw: evaluate.Draw, most_frequent: int):
        self.loader, self.draw, self.most_frequent = loader, draw, most_frequent
        self.hits, self._digest = 0, hashlib.sha256()

    def __iter__(self) -> Iterator[tuple[RTDBatch, torch.Tensor]]:
        for step in self.loader.steps():
            for batch in step.micro_batches:
                replacements, used = self.draw(batch), batch.slot_used
                # Slot by slot in the order of the bins, so that the size of a micro-batch makes no difference.
                drawn = torch.stack([batch.slot_positions[used], replacements[used]], dim=1)
                self._digest.update(drawn.numpy().tobytes())
                self.hits += int((batch.slot_labels[used] == self.most_frequent).sum())
                yield batch, replacements

    @property
    def fingerprint(self) -> str:
        return self._digest.hexdigest()[:16]


def _require_fitting(saved: SavedPair, config: Config) -> None:
    check_pair(*(network.config for network in saved.pair), len(saved.tokenizer), config.data.max_length)


def _open(
    saved: SavedPair, config: Config, prepared: Prepared, split: str, cpu: bool
) -> tuple[Engine, StepLoader, np.ndarray]:
    """Engine with the pair, loader of one pass over a split, and how often each token occurs in the text."""
    engine = open_engine(precision="no", cpu=cpu, trackers=[], folder=Path())
    if engine.world_size > 1:
        raise UserError("a pair is judged on one process: start this with plain python, not with accelerate launch")
    engine.model = saved.module().to(engine.device)  # not prepared: nothing is trained
    place = {"world_size": 1, "rank": 0, "device": engine.device.type}
    loader = assemble.step_loader(config, prepared, held_out=True, split=split, **place)
    return engine, loader, evaluate.unigram_counts(prepared)


def _result(config: Config, sums: torch.Tensor, identity: dict[str, Any]) -> dict[str, Any]:
    """Args: sums: counters as ``evaluate.totals`` gives them."""
    calibrated, found, errors = calibration(sums[0]), {}, {}
    for kind, counters in zip(("eval", "eval_own"), sums):
        figures = summarise(counters) | standard_errors(counters)
        if kind == "eval":
            figures["calibration_error"] = calibrated.error
        errors[kind] = figure_errors(figures, selected=identity["selected"], judged=identity["judged"])
        found[kind] = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    held_out = identity | {"max_length": config.data.max_length}
    return {"held_out": held_out, **found, "standard_errors": errors, "calibration": calibrated.bins}
