"""What a study has found: all figures, a table in Markdown, and a page with its tasks over the arithmetic of pre-training."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from plotly import graph_objects as go

from electra_accel.finetuning.results import RESULTS_JSON, difference_cells
from electra_accel.model.figures import FIGURES
from electra_accel.paired import by_seed, paired_difference
from electra_accel.reports.judgements import SHORT
from electra_accel.reports.page import Table, chart, charts, label, page
from electra_accel.reports.study import Study
from electra_accel.runs import run_folder
from electra_accel.tracking.calibration import COLOURS

# Name of a figure: its key in metrics.jsonl, of which the newest value counts.
KEYS = {"tokens": "train/tokens", "flops": "train/flops"} | {name: f"eval/{name}" for name in SHORT}
Found = Mapping[str, Mapping[str, Any]]
NOTE = (
    "Means over the seeds of pre-training, each the mean over those seeds of fine-tuning that all networks have. Differences "
    "are paired by the seed of pre-training; their 95% interval (Student's t over those seeds) does not cover which texts are "
    "in the held-out or test data. Within noise: the interval holds 0. Generator loss and ROC-AUC are those of the fixed "
    "held-out corruption; they compare where objective, starting pair and vocabulary are the same."
)


def collect(study: Study, folder: Path) -> dict[str, dict[str, Any]]:
    """All figures by row: of every finished seed, their mean, and the difference to the row that it is compared with.

    Returns:
        {row: ``{"seeds": {seed: {figure: value}}, "mean": {figure: value}, "difference": {figure: see paired_difference}}``};
        figures are those of ``KEYS`` and ``<task>/<metric>`` (see ``_of_tasks``).
    """
    finished = {row.name: row.finished(folder) for row in study.rows}
    folders = {run.resolve(): row.tasks for row in study.rows for run in finished[row.name].values()}
    of_tasks = _of_tasks(folder, folders)
    found: dict[str, dict[str, Any]] = {}
    for row in study.rows:
        seeds = {seed: _of_run(run) | of_tasks.get(run.resolve(), {}) for seed, run in finished[row.name].items()}
        values = {
            name: _values(seeds, name) for name in dict.fromkeys(name for each in seeds.values() for name in each)
        }
        found[row.name] = {
            "seeds": seeds,
            "mean": {name: float(np.mean(list(v.values()))) for name, v in values.items()},
        }
        if row.against:
            first = found[row.against]["seeds"]
            differences = {name: paired_difference(v, _values(first, name)) for name, v in values.items()}
            found[row.name]["difference"] = differences
    return found


def _values(seeds: Mapping[int, Mapping[str, float]], name: str) -> dict[int, float]:
    """A figure by seed, where it is known."""
    return {seed: figures[name] for seed, figures in seeds.items() if name in figures}


def _of_run(run: Path) -> dict[str, float]:
    """At the end of a pre-training run."""
    records = run_folder.read_jsonl(run / run_folder.METRICS)
    newest = {key: value for record in records for key, value in record.items() if value is not None}
    return {name: newest[key] for name, key in KEYS.items() if key in newest}


def _of_tasks(folder: Path, folders: Mapping[Path, str]) -> dict[Path, dict[str, float]]:
    """``<task>/<metric>`` of each pre-training run that was fine-tuned, on test, or on dev where there is no test.

    It is the mean over those seeds of fine-tuning that all networks have: where a study was stopped in between, one network's
    luckier seeds would otherwise stand against another's.

    Args:
        folders: where the fine-tunings of each run are.
    """
    by_task: dict[str, dict[Path, dict[int, float]]] = {}
    for name in dict.fromkeys(folders.values()):
        for task, entry in run_folder.read_json(folder / name / RESULTS_JSON).get("tasks", {}).items():
            values = by_task.setdefault(f"{task}/{entry['metric']}", {})
            for model in entry["models"].values():
                split = "test" if any("test" in result for result in model["seeds"].values()) else "dev"
                of_seeds = by_seed(model["seeds"], split, entry["metric"])
                run = Path(model["source"]).parent.resolve()
                defined = {seed: value for seed, value in of_seeds.items() if value is not None}
                if folders.get(run) == name and defined:
                    values[run] = defined
    found: dict[Path, dict[str, float]] = {}
    for task, values in by_task.items():
        common = sorted(set.intersection(*map(set, values.values()))) if values else []
        for run, of_seeds in values.items() if common else ():
            found.setdefault(run, {})[task] = float(np.mean([of_seeds[seed] for seed in common]))
    return found


def _tasks_in(found: Found) -> list[str]:
    """The tasks' figures, as ``<task>/<metric>``."""
    return list(dict.fromkeys(name for entry in found.values() for name in entry["mean"] if "/" in name))


def _table(study: Study, found: Found) -> Table:
    """All figures; a row without a finished run says so."""
    columns = ["row", "changed", "seeds", "tokens", "FLOPs", *(FIGURES[name].name for name in SHORT)]
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
        line += [f"{mean[name]:.4f}" if name in mean else "–" for name in SHORT]
        for task in tasks:
            # Every seed's value too: an interval from two says little.
            values = ", ".join(f"{value:.4f}" for value in _values(seeds, task).values())
            line.append(f"{mean[task]:.4f} ({values})" if values else "not fine-tuned")
            if not row.against:
                line += ["", "", "the first row"]
                continue
            difference = found[row.name]["difference"].get(task)
            line += difference_cells(difference)
            line[-1] += f" (against {row.against})" if difference else ""
    return Table(columns, lines)


def markdown(study: Study, found: Found) -> str:
    """The table, which is also printed: so of what Markdown would read, only what ends a cell is escaped."""
    columns, rows = _table(study, found)
    lines = [columns, ["---"] * len(columns), *rows]
    rendered = ("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return "\n".join(rendered) + f"\n\n{NOTE}\n"


def html(study: Study, found: Found, name: str) -> str:
    """A page that works offline: the table and, where rows have curves, one chart a task."""
    sections = [("Figures", _table(study, found).html())]
    tasks = _tasks_in(found)
    if tasks and any(row.curve for row in study.rows):
        drawn = [chart(_curves(study, found, task), task, "of each seed, and the mean over seeds") for task in tasks]
        sections.insert(0, ("Tasks over arithmetic", charts(drawn)))
    return page(name, sections, lead=NOTE)


def _curves(study: Study, found: Found, task: str) -> go.Figure:
    figure = go.Figure()
    for colour, curve in zip(COLOURS, dict.fromkeys(row.curve for row in study.rows if row.curve)):
        entries = [found[row.name] for row in study.rows if row.curve == curve and task in found[row.name]["mean"]]
        means = sorted((entry["mean"]["flops"], entry["mean"][task]) for entry in entries)
        each = [(f["flops"], f[task]) for entry in entries for f in entry["seeds"].values() if task in f]
        line = {"mode": "lines+markers", "line": {"color": colour, "width": 2.5}}
        dots = {"color": colour, "size": 6, "symbol": "circle-open"}
        for points, how in ((means, line), (each, {"mode": "markers", "marker": dots, "showlegend": False})):
            x, y = [x for x, _ in points], [y for _, y in points]
            figure.add_scatter(x=x, y=y, legendgroup=curve, name=label(curve), **how)
    figure.update_xaxes(title={"text": "FLOPs of pre-training"}, type="log", dtick="D2", exponentformat="power")
    curves = len(figure.data) // 2  # each has two traces
    legend = {"yref": "container", "y": 0, "yanchor": "bottom", "tracegroupgap": 0}
    figure.update_layout(legend=legend, margin={"b": 50 + 20 * curves})  # names are long: a line of the legend for each
    return figure.update_yaxes(title={"text": task.rpartition("/")[2]})
