"""What a study's table says of tasks while some of its fine-tunings are still missing."""

import json

import pytest

from electra_accel.reports.study import Row, Study
from electra_accel.reports.study_results import collect, markdown
from electra_accel.runs import run_folder


def test_networks_are_compared_on_the_seeds_of_fine_tuning_that_all_have(tmp_path):
    """The second row's fine-tunings were stopped after its luckier seed: both rows learn the task equally well.

    A network whose row was removed from the study has no say.
    """
    networks = {"a-1": {"1": 0.9, "2": 0.5}, "b-1": {"1": 0.9}, "c-1": {"1": 0.8, "2": None}}
    models = {}
    for run, accuracies in networks.items():
        (tmp_path / run).mkdir()
        run_folder.write_status(tmp_path / run, "done", 3)
        run_folder.append_jsonl(tmp_path / run / run_folder.METRICS, {"step": 3, "train/tokens": 9, "train/flops": 1.0})
        seeds = {seed: {"dev": {"accuracy": 1.0}, "test": {"accuracy": value}} for seed, value in accuracies.items()}
        models[run] = {"source": str(tmp_path / run / "discriminator"), "seeds": seeds}
    models["removed-1"] = {
        "source": str(tmp_path / "removed-1" / "discriminator"),
        "seeds": {"7": seeds["1"]},
    }  # its row is
    # An earlier study file had no fine-tuning options for row c: those figures stand in the first folder and do not count.
    own = {"c-1": models["c-1"]}
    models["c-1"] = models["c-1"] | {"seeds": {"1": {"test": {"accuracy": 0.1}}}}
    for folder, there in (("tasks", models), ("tasks-x=3", own)):
        (tmp_path / folder).mkdir()
        tasks = {"tasks": {"t": {"metric": "accuracy", "models": there}}}
        (tmp_path / folder / "results.json").write_text(json.dumps(tasks))
    rows = [Row("a", [], None, None), Row("b", ["--x"], "a", None), Row("c", ["--y"], "a", None, ["--x=3"])]
    found = collect(Study(rows, [], []), tmp_path)
    assert {name: entry["mean"]["t/accuracy"] for name, entry in found.items()} == {"a": 0.9, "b": 0.9, "c": 0.8}
    assert found["b"]["difference"]["t/accuracy"]["mean"] == 0
    assert found["c"]["difference"]["t/accuracy"]["mean"] == pytest.approx(-0.1)
    assert "those seeds of fine-tuning that all networks have" in markdown(Study(rows, [], []), found)
