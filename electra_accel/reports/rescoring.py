"""Runs that were judged on different corruptions, judged again on one, as scripts/evaluate.py judges."""

from collections.abc import Callable, Sequence
from pathlib import Path

from electra_accel.errors import UserError, named
from electra_accel.pretraining.evaluate_saved import evaluate_files, evaluate_held_out
from electra_accel.pretraining.saved_pairs import run_pair
from electra_accel.reports.experiments import Experiment
from electra_accel.reports.judgements import Judgement


def rescore(
    runs: Sequence[Experiment], files: Sequence[str], column: str, reference: str | None, warn: Callable[[str], None]
) -> None:
    """Judge each run anew; one without weights (read from W&B) or without a pair keeps its own figures.

    Args:
        files: text that no run was trained on, in ``column``; none: the held-out text of the first run.
        reference: the generator that draws the replacements in ``files``; None: token frequency does.

    Raises:
        UserError: a run cannot be judged, or may have been trained on the held-out text of the first one.
    """
    first = runs[0]
    same = {name: first.options[f"eval.{name}"] for name in ("mask_prob", "seed")}  # one corruption for all
    same["max_length"] = first.options["data.max_length"]
    for run in runs:
        if run.folder is None:
            warn(f"{run.name} was read from W&B, which has no weights: it is not scored again")
        elif run.is_mlm:
            warn(f"{run.name} trained one network (objective.kind mlm), not a pair: it is not scored again")
        else:
            held_out = None if files else _held_out(run, first)
            print(f"scoring {run.name}", flush=True)
            with named(f"{run.name} cannot be scored again"):
                saved = run_pair(run.folder, _told)
                if files:
                    found = evaluate_files(saved, files, column, reference=reference, log=_told, **same)
                else:
                    found = evaluate_held_out(saved, held_out, log=_told)
            run.rescored = Judgement(saved.step, found["eval"], found["held_out"])


def _held_out(run: Experiment, first: Experiment) -> Path:
    """The folder of the first run, on whose held-out text another one may be judged."""
    if first.folder is None:
        raise UserError(f"--rescore: {first.name} was read from W&B; give --rescore FILE, or its folder first")
    if run.held_out.get("data") != first.held_out.get("data"):
        raise UserError(
            f"--rescore: {run.name} is not known to share the held-out text of {first.name} and may have been trained on it; "
            "give --rescore FILE with text that no run was trained on"
        )
    return first.folder


def _told(line: str) -> None:
    """Of the lines on preparing a text only warnings and those on unknown tokens are shown."""
    if line.startswith(("unknown tokens: ", "warning: ")):
        print(line)
