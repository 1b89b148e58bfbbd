"""Command lines and suites, and what is impossible in them."""

import pytest
import yaml

from electra_accel.errors import UserError
from electra_accel.finetuning.config import Settings, Task, check
from electra_accel.finetuning.config_parser import dump, parse
from electra_accel.options.help import help_page
from tests.helpers import ROOT


def asked(*words):
    found = parse([str(word) for word in words], "")
    check(found.settings, found.tasks, found.of_tasks)
    return found


def test_command_line():
    line = (
        "--models a b --task.kind pair --task.train_file x/pairs.tsv --run.seeds 4 5 --optim.learning_rate 1e-3 --cpu"
    )
    found = asked(*line.split())
    assert (found.settings.models, found.settings.run.seeds, found.cpu) == (["a", "b"], [4, 5], True)
    assert found.settings.optim.learning_rate == 1e-3 and found.settings.train.epochs == 3
    [task] = found.tasks
    assert (task.name, task.metric, task.text_columns) == ("pairs", "accuracy", ["sentence1", "sentence2"])
    assert task.label_column == "label"
    again = yaml.safe_load(dump(found))
    assert Task(**again["tasks"][0]) == task and again["run"]["seeds"] == [4, 5]


def test_columns_whose_names_yaml_would_not_take_for_text(tmp_path):
    """The header of GLUE's MRPC, on the command line, in a suite, and in the config.yaml that is written of both."""
    columns = ["#1 String", "#2 String"]
    line = ["--models", "m", "--task.kind", "pair", "--task.train_file", "f.tsv", "--task.label_column", "~"]
    found = asked(*line, "--task.text_columns", *columns)
    assert (found.tasks[0].text_columns, found.tasks[0].label_column) == (columns, "~")
    suite = {"tasks": [{"name": "null", "kind": "pair", "train_file": "f.tsv", "text_columns": columns}]}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    found = asked("--models", "m", "--suite", tmp_path / "suite.yaml")
    assert (found.tasks[0].text_columns, found.tasks[0].name) == (columns, "null")
    (tmp_path / "config.yaml").write_text(dump(found))
    assert asked("--config", tmp_path / "config.yaml").tasks == found.tasks


def test_an_option_given_in_two_ways_by_one_file(tmp_path):
    (tmp_path / "c.yaml").write_text("run.seeds: [1, 2]\nrun: {seeds: [7]}\n")
    with pytest.raises(UserError, match="c.yaml: run.seeds is given twice"):
        asked(*BASE, "--config", tmp_path / "c.yaml")
    assert asked(*BASE, "--run.seeds", 1, "--run.seeds", 2).settings.run.seeds == [2]  # the last word of a line counts


def test_suites_of_the_recipes():
    """They name tasks that could run; the command line comes last."""
    for suite, number in (("korean", 3), ("english", 1)):
        file = ROOT / "recipes" / "suites" / f"{suite}.yaml"
        found = asked("--models", "a", "--suite", file, "--suite_data", "/data", "--task.max_length", 64)
        assert len(found.tasks) == number
        assert all(task.train_file.startswith("/data/") and task.max_length == 64 for task in found.tasks)
    for suite, epochs in (("hub-korean", [3, 3, 3]), ("hub-english", [3, 3, 3, 10, 3, 3, 3, 10])):
        found = asked("--models", "a", "--suite", ROOT / "recipes" / "suites" / f"{suite}.yaml")
        assert [each.train.epochs for each in found.of_tasks] == epochs
        assert all(task.dataset for task in found.tasks)


def test_a_task_of_a_suite_may_have_its_own_epochs(tmp_path):
    """And learning rate; config.yaml gives the same back, and the command line comes last in both."""
    entries = "- {name: a, kind: classification, train_file: '{data}/a.tsv'}\n- {name: b, kind: pair, dataset: x}\n"
    (tmp_path / "suite.yaml").write_text(f"tasks:\n{entries[:-2]}, train.epochs: 10, optim.learning_rate: 1e-3}}\n")
    line = ["--models", "m", "n", "--suite", tmp_path / "suite.yaml", "--suite_data", "d", "--run.seeds", "7"]
    found = asked(*line, "--train.epochs", 5, "--optim.layer_decay", 1)
    assert [each.train.epochs for each in found.of_tasks] == [5, 5]
    found = asked(*line)
    assert [each.train.epochs for each in found.of_tasks] == [3, 10]
    assert [each.optim.learning_rate for each in found.of_tasks] == [None, 1e-3]
    (tmp_path / "config.yaml").write_text(dump(found))
    again = asked("--config", tmp_path / "config.yaml")
    assert (again.tasks, dump(again)) == (found.tasks, dump(found))
    assert [each.optim for each in again.of_tasks] == [each.optim for each in found.of_tasks]
    again = asked("--config", tmp_path / "config.yaml", "--run.seeds", 8, "--train.epochs", 1)
    assert [(each.run.seeds, each.train.epochs) for each in again.of_tasks] == [([8], 1)] * 2
    assert again.settings.models == ["m", "n"]


def test_the_configuration_of_an_older_run_is_read(tmp_path):
    """It had an option for checkpoints; every other unknown one is a mistake."""
    (tmp_path / "config.yaml").write_text(f"models: [m]\ncheckpoint: {{every: 500}}\n{SUITE}".replace("{data}", "d"))
    assert [task.name for task in asked("--config", tmp_path / "config.yaml").tasks] == ["a"]
    with pytest.raises(UserError, match="checkpoint.every"):
        asked("--config", tmp_path / "config.yaml", "--checkpoint.every", 5)


SUITE = "tasks:\n- {name: a, kind: classification, train_file: '{data}/a.tsv'}\n"
BASE = ["--models", "m", "--task.kind", "classification", "--task.train_file", "f.tsv"]
WRONG = {
    "nothing": ([], None, ["--models", "task.kind", "task.train_file"]),
    "unknown option": ([*BASE, "--task.trian_rows", "5"], None, ["task.trian_rows", "task.train_rows"]),
    "wrong kind": ([*BASE, "--task.kind", "ner"], None, ["task.kind", "tagging", "ner"]),
    "wrong type": ([*BASE, "--run.seeds", "1", "x"], None, ["run.seeds", "whole number"]),
    "outside": ([*BASE, "--optim.layer_decay", "1.5"], None, ["optim.layer_decay", "(0, 1]", "1.5"]),
    "epochs": ([*BASE, "--train.epochs", "0"], None, ["train.epochs"]),
    "metric": ([*BASE, "--task.metric", "pearson"], None, ["task.metric pearson", "macro_f1"]),
    "columns": ([*BASE, "--task.text_columns", "a", "b"], None, ["classification", "1 task.text_columns"]),
    "no dev": ([*BASE, "--task.dev_fraction", "0"], None, ["task.dev_file"]),
    "twice": ([*BASE, "--run.seeds", "1", "1"], None, ["run.seeds", "twice"]),
    "a path as name": ([*BASE, "--task.name", "../../x"], None, ["task.name '../../x'", "folder"]),
    "no name": ([*BASE, "--task.name="], None, ["task.name ''"]),
    "a name that is taken": ([*BASE, "--task.name", "checkpoints"], None, ["task.name 'checkpoints'"]),
    "dev is test": ([*BASE, "--task.dev_file", "d/x.tsv", "--task.test_file", "d/../d/x.tsv"], None, ["same file"]),
    "both": ([*BASE, "--task.dataset", "nsmc"], None, ["task.train_file and task.dataset exclude each other"]),
    "deadline": ([*BASE, "--run.deadline", "soon"], None, ["run.deadline soon"]),
    "past": ([*BASE, "--run.deadline", "2020-01-01T00:00"], None, ["run.deadline 2020-01-01T00:00 is past"]),
    "data alone": ([*BASE, "--suite_data", "x"], None, ["--suite"]),
    "no data": (["--models", "m"], SUITE, ["{data}", "--suite_data", "task a"]),
    "same names": (["--models", "m", "--suite_data", "d", "--task.name", "b"], SUITE + SUITE[7:], ["called b"]),
    "key of a suite": (["--models", "m", "--suite_data", "d"], SUITE.replace("kind", "kin"), ["task a", "task.kin "]),
    "an option of all tasks": (
        ["--models", "m", "--suite_data", "d"],
        SUITE.replace("}\n", ", run.dir: x}\n"),
        ["task a", "run.dir holds for all", "train.epochs"],
    ),
    "epochs of a task": (
        ["--models", "m", "--suite_data", "d"],
        SUITE.replace("}\n", ", train.epochs: 0}\n"),
        ["train.epochs must lie in"],
    ),
    "a control character": (["--models", "m"], "tasks: \x00\n", ["suite.yaml", "broken YAML"]),
    "a name twice": (["--models", "m"], SUITE.replace("kind", "name"), ["suite.yaml, line 2", "'name'"]),
    "twice in two ways": (
        ["--models", "m", "--suite_data", "d"],
        SUITE.replace("}\n", ", optim.learning_rate: 1, optim.learning_rate: 2}\n"),
        ["suite.yaml", "optim.learning_rate"],
    ),
    "no tasks": (["--models", "m"], "task: 1\n", ["tasks:", "recipes/suites"]),
    "broken suite": (["--models", "m"], "tasks: [\n", ["line 2", "YAML"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_mistakes(tmp_path, what):
    words, suite, expected = WRONG[what]
    if suite:
        (tmp_path / "suite.yaml").write_text(suite)
        words = [*words, "--suite", tmp_path / "suite.yaml"]
    with pytest.raises(UserError) as caught:
        asked(*words)
    assert all(part in str(caught.value) for part in expected), caught.value


def test_help_names_every_option():
    page = help_page(Settings, "Title")
    assert all(name in page for name in ("--models", "--suite_data", "--task.train_rows", "--run.seeds", "[1 2 3]"))
