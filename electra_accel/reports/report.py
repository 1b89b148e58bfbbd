"""The page of a run: report.html, one file made from nothing but the run folder's own files.

    python -m electra_accel.reports.report runs/x      makes it again, also of a copied folder

A run makes it anew at each evaluation. Folders of older versions, without some of the files or figures, get what they have.
"""

import datetime
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.errors import UserError, one_line
from electra_accel.pretraining.cost import Cost, cost_text, vocabulary_text, warm_start_cost
from electra_accel.reports import adaptation, settings, story
from electra_accel.reports.curves import MOST_POINTS, SPEED, TRAINING, learning_charts, plain_charts, spread
from electra_accel.reports.page import chart, charts, page, slider, template
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
WARNED = 5  # stretches of steps at which a health check held


def write_report(folder: Path) -> Path:
    """Make ``report.html`` of a run folder anew and return its path.

    Raises:
        UserError: the folder holds no run or a damaged file, or cannot be written.
    """
    if not any((folder / name).exists() for name in (run_folder.CONFIG, run_folder.METRICS)):
        raise UserError(f"{folder} is no run folder: it has neither {run_folder.CONFIG} nor {run_folder.METRICS}")
    records = run_folder.read_jsonl(folder / run_folder.METRICS)
    environment, set_to = run_folder.read_json(folder / run_folder.ENVIRONMENT), settings.read(folder)
    sets, warm_start = adaptation.held_out_sets(folder), warm_start_cost(folder)
    title, many = folder.resolve().name, len(records) > MOST_POINTS
    told = adaptation.tell(title, records, set_to, sets, warm_start=warm_start)
    thinned = f"Curves of more than {MOST_POINTS:,} points show the lowest and the highest of each stretch"
    thinned = template("report.html").small(f"{thinned}; all are in {run_folder.METRICS}.") if many else ""
    sections = {
        "Before and after": story.section(told, records, sets),
        "Reconstructions": _reconstructions(folder / run_folder.SAMPLES, set_to),
        "Learning": learning_charts(records, sets["eval"].get("chance")) + thinned,
        "Calibration": _calibration(records, set_to),
        "Optimisation": plain_charts(records, TRAINING),
        "Speed": plain_charts(records, SPEED),
        "Configuration": settings.section(set_to, environment) if set_to else "",
        "Environment": settings.environment_table(environment) if environment else "",
    }
    lead = _head(folder, records, environment, set_to, warm_start)
    html = page(title, [(heading, content) for heading, content in sections.items() if content], lead)
    run_folder.write_atomically(folder / REPORT, html)
    return folder / REPORT


def _head(folder: Path, records: Sequence[dict], environment: dict, set_to: dict, warm_start: Cost | None) -> Markup:
    """What this is, how it stands, how far it came, and what to worry about."""
    vocabulary = run_folder.read_json(folder / TEXT_COUNTS).get("vocabulary")
    status, processes = run_folder.read_status(folder), environment.get("world_size")
    last = {name: value for record in records for name, value in record.items() if value is not None}
    step, total = max(status["step"], last.get("step", 0)), set_to.get("train.steps")
    size, start = set_to.get("model.size"), set_to.get("model.discriminator")
    several = (processes or 1) > 1 and "train/device_hours" in last
    facts = {
        "state": status["state"],
        "step": f"{step:,} of {total:,}" if isinstance(total, int) else f"{step:,}",
        "tokens": f"{last['train/tokens']:,}" if "train/tokens" in last else None,
        "passes over the text": f"{last['train/epoch']:.2f}" if "train/epoch" in last else None,
        "training time": duration(last["train/hours"] * 3600) if "train/hours" in last else None,
        "processes": processes,
        "hours of all processes": f"{last['train/device_hours']:.2f}" if several else None,
        "warm start of the generator": cost_text(warm_start) if warm_start else None,
        "vocabulary": vocabulary_text(vocabulary) if vocabulary else None,
    }
    return template("report.html").head(
        f"ELECTRA, {size}, from scratch" if size else f"ELECTRA, continued from {start}" if start else "ELECTRA",
        datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        set_to.get("tracking.tags"),
        set_to.get("tracking.notes"),
        f"{status['state']}: {one_line(status['reason'])}" if status.get("reason") else "",
        facts,
        list(_health(records)),
    )


def _health(records: Sequence[dict]) -> Iterator[tuple[str, str, str, bool]]:
    """Of each check that held: its name, at which logged steps, its sentence, whether it still holds."""
    for name, sentence in CHECKS.items():
        watched = [(record["step"], record[f"health/{name}"]) for record in records if f"health/{name}" in record]
        groups = groupby(watched, key=lambda entry: bool(entry[1]))
        if spans := [[step for step, _ in span] for held, span in groups if held]:
            at = ", ".join(f"{s[0]:,}" if len(s) == 1 else f"{s[0]:,}–{s[-1]:,}" for s in spans[-WARNED:])
            at += f" and {len(spans) - WARNED} times before" if len(spans) > WARNED else ""
            yield name.replace("_", " "), at, sentence, bool(watched[-1][1])


def _reconstructions(path: Path, set_to: dict[str, Any]) -> Markup:
    """The same sentences over the steps, and below them the random ones of each step.

    A page is made at each evaluation, so of ``path`` only what is shown is read whole.
    """
    steps = run_folder.recorded_steps(path)
    if not steps:
        switched_off = set_to.get("tracking.samples") == "none"
        return template("report.html").small("Not recorded: tracking.samples is none." if switched_off else "None yet.")
    tokens = sum(len(record["tokens"]) for record in run_folder.read_jsonl(path, steps[-1:]))
    kept = spread(steps, min(MOST_STEPS, max(2, MOST_TOKENS // max(1, tokens))))
    by_step: dict[int, list[dict]] = {step: [] for step in kept}
    for record in run_folder.read_jsonl(path, by_step):
        by_step[record["step"]].append(record)
    stops = slider("step", [(f"{step:,}", _sentences(by_step[step])) for step in kept])
    pair = set_to.get("objective.kind") != "mlm"
    corrected = any("corrected" in record for records in by_step.values() for record in records)
    shown = len(kept), len(steps), run_folder.SAMPLES, stops
    return template("report.html").reconstructions(legend(corrected), pair, corrected, *shown)


def _sentences(records: Sequence[dict]) -> Markup:
    # Older versions did not write all keys.
    found = [{"best": [""] * len(each["selected"]), "example": -1, "fixed": True} | each for each in records]
    samples = [Reconstruction.from_record(record) for record in found]
    parts = ([reconstruction(sample) for sample in samples if sample.fixed == fixed] for fixed in (True, False))
    return template("report.html").sentences(*parts)


def _calibration(records: Sequence[dict], set_to: dict[str, Any]) -> Markup:
    """The last evaluation's curve over some of those before."""
    judged = [(record["step"], record["eval/calibration"]) for record in records if record.get("eval/calibration")]
    if not judged:
        return Markup("")
    *before, (step, last) = judged
    note = "Of the tokens with a given probability, the share that was replaced. On the line, the probability is right"
    error = [record.get("eval/calibration_error") for record in records if "eval/generator_loss" in record][-1]
    if error is not None:
        note += f". It is off by {error:.3f} on average"
    trained, judged_at = set_to.get("objective.mask_prob"), set_to.get("eval.mask_prob")
    if trained != judged_at:
        note += f". It was trained at mask_prob {trained} and is judged at {judged_at}, so it expects another share"
    drawn = calibration_chart(last, spread(before, EARLIER_SHOWN))
    return charts([chart(drawn, f"The discriminator at step {step:,}", note)])


def main() -> None:
    parser = argument_parser(f"Make {REPORT} of run folders again.")
    parser.prog = "python -m electra_accel.reports.report"
    parser.add_argument("runs", nargs="+", type=Path, metavar="FOLDER", help="run folder")
    for folder in parser.parse_args(sys.argv[1:]).runs:
        print(write_report(folder))


if __name__ == "__main__":
    exit_with_one_line(main)
