"""All figures of a run by task, model and seed, and what they say: means, spread, and differences to the first model."""

import math
from typing import Any

import numpy as np
from scipy import stats

from electra_accel.downstream.job import Job

LEVEL = 0.95


def paired_difference(figures: dict[int, float], first: dict[int, float]) -> dict[str, Any] | None:
    """Mean of figure minus the first model's, paired by seed, and its 95% interval by Student's t over the seeds.

    The interval covers what the seed moves (order, dropout, new weights, the choice of train_rows), not which texts happen to
    be in the test data.

    Args:
        figures, first: by seed.

    Returns:
        ``mean``, ``low``, ``high``, ``seeds``, and ``within_noise``: whether the interval holds 0. With one seed in common the
        last three but ``seeds`` are None; None where there is none in common.
    """
    differences = np.array([figures[seed] - first[seed] for seed in figures if seed in first])
    n = len(differences)
    if n == 0:
        return None
    mean = float(differences.mean())
    if n == 1:
        return {"mean": mean, "low": None, "high": None, "seeds": 1, "within_noise": None}
    margin = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * differences.std(ddof=1) / math.sqrt(n))
    low, high = mean - margin, mean + margin
    return {"mean": mean, "low": low, "high": high, "seeds": n, "within_noise": low <= 0 <= high}


def collect(jobs: list[Job]) -> dict[str, Any]:
    """What ``results.json`` holds, of the fine-tunings that are finished.

    ``{"tasks": {task: {"kind", "metric", "models": {model: {"source", "seeds": {"1": result}, "summary": {split: {metric:
    {"mean", "sd", "seeds", "difference"}}}}}}}, "finished": 5, "of": 6}``; ``sd`` is the sample's (n - 1), None of one seed.
    """
    tasks: dict[str, Any] = {}
    for job in jobs:
        task = job.data.task
        entry = tasks.setdefault(task.name, {"kind": task.kind, "metric": task.metric, "models": {}})
        model = entry["models"].setdefault(job.encoder.name, {"source": job.encoder.source, "seeds": {}})
        if result := job.result():
            model["seeds"][str(job.seed)] = result
    for entry in tasks.values():
        first = next(iter(entry["models"].values()))
        for model in entry["models"].values():
            model["summary"] = _summary(model["seeds"], None if model is first else first["seeds"])
    finished = sum(len(model["seeds"]) for entry in tasks.values() for model in entry["models"].values())
    return {"tasks": tasks, "finished": finished, "of": len(jobs)}


def _summary(seeds: dict[str, dict], first: dict[str, dict] | None) -> dict[str, dict[str, Any]]:
    summary: dict[str, dict[str, Any]] = {}
    for split in ("dev", "test"):
        metrics = dict.fromkeys(name for result in seeds.values() for name in result.get(split, {}))
        for metric in metrics:
            values = _by_seed(seeds, split, metric)
            if not values:
                continue
            numbers = list(values.values())
            summary.setdefault(split, {})[metric] = {
                "mean": float(np.mean(numbers)),
                "sd": float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None,
                "seeds": len(numbers),
                "difference": paired_difference(values, _by_seed(first, split, metric)) if first is not None else None,
            }
    return summary


def _by_seed(seeds: dict[str, dict], split: str, metric: str) -> dict[int, float]:
    """Without the seeds of which the figure is not defined."""
    found = {int(seed): result.get(split, {}).get(metric) for seed, result in seeds.items()}
    return {seed: value for seed, value in found.items() if value is not None}


def markdown(results: dict[str, Any]) -> str:
    """One table of all tasks, by each task's main metric: on test, where there is none on dev, which chose the epochs."""
    lines = [
        "| task | metric | model | seeds | dev | test | difference to the first model | 95% interval | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in results["tasks"].items():
        metric = entry["metric"]
        for place, (model, found) in enumerate(entry["models"].items()):
            by_split = {split: metrics.get(metric) for split, metrics in found["summary"].items()}
            judged = by_split.get("test") or by_split.get("dev")
            difference = judged and judged["difference"]
            cells = [
                name,
                metric,
                model,
                len(found["seeds"]),
                _spread(by_split.get("dev")),
                _spread(by_split.get("test")),
            ]
            cells += ["", "", "the first model"] if place == 0 else _difference(difference)
            lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    lines += [
        "",
        "Mean ± standard deviation over seeds; dev chose the epoch, test was scored once with it. Differences are paired by "
        "seed, on test where there is one, else on dev; their interval (Student's t) covers what the seed moves, not which "
        "texts are in the test data. Within noise: the interval holds 0.",
    ]
    if results["finished"] < results["of"]:
        lines.append(f"\n{results['finished']} of {results['of']} fine-tunings are finished.")
    return "\n".join(lines) + "\n"


def _spread(figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "–"
    return f"{figure['mean']:.4f}" + (f" ± {figure['sd']:.4f}" if figure["sd"] is not None else "")


def _difference(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["–", "–", "not known yet"]
    if found["low"] is None:
        return [f"{found['mean']:+.4f}", "–", "one seed: not known"]
    verdict = "within noise" if found["within_noise"] else "better" if found["mean"] > 0 else "worse"
    return [f"{found['mean']:+.4f}", f"{found['low']:+.4f} to {found['high']:+.4f}", verdict]
