"""The page of a run: report.html, one file made from nothing but the run folder's own files.

    python -m electra_accel.reports.report runs/x      makes it again, also of a copied folder

A run makes it anew at each evaluation. Folders of older versions, without some of the files or figures, get what they have.
"""

import datetime
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError, one_line
from electra_accel.pretraining.cost import Cost, cost_text, vocabulary_text, warm_start_cost
from electra_accel.reports import adaptation, settings, story
from electra_accel.reports.curves import (
    MOST_POINTS,
    columns,
    learning_charts,
    speed_charts,
    training_charts,
)
from electra_accel.reports.page import chart, charts, page, slider
from electra_accel.runs import run_folder
from electra_accel.terminal import duration
from electra_accel.tracking.calibration import calibration_chart
from electra_accel.tracking.health import CHECKS
from electra_accel.tracking.samples import Reconstruction
from electra_accel.tracking.tokens import legend, reconstruction

REPORT = "report.html"
TEXT_COUNTS = Path("model") / "text.json"  # see pretraining/model_identity.py
MOST_TOKENS = 24_000  # of all sentences on the page: bounds its size, about 100 bytes a token
MOST_STEPS = 60  # on the slider
EARLIER_SHOWN = 4  # calibration curves before the last


def write_report(folder: Path) -> Path:
    """Make ``report.html`` of a run folder anew and return its path.

    Raises:
        UserError: the folder holds no run or a damaged file, or cannot be written.
    """
    if not any((folder / name).exists() for name in (run_folder.CONFIG, run_folder.METRICS)):
        raise UserError(f"{folder} is no run folder: it has neither {run_folder.CONFIG} nor {run_folder.METRICS}")
    records = run_folder.read_jsonl(folder / run_folder.METRICS)
    sets = adaptation.held_out_sets(folder)
    environment, set_to = run_folder.read_json(folder / run_folder.ENVIRONMENT), settings.read(folder)
    warm_start = warm_start_cost(folder)
    told = adaptation.tell(folder.resolve().name, records, set_to, sets, warm_start=warm_start)
    evaluations = [record for record in records if "eval/generator_loss" in record]
    curves = columns(records)
    sections = [
        ("Before and after", story.section(told, records, sets)),
        ("Reconstructions", _reconstructions(folder / run_folder.SAMPLES, set_to)),
        ("Learning", learning_charts(curves, sets["eval"].get("chance")) + _thinned(records)),
        ("Calibration", _calibration(evaluations, set_to)),
        ("Optimisation", training_charts(curves)),
        ("Speed", speed_charts(curves)),
        ("Configuration", settings.section(set_to, environment) if set_to else ""),
        ("Environment", settings.environment_table(environment) if environment else ""),
    ]
    lead = _headline(folder, records, environment, set_to, warm_start) + _health(records)
    title = folder.resolve().name
    path = folder / REPORT
    run_folder.write_atomically(path, page(title, [(heading, html) for heading, html in sections if html], lead))
    return path


def _headline(
    folder: Path,
    records: Sequence[dict],
    environment: dict,
    set_to: dict[str, Any],
    warm_start: Cost | None,
) -> Markup:
    """What this is, how it stands and how far it came."""
    vocabulary = run_folder.read_json(folder / TEXT_COUNTS).get("vocabulary")
    status = run_folder.read_status(folder)
    last = {name: value for record in records for name, value in record.items() if value is not None}
    step, total = max(status["step"], last.get("step", 0)), set_to.get("train.steps")
    size, start = set_to.get("model.size"), set_to.get("model.discriminator")
    what = f"ELECTRA, {size}, from scratch" if size else f"ELECTRA, continued from {start}" if start else "ELECTRA"
    facts = {
        "state": status["state"],
        "step": f"{step:,} of {total:,}" if isinstance(total, int) else f"{step:,}",
        "tokens": f"{last['train/tokens']:,}" if "train/tokens" in last else None,
        "passes over the text": f"{last['train/epoch']:.2f}" if "train/epoch" in last else None,
        "training time": duration(last["train/hours"] * 3600) if "train/hours" in last else None,
        "processes": environment.get("world_size"),
        "hours of all processes": None,
        "warm start of the generator": cost_text(warm_start) if warm_start else None,
        "vocabulary": vocabulary_text(vocabulary) if vocabulary else None,
    }
    if (environment.get("world_size") or 1) > 1 and "train/device_hours" in last:
        facts["hours of all processes"] = f"{last['train/device_hours']:.2f}"
    written = Markup("").join(
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name, value) for name, value in facts.items() if value is not None
    )  # fmt: skip
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [Markup('<p class="quiet">{}. This page shows the run as of {}.</p>').format(what, now)]
    if tags := set_to.get("tracking.tags"):
        lines.append(Markup('<p class="quiet">{}</p>').format(" · ".join(map(str, tags))))
    if notes := set_to.get("tracking.notes"):
        lines.append(Markup("<p>{}</p>").format(notes))
    if status.get("reason"):
        lines.append(Markup('<p class="warning">{}: {}</p>').format(status["state"], one_line(status["reason"])))
    return Markup("").join(lines) + Markup('<dl class="facts">{}</dl>').format(written)


def _health(records: Sequence[dict]) -> Markup:
    """The checks that held, and at which logged steps; nothing where none did."""
    lines = []
    for name, sentence in CHECKS.items():
        watched = [(record["step"], record[f"health/{name}"]) for record in records if f"health/{name}" in record]
        spans = [
            [step for step, _ in span] for held, span in groupby(watched, key=lambda entry: bool(entry[1])) if held
        ]
        if spans:
            at = ", ".join(f"{s[0]:,}" if len(s) == 1 else f"{s[0]:,}–{s[-1]:,}" for s in spans[-5:])
            earlier = f" and {len(spans) - 5} times before" if len(spans) > 5 else ""
            now = "" if watched[-1][1] else " It does not hold any more."
            lines.append(
                Markup('<p class="warning"><strong>{}</strong> at step {}{}: {}.{}</p>').format(
                    name.replace("_", " "), at, earlier, sentence, now
                )
            )
    return Markup("\n").join(lines)


def _reconstructions(path: Path, set_to: dict[str, Any]) -> Markup:
    """The same sentences over the steps, and below them the random ones of each step.

    A page is made at each evaluation, so of ``path`` only what is shown is read whole.
    """
    steps = run_folder.recorded_steps(path)
    if not steps:
        switched_off = set_to.get("tracking.samples") == "none"
        return Markup("<p>{}</p>").format("Not recorded: tracking.samples is none." if switched_off else "None yet.")
    tokens = sum(len(record["tokens"]) for record in run_folder.read_jsonl(path, steps[-1:]))
    kept = _spread(steps, min(MOST_STEPS, max(2, MOST_TOKENS // max(1, tokens))))
    by_step: dict[int, list[dict]] = {step: [] for step in kept}
    for record in run_folder.read_jsonl(path, by_step):
        by_step[record["step"]].append(record)
    left_out = ""
    if len(kept) < len(steps):
        left_out = f" {len(kept)} of {len(steps):,} recorded steps are on this page; all are in {run_folder.SAMPLES}."
    probability = "" if set_to.get("objective.kind") == "mlm" else "the discriminator's probability and "
    said = Markup('<p class="quiet small">{}</p>').format(
        f"Point at a token, or tap it, for {probability}the generator's most probable token.{left_out}"
    )
    return legend() + said + slider("step", [(f"{step:,}", _sentences(by_step[step])) for step in kept])


def _sentences(records: Sequence[dict]) -> Markup:
    samples = [Reconstruction.from_record(_completed(record)) for record in records]
    fixed = Markup("").join(reconstruction(sample) for sample in samples if sample.fixed)
    others = Markup("").join(reconstruction(sample) for sample in samples if not sample.fixed)
    return fixed + (Markup("<h3>{}</h3>").format("Others, drawn at this step") + others if others else "")


def _completed(record: dict) -> dict:
    """With the keys that older versions did not write."""
    return {"best": [""] * len(record["selected"]), "example": -1, "fixed": True} | record


def _thinned(records: Sequence[dict]) -> Markup:
    if len(records) <= MOST_POINTS:
        return Markup("")
    said = (
        f"Curves of more than {MOST_POINTS:,} points show the lowest and the highest of each stretch; all are in {{}}."
    )
    return Markup('<p class="quiet small">' + said + "</p>").format(run_folder.METRICS)


def _calibration(evaluations: Sequence[dict], set_to: dict[str, Any]) -> Markup:
    """The last evaluation's curve over some of those before."""
    judged = [(record["step"], record["eval/calibration"]) for record in evaluations if record.get("eval/calibration")]
    if not judged:
        return Markup("")
    *before, (step, last) = judged
    earlier = _spread(before, EARLIER_SHOWN)
    note = "Of the tokens to which the discriminator gave a probability, how many were replaced; on the line it can be believed"
    error = evaluations[-1].get("eval/calibration_error")
    if error is not None:
        note += f". It is off by {error:.3f} on average"
    trained, judged_at = set_to.get("objective.mask_prob"), set_to.get("eval.mask_prob")
    if trained != judged_at:
        note += (
            f". It was trained at mask_prob {trained} and is judged at {judged_at}, so it expects another share of them"
        )
    return charts([chart(calibration_chart(last, earlier), f"The discriminator at step {step:,}", note)])


def _spread(entries: Sequence, most: int) -> list:
    """At most so many of them, evenly spread; the first and the last are among them."""
    places = range(len(entries)) if len(entries) <= most else np.linspace(0, len(entries) - 1, most).round().astype(int)
    return [entries[i] for i in places]


def main() -> None:
    parser = argument_parser(f"Make {REPORT} of run folders again.")
    parser.prog = "python -m electra_accel.reports.report"
    parser.add_argument("runs", nargs="+", type=Path, metavar="FOLDER", help="run folder")
    for folder in parser.parse_args(sys.argv[1:]).runs:
        print(write_report(folder))


if __name__ == "__main__":
    exit_with_one_line(main)
