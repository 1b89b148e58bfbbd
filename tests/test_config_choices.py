"""Options that exclude each other: a later layer's takes the place of the others, in one layer two are an error."""

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import yaml

from electra_accel.errors import UserError
from electra_accel.finetuning import config as finetuning_config
from electra_accel.finetuning import config_parser as finetuning_parser
from electra_accel.options.declare import Alternative, flatten, is_given
from electra_accel.pretraining import config as pretraining_config
from electra_accel.pretraining.config_checks import check
from electra_accel.pretraining.config_parser import parse
from tests.config_examples import PAIR, SCRATCH, config_of, error_of
from tests.helpers import ROOT

VALUES = {"model.size": "tiny", "train.epochs": 2.5, "train.flops": 1e9, "data.train_files": ["a.txt"]}
NUMBERS = ("train.steps", "tokenizer.train_vocab_size", "tokenizer.learn_tokens", "model.warm_start_steps")
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
LAYERS = [
    pytest.param(job, choice, old, new, id=f"{job}-{old.options[0]}-{new.options[0]}")
    for job, choices in (("pretrain", pretraining_config.CHOICES), ("finetune", finetuning_config.CHOICES))
    for choice in choices
    for old, new in permutations(choice, 2)
]


def values_of(alternative: Alternative) -> dict[str, Any]:
    return {name: VALUES.get(name, 500 if name in NUMBERS else "x") for name in alternative.options}


def options_of(job: str, argv: list[str]) -> dict[str, Any]:
    if job == "pretrain":
        return flatten(parse(argv, "").config)
    return flatten(finetuning_parser.parse(argv, "").settings)


def write(path: Path, values: dict[str, Any]) -> str:
    """A file, as ``--config=…``."""
    groups: dict[str, dict] = {}
    for name, value in values.items():
        group, _, short = name.partition(".")
        groups.setdefault(group, {})[short] = value
    path.write_text(yaml.safe_dump(groups))
    return f"--config={path}"


def words(values: dict[str, Any]) -> list[str]:
    return [f"--{name}={value[0] if isinstance(value, list) else value}" for name, value in values.items()]


@pytest.mark.parametrize(("job", "choice", "old", "new"), LAYERS)
def test_the_later_layer_chooses(tmp_path: Path, job: str, choice: tuple, old: Alternative, new: Alternative):
    recipe, later = write(tmp_path / "recipe.yaml", values_of(old)), write(tmp_path / "later.yaml", values_of(new))
    every = [name for each in choice for name in each.options]
    for argv in ([recipe, *words(values_of(new))], [*words(values_of(new)), recipe], [recipe, later]):
        found = options_of(job, argv)
        assert {name: found[name] for name in every if is_given(found[name])} == values_of(new)
    found = options_of(job, [recipe, *(f"--{name}=null" for name in new.options)])
    assert {name: found[name] for name in every if is_given(found[name])} == values_of(old), "null chooses nothing"


@pytest.mark.parametrize(("job", "choice", "old", "new"), LAYERS)
def test_two_in_one_layer_are_an_error(tmp_path: Path, job: str, choice: tuple, old: Alternative, new: Alternative):
    both = values_of(old) | values_of(new)
    file = write(tmp_path / "recipe.yaml", both)
    for source, argv in (("command line", words(both)), (str(tmp_path / "recipe.yaml"), [file])):
        with pytest.raises(UserError) as caught:
            options_of(job, argv)
        assert str(caught.value).startswith(f"{source}: ")
        assert old.options[0] in str(caught.value) and new.options[0] in str(caught.value)


SWITCHES = [
    "--train.steps 40",
    "--train.epochs 1",
    "--train.flops 1e12",
    "--data.train_files t.txt",
    "--data.dataset python_docs",
    "--data.prepared p",
    "--model.size small --tokenizer.train_vocab_size 8000",
    "--model.size small --tokenizer.path v",
    "--model.generator g --model.discriminator d",
    "--model.generator warm-start --model.discriminator d --train.steps 9",
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("switch", SWITCHES)
def test_any_choice_over_any_recipe_just_works(recipe: Path, switch: str):
    text = [] if "--data." in switch else ["--data.train_files", "text.txt"]
    base = ["--config", "tiny-own-text"] if recipe.stem == "published" else []  # it is for another recipe
    config = config_of(*base, "--config", str(recipe), *text, *switch.split())
    assert check(pretraining_config.resolve(config)) == []


@pytest.mark.parametrize(
    ("recipe", "argv", "gone", "kept"),
    [
        (
            {"model.revision": "r", "model.warm_start_steps": 9, "tokenizer.add_tokens": "f", "model.dropout": 0.0},
            ["--model.size=tiny"],
            {"model.revision": None, "model.warm_start_steps": 2000, "tokenizer.add_tokens": None},
            {"model.dropout": 0.0},
        ),
        (
            {"model.generator_width": 0.5, "tokenizer.path": "v", "tokenizer.learn_tokens": 7},
            ["--model.discriminator=e"],
            {},
            {"model.generator": "g", "model.generator_width": 0.5, "tokenizer.path": "v", "tokenizer.learn_tokens": 7},
        ),
        (
            {
                "data.eval_files": ["e.txt"],
                "data.replay_files": ["r.txt"],
                "tokenizer.path": "v",
                "data.max_length": 64,
            },
            ["--data.prepared=p"],
            {"data.train_files": None, "data.eval_files": None, "data.replay_files": None, "tokenizer.path": None},
            {"data.max_length": 64},
        ),
    ],
    ids=["size over pair", "one network of a pair", "prepared over files"],
)
def test_what_goes_and_what_stays_with_a_choice(tmp_path: Path, recipe: dict, argv: list[str], gone: dict, kept: dict):
    pair = {"data.train_files": ["a.txt"], "model.generator": "g", "model.discriminator": "d"}
    found = flatten(config_of(write(tmp_path / "recipe.yaml", pair | recipe), *argv))
    assert {name: found[name] for name in gone | kept} == gone | kept


def test_a_pair_over_a_size_brings_its_own_vocabulary(tmp_path: Path):
    recipe = {"model.size": "tiny", "model.generator_width": 0.5, "tokenizer.train_vocab_size": 900}
    file = write(tmp_path / "recipe.yaml", recipe)
    found = config_of(file, *PAIR)
    assert (found.model.size, found.model.generator_width, found.tokenizer.train_vocab_size) == (None, None, None)
    found = config_of(file, *PAIR, "--tokenizer.path=v")
    assert (found.tokenizer.path, found.tokenizer.train_vocab_size) == ("v", None)
    assert "model.generator_width" in error_of(file, *PAIR, "--model.generator_width=.5")


def test_learning_rates_go_when_they_were_chosen_for_another_size_or_optimizer(tmp_path: Path):
    rates = {"optim.learning_rate": 4e-3, "optim.matrix_learning_rate": 6e-3, "optim.generator_factor": 2.0}
    recipe = {"model.size": "tiny", "optim.kind": "muon", "objective.mask_prob": 0.5} | rates
    file = write(tmp_path / "recipe.yaml", recipe)
    for words in (["--model.size=small"], ["--optim.kind=adamw"]):
        found = flatten(config_of(file, *words))
        assert [found[name] for name in rates] == [None, None, 1] and found["objective.mask_prob"] == 0.5
        assert config_of(file, *words, "--optim.learning_rate=1e-4").optim.learning_rate == 1e-4
    same = flatten(config_of(file, "--model.size=tiny", "--optim.kind=muon"))
    assert {name: same[name] for name in rates} == rates
    file = write(tmp_path / "rate.yaml", {"optim.learning_rate": 4e-3})  # for whatever comes after it
    assert config_of(file, "--model.size=small", "--optim.kind=muon").optim.learning_rate == 4e-3


def test_what_does_not_fit_is_still_said(tmp_path: Path):
    """What the last layer says itself, and one network alone."""
    file = write(tmp_path / "recipe.yaml", {"data.prepared": "p"})
    assert "tokenizer.path is settled by data.prepared" in error_of(file, *SCRATCH[2:], "--tokenizer.path=v")
    file = write(tmp_path / "recipe.yaml", {"model.size": "tiny"})
    assert "model.generator " in error_of(file, "--model.generator=g")


def test_print_config_shows_what_was_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    recipe = write(tmp_path / "recipe.yaml", {"train.epochs": 3})
    with pytest.raises(SystemExit) as ended:
        parse([recipe, *PAIR, "--train.steps", "40", "--print_config"], "")
    shown = yaml.safe_load(capsys.readouterr().out)["train"]
    assert (ended.value.code, shown["steps"], shown["epochs"]) == (0, 40, None)
    assert parse([recipe, *PAIR, "--train.steps", "40", "--dry_run"], "").config.train.epochs is None


ENTRY = {"name": "a", "kind": "classification", "train_file": "f.tsv", "dev_file": "d.tsv", "test_file": "t.tsv"}


def tasks_of(*argv: object) -> list[finetuning_config.Task]:
    found = finetuning_parser.parse(["--models", "m", *map(str, argv)], "")
    finetuning_config.check(found.settings, found.tasks, found.of_tasks)
    return found.tasks


def test_a_data_set_takes_the_place_of_a_tasks_files(tmp_path: Path):
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"tasks": [ENTRY]}))
    suite = ["--suite", tmp_path / "suite.yaml"]
    [task] = tasks_of(*suite, "--task.dataset", "nsmc")
    assert (task.dataset, task.train_file, task.dev_file, task.test_file) == ("nsmc", None, None, None)
    [task] = tasks_of("--config", tmp_path / "suite.yaml", "--task.dataset", "nsmc")
    assert (task.dataset, task.train_file, task.dev_file) == ("nsmc", None, None)
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"tasks": [ENTRY | {"dataset": "nsmc"}]}))
    with pytest.raises(UserError, match="suite.yaml, task a: task.train_file and task.dataset "):
        tasks_of(*suite)


def test_the_later_one_of_a_suite_and_a_files_tasks(tmp_path: Path):
    suite, config = tmp_path / "suite.yaml", tmp_path / "config.yaml"
    suite.write_text(yaml.safe_dump({"tasks": [ENTRY | {"name": "of-suite"}]}))
    config.write_text(yaml.safe_dump({"tasks": [ENTRY | {"name": "of-file"}]}))
    (tmp_path / "names.yaml").write_text(yaml.safe_dump({"suite": str(suite)}))

    def name(*argv: object) -> str:
        [task] = tasks_of(*argv)
        return task.name

    assert name("--config", config, "--suite", suite) == "of-suite"
    assert name("--config", config, "--config", tmp_path / "names.yaml") == "of-suite"
    assert name("--config", tmp_path / "names.yaml", "--config", config) == "of-file"
    assert name("--config", config, "--suite", "null") == "of-file"
    config.write_text(yaml.safe_dump({"tasks": [ENTRY], "suite": str(suite)}))
    with pytest.raises(UserError, match="config.yaml: suite and tasks "):
        tasks_of("--config", config)
    with pytest.raises(UserError, match="unknown option tasks"):
        tasks_of("--tasks", "a")


def test_a_pair_over_a_recipe_from_scratch_trains_as_a_pair():
    recipe = ["--config", str(ROOT / "recipes" / "tiny-python-docs.yaml"), "--data.train_files", "t.txt"]
    pair = ["--model.generator", "g", "--model.discriminator", "d"]
    found = pretraining_config.resolve(config_of(*recipe, *pair)).optim
    assert found.learning_rate == pretraining_config.FROM_PAIR.learning_rate
    assert found.generator_factor == 1
    given = pretraining_config.resolve(config_of(*recipe, *pair, "--optim.learning_rate=1e-4")).optim
    assert given.learning_rate == 1e-4


def test_a_shorter_run_than_the_recipe_has_a_warmup_that_fits():
    recipe = ["--config", str(ROOT / "recipes" / "tiny-python-docs.yaml")]
    asked = pretraining_config.resolve(config_of(*recipe)).optim.warmup_steps
    assert pretraining_config.resolve(config_of(*recipe, "--train.steps=40")).optim.warmup_steps == 4
    assert pretraining_config.resolve(config_of(*recipe, "--train.steps=2000")).optim.warmup_steps == asked
    with pytest.raises(UserError, match="optim.warmup_steps 41 .*40 steps"):
        check(pretraining_config.resolve(config_of(*recipe, "--train.steps=40", "--optim.warmup_steps=41")))
