"""The story of an adaptation: held-out figures before and after, on the domain's text and on general text, cost and advice.

Before and after are judged on the same corruption of the same held-out text, with replacements by the starting pair's
generator (by token frequency from scratch), so their figures compare. They describe text, not tasks. Fine-tuning shows whether
tasks gain; its figures become part of the story where they are given.

The verdict is on the discriminator's ROC-AUC, which ranks tokens, and not on its loss. The loss also depends on the share of
replaced tokens that a discriminator has learnt to expect, and that share falls in training while the generator learns the
domain. One network alone (objective.kind mlm) is judged by its loss on the selected tokens, here the generator loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electra_accel.errors import UserError
from electra_accel.pretraining.config import WARM_START
from electra_accel.pretraining.config_checks import small_held_out
from electra_accel.pretraining.cost import Cost, cost_of, warm_start_cost
from electra_accel.reports import advice, settings
from electra_accel.reports.judgements import Change, Judgement, changes, exported
from electra_accel.reports.tasks import TaskChange
from electra_accel.runs import run_folder

SETS = {"eval": "held_out", "general": "general"}  # prefix of the figures: name of the held-out set
# What a run started from, in words.
SCRATCH, ENCODER, FRESH_GENERATOR = "scratch", "one encoder", "fresh layers on a discriminator's embeddings"
PAIR, WARM_STARTED = "a given pair", "a discriminator, its generator warm-started"
LANGUAGE_MODEL = "one encoder with its LM head"
TRAINED = (PAIR, WARM_STARTED, LANGUAGE_MODEL)  # before, head and all: only these can forget something


@dataclass(frozen=True)
class Story:
    """What a run made of the networks that it started from."""

    name: str
    start: str  # what it started from, in words, see start_of
    before_step: int
    after_step: int  # the exported one, or that of the last evaluation before it
    later: int  # evaluations after the exported step, where eval.patience chose the first judged one; else 0
    domain: dict[str, Change]  # by key of the figure
    general: dict[str, Change]  # the same; empty without data.eval_general_files
    primary: str  # the key that the verdict is on
    chance: float | None  # generator accuracy of always guessing the most frequent token of the domain's text
    cost: Cost  # of the run so far
    warm_start: Cost | None  # of its generator's warm start, which came before
    advice: dict[str, str]  # {rule: sentence}, empty where all is well
    tasks: tuple[TaskChange, ...] = ()  # what became of fine-tunings, see tasks.task_changes

    @property
    def given(self) -> bool:
        """Whether the networks had been trained before, head and all."""
        return self.start in TRAINED

    @property
    def one_network(self) -> bool:
        """Whether there are no figures of a discriminator."""
        return self.domain["auc"].after is None

    @property
    def compares(self) -> bool:
        """Whether there are two evaluations to compare."""
        return self.after_step != self.before_step

    @property
    def sets(self) -> dict[str, dict[str, Change]]:
        """The changes by prefix, of the held-out sets that were judged."""
        return {prefix: found for prefix, found in zip(SETS, (self.domain, self.general), strict=True) if found}


def story_of_run(folder: Path, step: int | None = None) -> Story | None:
    """The story of a run folder, of the weights of ``step``, else of those that it exports; None where nothing was judged yet.

    Raises:
        UserError: not the folder of a run, or a damaged file in it.
    """
    if not (folder / run_folder.CONFIG).is_file():
        raise UserError(f"{folder} is not the folder of a run: there is no {run_folder.CONFIG} in it")
    records, warm_start = run_folder.read_jsonl(folder / run_folder.METRICS), warm_start_cost(folder)
    return tell(folder.resolve().name, records, settings.read(folder), held_out_sets(folder), step, warm_start)


def held_out_sets(folder: Path) -> dict[str, dict]:
    """What a run folder knows of each held-out set, by the keys of ``SETS``; empty of one that it does not have."""
    place = folder / run_folder.HELD_OUT
    return {prefix: run_folder.read_json(place / f"{name}.json") for prefix, name in SETS.items()}


def tell(
    name: str,
    records: Sequence[dict],
    options: Mapping[str, Any],
    sets: Mapping[str, Mapping[str, Any]],
    step: int | None = None,
    warm_start: Cost | None = None,
) -> Story | None:
    """See :func:`story_of_run`.

    Args:
        records: of metrics.jsonl; ``options``: ``{"group.option": value}`` of the run.
        sets: see :func:`held_out_sets`; the counts ``selected`` and ``judged``, ``chance`` and ``unknown`` are read.
    """
    evaluations = [record for record in records if "eval/generator_loss" in record]
    if not evaluations:
        return None
    first, best = evaluations[0], exported(evaluations, options)["step"]
    step = best if step is None else step
    later = len(evaluations) - 1 if step == first["step"] == best else 0
    evaluations = [record for record in evaluations if record["step"] <= max(step, first["step"])]
    ends, counts = (first, evaluations[-1]), sets.get("eval", {})
    domain, general = (changes(*(Judgement.of(end, prefix, sets.get(prefix, {})) for end in ends)) for prefix in SETS)
    accuracy, chance = domain["generator_accuracy"].before, counts.get("chance")
    start = start_of(options, has_lm_head=None not in (accuracy, chance) and accuracy > chance)
    said = {
        "unknown": advice.unknown(counts.get("unknown")),
        "collapse": advice.collapse(records, step),
        "forgetting": advice.forgetting(general) if start in TRAINED else None,
        "rising": advice.rising(evaluations),
        "small": small_held_out(counts.get("selected"), bool(options.get("data.eval_files"))),
    }
    return Story(
        name=name,
        start=start,
        before_step=first["step"],
        after_step=evaluations[-1]["step"],
        later=later,
        domain=domain,
        general=general,
        primary="auc" if domain["auc"].after is not None else "generator_loss",
        chance=chance,
        cost=cost_of(records),
        warm_start=warm_start,
        advice={rule: sentence for rule, sentence in said.items() if sentence},
    )


def start_of(options: Mapping[str, Any], has_lm_head: bool) -> str:
    """What a run with these options started from: one of the words above.

    A network that was given without an LM head, as discriminators are, gets a fresh one, which is right less often than always
    guessing the most frequent token.
    """
    warm_starts = options.get("model.generator") == WARM_START
    if options.get("model.discriminator") is None:
        return SCRATCH
    if options.get("objective.kind") == "mlm":
        return FRESH_GENERATOR if warm_starts else LANGUAGE_MODEL if has_lm_head else ENCODER
    return WARM_STARTED if warm_starts else PAIR
