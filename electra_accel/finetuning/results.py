"""All figures of a run by task, model and seed, and what they say: means, spread, and differences to the first model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from electra_accel.finetuning.job import Job, results_in
from electra_accel.paired import COVERS, by_seed, paired_difference, verdict
from electra_accel.text.encode import MANY_UNKNOWN

RESULTS_JSON = "results.json"
MIXED = "not all figures were computed in the same way"


def collect(jobs: list[Job], earlier: Mapping[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """What ``results.json`` holds, of the fine-tunings that are finished; also of other seeds than those of ``jobs``.

    Args:
        earlier: tasks as returned before, with models that ``jobs`` do not have: they stay, where they were; the first model,
            which the others are compared with, is then still the first.

    ``{"tasks": {task: {"kind", "metric", "notes", "models": {model: {"source", "untrained", "fingerprint", "seeds": {"1":
    result}, "summary": {split: {metric: {"mean", "sd", "seeds", "undefined", "difference"}}}}}}}, "finished": 5, "of": 6}``;
    ``sd`` is the sample's (n - 1), None of one seed. ``undefined``: so many of the seeds have no such figure (a correlation
    with a constant); ``mean`` is that of the others, and where there are none the metric is left out.
    """
    tasks: dict[str, Any] = {}
    for job in jobs:
        task, encoder = job.data.task, job.encoder
        entry = {"kind": task.kind, "metric": task.metric, "notes": list(job.data.notes[1:]), "models": {}}
        model = {name: getattr(encoder, name) for name in ("source", "untrained", "fingerprint")}
        tasks.setdefault(task.name, entry)["models"][encoder.name] = model | {"seeds": results_in(job.folder.parent)}
    for task, entry in (earlier or {}).items():
        mine = tasks.setdefault(task, entry | {"models": {}})
        if entry["models"].keys() - mine["models"].keys():
            mine["models"] = entry["models"] | mine["models"]
    for entry in tasks.values():
        first = next(iter(entry["models"].values()))
        for model in entry["models"].values():
            model["summary"] = _summary(model["seeds"], None if model is first else first["seeds"])
        entry["notes"] += [note for note in _notes(entry["models"]) if note not in entry["notes"]]
    finished = sum(len(model["seeds"]) for entry in tasks.values() for model in entry["models"].values())
    return {"tasks": tasks, "finished": finished, "of": finished + sum(not job.result() for job in jobs)}


def _notes(models: dict[str, dict]) -> list[str]:
    """What a reader of the table should know of how its figures came about."""
    notes = []
    for name, model in models.items():
        results = list(model["seeds"].values())
        judged = "test" if any("test" in result for result in results) else "dev"
        if blind := [seed for seed, found in model["seeds"].items() if found.get(judged, {}).get("matthews") == 0]:
            notes.append(
                f"{name}, seed {', '.join(blind)}: nothing was learnt (matthews is 0 on {judged}, as if all rows had one label)"
            )
        for split in ("train", "dev", "test"):
            if cut := max((result.get("cut_texts", {}).get(split, 0) for result in results), default=0):
                notes.append(
                    f"{name}: {cut:,} of {results[0]['rows'][split]:,} texts of {split} are cut at task.max_length"
                )
            unknown = max((result.get("unknown_tokens", {}).get(split, 0) for result in results), default=0)
            if unknown > MANY_UNKNOWN:
                notes.append(f"{name}: {unknown:.1%} of the tokens of {split} are [UNK]")
    ways = {result.get("computed_with", "") for model in models.values() for result in model["seeds"].values()} - {""}
    if len(ways) > 1:
        notes.append(f"{MIXED} ({'; '.join(sorted(ways))}), which moves them as another seed does")
    return notes


def _summary(seeds: dict[str, dict], first: dict[str, dict] | None) -> dict[str, dict[str, Any]]:
    summary: dict[str, dict[str, Any]] = {}
    for split in ("dev", "test"):
        for metric in dict.fromkeys(name for result in seeds.values() for name in result.get(split, {})):
            values = by_seed(seeds, split, metric)
            if not (numbers := [value for value in values.values() if value is not None]):
                continue
            summary.setdefault(split, {})[metric] = {
                "mean": float(np.mean(numbers)),
                "sd": float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None,
                "seeds": len(values),
                "undefined": len(values) - len(numbers),
                "difference": paired_difference(values, by_seed(first, split, metric)) if first is not None else None,
            }
    return summary


def markdown(results: dict[str, Any]) -> str:
    """One table of all tasks, by each task's main metric: on test, where there is none on dev, which chose the epochs."""
    lines = [
        "| task | metric | model | seeds | dev | test | difference to the first model | 95% interval | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in results["tasks"].items():
        metric = entry["metric"]
        for place, (model, found) in enumerate(entry["models"].items()):
            scored = [split for split in ("dev", "test") if any(split in result for result in found["seeds"].values())]
            by_split = {split: found["summary"].get(split, {}).get(metric) for split in scored}
            judged = by_split[scored[-1]] if scored else None
            difference = judged and judged["difference"]
            spreads = [_spread(by_split[split]) if split in by_split else "–" for split in ("dev", "test")]
            cells = [name, metric, model, len(found["seeds"]), *spreads]
            cells += ["", "", "the first model"] if place == 0 else difference_cells(difference)
            lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    lines += [
        "",
        "Mean ± standard deviation over seeds; dev chose the epoch, test was scored once with it. The difference is that on "
        f"test where there is one, else on dev. {COVERS}",
    ]
    notes = [f"- {name}: {note}." for name, entry in results["tasks"].items() for note in entry["notes"]]
    lines += ["", *notes] if notes else []
    if results["finished"] < results["of"]:
        lines.append(f"\n{results['finished']} of {results['of']} fine-tunings are finished.")
    return "\n".join(lines) + "\n"


def _spread(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "undefined"
    found = f"{figure['mean']:.4f}" + (f" ± {figure['sd']:.4f}" if figure["sd"] is not None else "")
    defined = figure["seeds"] - figure["undefined"]
    return found + (f" ({defined} of {figure['seeds']} defined)" if figure["undefined"] else "")


def difference_cells(found: dict[str, Any] | None) -> list[str]:
    """Of a table: a paired difference, its interval, and the verdict."""
    if found is None or found["low"] is None:
        return [f"{found['mean']:+.4f}" if found else "–", "–", verdict(found)]
    return [f"{found['mean']:+.4f}", f"{found['low']:+.4f} to {found['high']:+.4f}", verdict(found)]


def has_figures(tasks: Any) -> bool:
    """Whether what is read here is there and of its kind; what the weights were is looked at apart."""
    found = []
    try:
        for entry in tasks.values():
            for model in entry["models"].values():
                Path(model["source"])
                for split in ("test", "dev"):
                    found.extend(by_seed(model["seeds"], split, entry["metric"]).values())
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return all(isinstance(figure, float | int | None) for figure in found)
