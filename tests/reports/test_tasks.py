"""What an adaptation did to tasks: both networks are found, by what their folders hold, and their figures are paired."""

import json
import shutil

import pytest
import yaml
from scipy import stats

from electra_accel.errors import UserError
from electra_accel.finetuning.results import RESULTS_JSON
from electra_accel.model.fingerprint import fingerprint
from electra_accel.reports.tasks import sentence, task_changes
from electra_accel.runs import run_folder

BEFORE = {"1": 0.80, "2": 0.82, "3": 0.81, "7": 0.10}  # seed 7 was not given to both
AFTER = {"1": 0.85, "2": 0.86, "3": 0.83}
ALIKE = {"1": 0.81, "2": 0.81, "3": 0.82}


def seeds(figures: dict, split: str = "test") -> dict:
    return {seed: {"dev": {"accuracy": 0.5}, split: {"accuracy": value}} for seed, value in figures.items()}


def network(folder, weights: str) -> str:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(weights)
    return str(folder)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A run that adapted ``general``, and two tasks: one is won, one stays as it was."""
    monkeypatch.chdir(tmp_path)
    paths = {"general": "general", "run": "run/discriminator", "other": "other"}
    for name, path in paths.items():
        network(tmp_path / path, name)
    write_config(tmp_path, discriminator="general")
    entries = {
        name: {"source": path, "untrained": False, "fingerprint": fingerprint(tmp_path / path)}
        for name, path in paths.items()
    }
    entries["bare"] = entries["run"] | {"untrained": True, "fingerprint": fingerprint(tmp_path / paths["run"], True)}
    figures = {"other": ALIKE, "general": BEFORE, "run": AFTER, "bare": ALIKE}
    won = {name: entry | {"seeds": seeds(figures[name])} for name, entry in entries.items()}
    same = {name: entry | {"seeds": seeds(ALIKE, "dev")} for name, entry in entries.items()}
    write_results(tmp_path, {"won": won, "same": same})
    return tmp_path


def write_config(place, **model) -> None:
    (place / "run" / run_folder.CONFIG).write_text(yaml.safe_dump({"model": model, "objective": {"kind": "rtd"}}))


def write_results(place, tasks: dict) -> None:
    entries = {
        name: {"kind": "classification", "metric": "accuracy", "models": models} for name, models in tasks.items()
    }
    (place / "finetuned").mkdir(exist_ok=True)
    (place / "finetuned" / RESULTS_JSON).write_text(json.dumps({"tasks": entries}))


def changes(place, **more):
    return task_changes(place / "run", place / "finetuned", **more)


def test_figures_are_paired(place):
    """Neither of the two is the first model of the table; only seeds that both have count."""
    won, same = changes(place)
    both = [seed for seed in BEFORE if seed in AFTER]
    before, after = ([figures[seed] for seed in both] for figures in (BEFORE, AFTER))
    interval = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert (won.difference["low"], won.difference["high"]) == (
        pytest.approx(interval.low),
        pytest.approx(interval.high),
    )
    assert (won.before, won.after) == (pytest.approx(0.81), pytest.approx(2.54 / 3))
    assert (won.verdict, won.split, won.difference["seeds"]) == ("within noise", "test", 3), (
        "three seeds, 0 just inside"
    )
    assert (same.verdict, same.split) == ("within noise", "dev")
    assert str(won) == (
        f"accuracy 0.8100 -> 0.8467 (+0.0367, 95% interval {interval.low:+.4f} to {interval.high:+.4f}, 3 seeds): within noise"
    )
    assert "accuracy on dev 0.8133" in str(same)


def test_what_is_said_is_what_was_measured(place):
    entries = json.loads((place / "finetuned" / RESULTS_JSON).read_text())["tasks"]["won"]["models"]
    figures = {
        "gained": (BEFORE, {"1": 0.85, "2": 0.87, "3": 0.865}),
        "lost": ({"1": 0.85, "2": 0.87, "3": 0.865}, BEFORE),
        "once": ({"1": 0.8}, {"1": 0.9}),
        "none": ({}, {"1": 0.9}),
    }
    tasks = {
        task: entries | {name: entries[name] | {"seeds": seeds(each)} for name, each in zip(("general", "run"), two)}
        for task, two in figures.items()
    }
    write_results(place, tasks)
    found = changes(place)
    assert [each.verdict for each in found] == ["better", "worse", "one seed: not known", "not known yet"]
    assert sentence(found) == (
        "fine-tuned, it is better on gained, worse on lost; whether once and none gained is not known: it takes more seeds"
    )
    assert "no seed is finished for both" in str(found[3])
    assert str(found[2]).endswith("one seed): whether it is more than noise is not known (one seed)")


def test_a_run_from_scratch_is_compared_with_no_pre_training(place):
    write_config(place, size="tiny", discriminator=None)
    assert changes(place)[0].before == pytest.approx(sum(ALIKE.values()) / 3)


def test_wherever_the_same_weights_stand(place):
    """Moved folders, another current folder, and the export of a checkpoint."""
    shutil.copytree(place / "run" / "discriminator", place / "out")
    assert changes(place, exported=place / "out") == changes(place)
    shutil.move(place / "run", place / "moved")
    assert task_changes(place / "moved", place / "finetuned")[0].after == pytest.approx(2.54 / 3)


def test_a_hub_id_goes_by_its_name(place):
    write_config(place, discriminator="me/electra")
    text = (place / "finetuned" / RESULTS_JSON).read_text().replace('"source": "general"', '"source": "me/electra"')
    (place / "finetuned" / RESULTS_JSON).write_text(text)
    assert changes(place)[0].before == pytest.approx(0.81)
    write_config(place, discriminator="me/electra", revision="v2")
    with pytest.raises(UserError, match="at revision v2"):
        changes(place)


def trained_on(place):
    (place / "run" / "discriminator" / "model.safetensors").write_text("more steps")


def another_start(place):
    write_config(place, discriminator="elsewhere/discriminator")


def old_version(place):
    write_results(place, {"won": {"general": {"source": "general", "seeds": {}}}})


REFUSED = {
    "trained on since": (
        trained_on,
        ["of other weights than the present ones", "--models general", "--run.dir ANOTHER"],
    ),
    "never fine-tuned": (
        another_start,
        ["no figures of elsewhere/discriminator, only of general", "--models elsewhere/discriminator ", "finetuned"],
    ),
    "no figures": (lambda place: shutil.rmtree(place / "finetuned"), ["no results.json", "scripts/finetune.py"]),
    "old figures": (old_version, ["which weights", "finetune command again"]),
    "no export": (lambda place: shutil.rmtree(place / "run" / "discriminator"), ["no discriminator/ yet"]),
}


ONE = {"source": "general", "untrained": False, "fingerprint": "f"}


@pytest.mark.parametrize(
    "tasks",
    [
        [1],
        {"a": {}},
        {"a": 1},
        {"a": {"models": {"m": ONE | {"seeds": {}}}}},
        {"a": {"metric": "accuracy", "models": [ONE]}},
        {"a": {"metric": "accuracy", "models": {"m": 1}}},
        {"a": {"metric": "accuracy", "models": {"m": ONE}}},
        {"a": {"metric": "accuracy", "models": {"m": ONE | {"seeds": {"one": {"test": {"accuracy": 0.5}}}}}}},
        {"a": {"metric": "accuracy", "models": {"m": ONE | {"seeds": {"1": {"test": {"accuracy": "high"}}}}}}},
        {"a": {"metric": "accuracy", "models": {"m": ONE | {"seeds": {"1": {"test": 1}}}}}},
    ],
    ids=str,
)
def test_figures_of_another_shape_are_refused(place, tasks):
    (place / "finetuned" / RESULTS_JSON).write_text(json.dumps({"tasks": tasks}))
    with pytest.raises(UserError, match=f"finetuned/{RESULTS_JSON} is not as scripts/finetune.py writes it"):
        changes(place)


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_told_is_said(place, what):
    alter, expected = REFUSED[what]
    alter(place)
    with pytest.raises(UserError) as caught:
        changes(place)
    assert all(part in str(caught.value) for part in expected), caught.value
