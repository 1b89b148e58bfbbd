"""What a study has found: all figures, a table in Markdown, and a page with its tasks over the arithmetic of pre-training."""

import shlex
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from electra_accel.finetuning.results import RESULTS_JSON, difference_cells
from electra_accel.paired import by_seed, paired_difference
from electra_accel.reports.page import chart, charts, label, page, table
from electra_accel.reports.study import TASKS, Study
from electra_accel.runs import run_folder
from electra_accel.tracking.calibration import COLOURS

# Of metrics.jsonl, the newest value.
FIGURES = {
    "tokens": "train/tokens",
    "flops": "train/flops",
    "generator_loss": "eval/generator_loss",
    "auc": "eval/auc",
}
Found = Mapping[str, Mapping[str, Any]]
NOTE = (
    "Means over the seeds of pre-training, each the mean over those seeds of fine-tuning that all networks have. Differences "
    "are paired by the seed of pre-training; their 95% interval (Student's t over those seeds) does not cover which texts are "
    "in the held-out or test data. Within noise: the interval holds 0. Generator loss and AUC are those of the fixed held-out "
    "corruption; they compare where objective, starting pair and vocabulary are the same."
)


def collect(study: Study, folder: Path) -> dict[str, dict[str, Any]]:
    """All figures by row: of every finished seed, their mean, and the difference to the row that it is compared with.

    Returns:
        {row: ``{"seeds": {seed: {figure: value}}, "mean": {figure: value}, "difference": {figure: see paired_difference}}``};
        figures are those of ``FIGURES`` and ``<task>/<metric>`` (see ``_of_tasks``).
    """
    finished = {row.name: row.finished(folder) for row in study.rows}
    of_tasks = _of_tasks(folder, {run.resolve() for runs in finished.values() for run in runs.values()})
    found: dict[str, dict[str, Any]] = {}
    figures: dict[str, dict[str, dict[int, float]]] = {}  # of each row: by figure, then by seed
    for row in study.rows:
        seeds = {seed: _of_run(run) | of_tasks.get(run.resolve(), {}) for seed, run in finished[row.name].items()}
        values = figures[row.name] = {}
        for seed, of_seed in seeds.items():
            for name, value in of_seed.items():
                values.setdefault(name, {})[seed] = value
        entry = {"seeds": seeds, "mean": {name: float(np.mean(list(v.values()))) for name, v in values.items()}}
        if row.against:
            first = figures[row.against]
            entry["difference"] = {name: paired_difference(v, first.get(name, {})) for name, v in values.items()}
        found[row.name] = entry
    return found


def _of_run(run: Path) -> dict[str, float]:
    """At the end of a pre-training run."""
    newest: dict[str, Any] = {}
    for record in run_folder.read_jsonl(run / run_folder.METRICS):
        newest |= {name: value for name, value in record.items() if value is not None}
    return {name: newest[key] for name, key in FIGURES.items() if key in newest}


def _of_tasks(folder: Path, runs: Container[Path]) -> dict[Path, dict[str, float]]:
    """``<task>/<metric>`` of each of the pre-training ``runs`` that was fine-tuned, on test, or on dev where there is no test.

    It is the mean over those seeds of fine-tuning that all networks have: where a study was stopped in between, one network's
    luckier seeds would otherwise stand against another's.
    """
    found: dict[Path, dict[str, float]] = {}
    for task, entry in run_folder.read_json(folder / TASKS / RESULTS_JSON).get("tasks", {}).items():
        values: dict[Path, dict[str, float]] = {}
        for model in entry["models"].values():
            split = "test" if any("test" in result for result in model["seeds"].values()) else "dev"
            of_seeds = by_seed(model["seeds"], split, entry["metric"])
            run = Path(model["source"]).parent.resolve()
            defined = {seed: value for seed, value in of_seeds.items() if value is not None}
            if run in runs and defined:
                values[run] = defined
        common = set.intersection(*map(set, values.values())) if values else set()
        for run, of_seeds in values.items():
            if common:
                mean = float(np.mean([of_seeds[seed] for seed in sorted(common)]))
                found.setdefault(run, {})[f"{task}/{entry['metric']}"] = mean
    return found


def _tasks_in(found: Found) -> list[str]:
    """The tasks' figures, as ``<task>/<metric>``."""
    return list(dict.fromkeys(name for entry in found.values() for name in entry["mean"] if "/" in name))


def _cells(study: Study, found: Found) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table; a row without a finished run says so."""
    columns = ["row", "changed", "seeds", "tokens", "FLOPs", "generator loss", "AUC"]
    tasks = _tasks_in(found)
    for task in tasks:
        columns += [task, "difference", "95% interval", "verdict"]
    lines = []
    for row in study.rows:
        seeds, mean = found[row.name]["seeds"], found[row.name]["mean"]
        lines.append(line := [row.name, shlex.join(row.words)])
        if not seeds:
            line += ["not run", *[""] * (len(columns) - 3)]
            continue
        line += [" ".join(map(str, seeds)), f"{mean['tokens']:,.0f}", f"{mean['flops']:.3g}"]
        line += [f"{mean[name]:.4f}" if name in mean else "–" for name in ("generator_loss", "auc")]
        for task in tasks:
            values = [f"{figures[task]:.4f}" for figures in seeds.values() if task in figures]
            # Every seed's value too: an interval from two says little.
            line.append(f"{mean[task]:.4f} ({', '.join(values)})" if values else "not fine-tuned")
            if not row.against:
                line += ["", "", "the first row"]
                continue
            difference = found[row.name]["difference"].get(task)
            line += difference_cells(difference)
            line[-1] += f" (against {row.against})" if difference else ""
    return columns, lines


def markdown(study: Study, found: Found) -> str:
    columns, rows = _cells(study, found)
    lines = [columns, ["---"] * len(columns), *rows]
    rendered = ("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return "\n".join(rendered) + f"\n\n{NOTE}\n"


def html(study: Study, found: Found, name: str) -> str:
    """A page that works offline: the table and, where rows have curves, one chart a task."""
    sections = [("Figures", table(*_cells(study, found)))]
    tasks = _tasks_in(found)
    if tasks and any(row.curve for row in study.rows):
        drawn = [chart(_curves(study, found, task), task, "of each seed, and the mean over seeds") for task in tasks]
        sections.insert(0, ("Tasks over arithmetic", charts(drawn)))
    return page(name, sections, lead=NOTE)


def _curves(study: Study, found: Found, task: str):
    from plotly import graph_objects as go  # here: a table needs no second of importing

    figure = go.Figure()
    for colour, curve in zip(COLOURS, dict.fromkeys(row.curve for row in study.rows if row.curve)):
        rows = [row.name for row in study.rows if row.curve == curve and task in found[row.name]["mean"]]
        means = sorted((found[name]["mean"]["flops"], found[name]["mean"][task]) for name in rows)
        each = [(f["flops"], f[task]) for name in rows for f in found[name]["seeds"].values() if task in f]
        line = {"mode": "lines+markers", "line": {"color": colour, "width": 2.5}}
        dots = {"color": colour, "size": 6, "symbol": "circle-open"}
        for points, how in ((means, line), (each, {"mode": "markers", "marker": dots, "showlegend": False})):
            x, y = [x for x, _ in points], [y for _, y in points]
            figure.add_scatter(x=x, y=y, legendgroup=curve, name=label(curve), **how)
    figure.update_xaxes(title={"text": "FLOPs of pre-training"}, type="log", dtick="D2", exponentformat="power")
    return figure.update_yaxes(title={"text": task.rpartition("/")[2]}).update_layout(legend={"y": -0.25})
