"""What a study has found: all figures, a table in Markdown, and a page with its tasks over the arithmetic of pre-training."""

import shlex
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from electra_accel.finetuning.results import RESULTS_JSON, difference_cells
from electra_accel.paired import by_seed, paired_difference
from electra_accel.reports.page import chart, charts, label, page, table
from electra_accel.reports.study import TASKS, Row, Study, finished_seeds, run_of
from electra_accel.runs import run_folder
from electra_accel.tracking.calibration import COLOURS

FIGURES = {"generator_loss": "eval/generator_loss", "auc": "eval/auc"}  # of metrics.jsonl, newest value
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
        figures are ``tokens``, ``flops``, those of ``FIGURES`` and ``<task>/<metric>`` (see ``_of_tasks``).
    """
    finished = {
        row.name: {seed: run_of(folder, row, seed) for seed in finished_seeds(folder, row)} for row in study.rows
    }
    of_tasks = _of_tasks(folder, {run.resolve() for runs in finished.values() for run in runs.values()})
    found: dict[str, dict[str, Any]] = {}
    for row in study.rows:
        by_seed = {seed: _of_run(run) | of_tasks.get(run.resolve(), {}) for seed, run in finished[row.name].items()}
        values = _by_figure(by_seed)
        entry = {"seeds": by_seed, "mean": {name: float(np.mean(list(v.values()))) for name, v in values.items()}}
        if row.against:
            first = _by_figure(found[row.against]["seeds"])
            entry["difference"] = {name: paired_difference(v, first.get(name, {})) for name, v in values.items()}
        found[row.name] = entry
    return found


def _by_figure(by_seed: Mapping[int, Mapping[str, float]]) -> dict[str, dict[int, float]]:
    names = dict.fromkeys(name for figures in by_seed.values() for name in figures)
    return {name: {seed: figures[name] for seed, figures in by_seed.items() if name in figures} for name in names}


def _of_run(run: Path) -> dict[str, float]:
    """At the end of a pre-training run."""
    records = run_folder.read_jsonl(run / run_folder.METRICS)
    newest: dict[str, Any] = {}
    for record in records:
        newest |= {name: value for name, value in record.items() if value is not None}
    wanted = {"tokens": "train/tokens", "flops": "train/flops"} | FIGURES
    return {name: newest[key] for name, key in wanted.items() if key in newest}


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


def tasks_of(found: Found) -> list[str]:
    """The tasks' figures, as ``<task>/<metric>``."""
    return list(dict.fromkeys(name for entry in found.values() for name in entry["mean"] if "/" in name))


def cells(study: Study, found: Found, tasks: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table; a row without a finished run says so."""
    columns = ["row", "changed", "seeds", "tokens", "FLOPs", "generator loss", "AUC"]
    for task in tasks:
        columns += [task, "difference", "95% interval", "verdict"]
    return columns, [_cells(row, found[row.name], tasks) for row in study.rows]


def _cells(row: Row, entry: Mapping[str, Any], tasks: Sequence[str]) -> list[str]:
    changed = shlex.join(row.words)
    if not entry["seeds"]:
        return [row.name, changed, "not run", "", "", "", "", *[""] * 4 * len(tasks)]
    mean = entry["mean"]
    found = [row.name, changed, " ".join(map(str, entry["seeds"])), f"{mean['tokens']:,.0f}", f"{mean['flops']:.3g}"]
    found += [f"{mean[name]:.4f}" if name in mean else "–" for name in ("generator_loss", "auc")]
    for task in tasks:
        found.append(_each(entry, task))
        found += difference_cells(entry["difference"].get(task)) if row.against else ["", "", "the first row"]
        if row.against and entry["difference"].get(task):
            found[-1] += f" (against {row.against})"
    return found


def _each(entry: Mapping[str, Any], task: str) -> str:
    """The mean and, in parentheses, the value of every seed: an interval from two says little."""
    values = [figures[task] for figures in entry["seeds"].values() if task in figures]
    if not values:
        return "not fine-tuned"
    return f"{entry['mean'][task]:.4f} ({', '.join(f'{value:.4f}' for value in values)})"


def markdown(study: Study, found: Found) -> str:
    columns, rows = cells(study, found, tasks_of(found))
    lines = [columns, ["---"] * len(columns), *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        + f"\n\n{NOTE}\n"
    )


def html(study: Study, found: Found, name: str) -> str:
    """A page that works offline: the table and, where rows have curves, one chart a task."""
    tasks = tasks_of(found)
    sections = [("Figures", table(*cells(study, found, tasks)))]
    drawn = [chart(_curves(study, found, task), task, "of each seed, and the mean over seeds") for task in tasks]
    if drawn and any(row.curve for row in study.rows):
        sections.insert(0, ("Tasks over arithmetic", charts(drawn)))
    return page(name, sections, lead=NOTE)


def _curves(study: Study, found: Found, task: str):
    from plotly import graph_objects as go  # here: a table needs no second of importing

    figure = go.Figure()
    for colour, curve in zip(COLOURS, dict.fromkeys(row.curve for row in study.rows if row.curve)):
        rows = [row.name for row in study.rows if row.curve == curve and task in found[row.name]["mean"]]
        means = sorted((found[name]["mean"]["flops"], found[name]["mean"][task]) for name in rows)
        each = [(f["flops"], f[task]) for name in rows for f in found[name]["seeds"].values() if task in f]
        common = {"legendgroup": curve, "name": label(curve)}
        figure.add_scatter(
            x=[x for x, _ in means],
            y=[y for _, y in means],
            mode="lines+markers",
            line={"color": colour, "width": 2.5},
            **common,
        )
        dots = {"color": colour, "size": 6, "symbol": "circle-open"}
        figure.add_scatter(
            x=[x for x, _ in each], y=[y for _, y in each], mode="markers", marker=dots, showlegend=False, **common
        )
    figure.update_xaxes(title={"text": "FLOPs of pre-training"}, type="log", dtick="D2", exponentformat="power")
    return figure.update_yaxes(title={"text": task.rpartition("/")[2]}).update_layout(legend={"y": -0.25})
