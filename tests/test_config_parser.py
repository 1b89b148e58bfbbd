"""What wins, the one-line errors, there and back, and the help page."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from electra_accel.errors import UserError
from electra_accel.options.declare import flatten
from electra_accel.options.help import help_page
from electra_accel.options.yaml_file import read_yaml
from electra_accel.pretraining.config import Config, resolve
from electra_accel.pretraining.config_parser import dump, load, parse
from electra_accel.reports.study import words_of
from tests.config_examples import PAIR, SCRATCH, config_of, error_of
from tests.helpers import run_script


def write(folder: Path, text: str, name: str = "recipe.yaml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_command_line_goes_before_files_wherever_config_stands(tmp_path: Path):
    first = write(tmp_path, "train: {steps: 1, batch_tokens: 256}\nrun: {seed: 5}\n", "first.yaml")
    second = write(tmp_path, "train:\n  steps: 2\n", "second.yaml")
    for argv in (
        ["--config", first, "--config", second, "--run.seed", "9"],
        ["--run.seed", "9", "--config", first, f"--config={second}"],
        ["--config", first, "--run.seed=9", "--config", second],
    ):
        arguments = parse(argv, "")
        config = arguments.config
        assert (config.train.steps, config.train.batch_tokens, config.run.seed) == (2, 256, 9)
        assert config.optim.eps == 1e-6
        assert arguments.recipe == "second"


def test_an_empty_list_on_the_command_line():
    assert config_of("--tracking.trackers=[]").tracking.trackers == []
    assert config_of("--tracking.trackers").tracking.trackers == []


def test_files_and_command_line_accept_the_same_values(tmp_path: Path):
    path = write(
        tmp_path,
        "optim: {learning_rate: 1e-3, betas: [.8, .9]}\n"
        "train: {precision: no, compile: off, attention_boundaries: no}\n"
        "data:\n  train_files: [a b.csv, 5.txt]\n  eval_files: ../c*.csv\n"
        "tracking: {group: 7, notes: , tags: []}\n"
        "checkpoint:\n",
    )
    config = config_of("--config", path)
    assert (config.optim.learning_rate, config.optim.betas) == (1e-3, [0.8, 0.9])
    assert (config.train.precision, config.train.compile, config.train.attention_boundaries) == ("no", "off", False)
    assert (config.data.train_files, config.data.eval_files) == (["a b.csv", "5.txt"], ["../c*.csv"])
    assert (config.tracking.group, config.tracking.notes, config.tracking.tags) == ("7", None, [])
    assert config == config_of(
        *"--optim.learning_rate 1e-3 --optim.betas .8 .9 --train.precision no --train.attention_boundaries off".split(),
        *["--data.train_files", "a b.csv", "5.txt", "--data.eval_files", "../c*.csv", "--tracking.group", "7"],
    )


def test_null_takes_back_what_a_file_set(tmp_path: Path):
    path = write(tmp_path, "train: {steps: 5}\ndata: {train_files: [a], max_length: 64}\n")
    config = config_of("--config", path, "--train.steps", "null", "--data.train_files", "null")
    assert (config.train.steps, config.data.train_files, config.data.max_length) == (None, None, 64)
    empty = write(
        tmp_path, "run: {seed: null}\ndata:\n  text_column:\n  train_files: null\noptim: {betas: null}\n", "e.yaml"
    )
    assert config_of("--config", empty) == Config()


TEXTS = [
    "#sen",
    "~",
    "[a]",
    "{a: 1}",
    "a: b",
    "- a",
    "@x",
    "0x10",
    "1_000",
    "yes",
    "'q'",
    '"q"',
    "",
    " x ",
    "-1",
    "NULL",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_text(tmp_path: Path, text: str):
    """Whatever YAML would make of it, on the command line, in a file, and in the config.yaml that is written of both."""
    one, several = "tracking.notes", "data.train_files"
    asked = config_of(f"--{one}={text}", f"--{several}", text, text)
    assert (asked.tracking.notes, asked.data.train_files) == (text, [text, text])
    path = write(tmp_path, yaml.safe_dump({"tracking": {"notes": text}, "data": {"train_files": [text, text]}}))
    assert config_of("--config", path) == asked == load(Path(write(tmp_path, dump(asked), "again.yaml")))
    assert yaml.safe_load(dump(asked))["tracking"]["notes"] == text


def test_only_the_bare_word_null_takes_an_option_back(tmp_path: Path):
    set_before = ["--tracking.notes=x", "--data.text_column", "y"]
    assert config_of(*set_before, "--tracking.notes=null", "--data.text_column", "null") == Config()
    texts = write(
        tmp_path, "tracking: {notes: \"null\", group: ~}\ndata: {text_column: 'null', train_files: ['null']}\n"
    )
    config = config_of("--config", texts)
    assert (config.tracking.notes, config.tracking.group, config.data.text_column) == ("null", "~", "null")
    assert config.data.train_files == ["null"]
    assert load(Path(write(tmp_path, dump(config), "again.yaml"))) == config


def test_words_that_begin_with_dashes():
    """A value may begin with one dash; after = with two."""
    config = config_of("--run.seed", "-1", "--tracking.notes=--fast", "--data.train_files", "-a.txt", "-")
    assert words_of("tracking.tags", ["[]"], "") == ["--tracking.tags", "[]"] and words_of("a", [], "") == ["--a"]
    assert (config.run.seed, config.tracking.notes, config.data.train_files) == (-1, "--fast", ["-a.txt", "-"])


@pytest.mark.parametrize(
    ("text", "line", "name"),
    [
        ("train: {steps: 1}\nrun: {seed: 1}\ntrain: {batch_tokens: 8}\n", 3, "train"),
        ("train:\n  steps: 1\n  batch_tokens: 8\n  steps: 2\n", 4, "steps"),
        ("train: {steps: 1, steps: 1}\n", 1, "steps"),
        ("train: {steps: 1}\n'train': {steps: 1}\n", 2, "train"),
    ],
)
def test_a_name_twice_in_a_file_is_an_error(tmp_path: Path, text: str, line: int, name: str):
    path = write(tmp_path, text)
    for typed in (False, True):
        with pytest.raises(UserError) as caught:
            read_yaml(path, typed=typed)
        assert f"{path}, line {line}" in str(caught.value) and f"'{name}'" in str(caught.value)
    assert f"{path}, line {line}" in error_of("--config", path)
    with pytest.raises(UserError, match=f"line {line}"):  # of a run that goes on
        load(Path(path))


def test_odd_yaml_is_one_line(tmp_path: Path):
    for text in (
        "a: &x [*x]\n",
        "[" * 5000,
        "null: 3\n",
        "null: {null: 3}\n",
        "? [a]\n: b\n",
        "run: 2026-99-99\n",
        "a: \x07",
    ):
        assert error_of("--config", write(tmp_path, text))
    assert config_of("--config", write(tmp_path, "\ufefftrain: {steps: 5}\n")).train.steps == 5


def test_flags(tmp_path: Path):
    arguments = parse(["--cpu", *SCRATCH, "--dry_run"], "")
    assert (arguments.cpu, arguments.dry_run, arguments.recipe) == (True, True, "run")
    assert not parse(SCRATCH, "").cpu


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("train: {stesp: 3}", ["train.stesp", "did you mean train.steps?"]),
        ("trian: {steps: 3}", ["trian.steps", "did you mean train.steps?"]),
        ("train: {steps: many}", ["train.steps must be a whole number, not many"]),
        ("train: {steps: 1.5}", ["train.steps must be a whole number, not 1.5"]),
        ("train: {attention_boundaries: perhaps}", ["train.attention_boundaries must be true or false, not perhaps"]),
        ("train: {compile: yes}", ["train.compile must be one of off, layers, model, not yes"]),
        ("optim: {learning_rate: fast}", ["optim.learning_rate must be a number, not fast"]),
        ("optim: {betas: [.9, x]}", ["optim.betas must be a number, not x"]),
        ("model: {size: huge}", ["model.size must be one of tiny, small, base, large, not huge"]),
        ("optim: 3", ["optim", "'3'"]),
        ("optim: {learning_rate: {peak: 3}}", ["optim.learning_rate must be one value"]),
        ("- a\n- b", ["must hold 'name: value' lines"]),
        ("train: {steps: 3", ["line 1", "broken YAML"]),
        ("train:\n  steps: 3\n bad: [", ["line 3", "broken YAML"]),
        ("train:\n\tsteps: 3", ["line 2", "broken YAML"]),
    ],
)
def test_a_mistake_in_a_file_names_file_and_key(tmp_path: Path, text: str, parts: list[str]):
    path = write(tmp_path, text)
    message = error_of("--config", path)
    assert path in message
    for part in parts:
        assert part in message


def test_unreadable_files(tmp_path: Path):
    missing = str(tmp_path / "missing.yaml")
    assert missing in error_of("--config", missing)
    assert "No such file" in error_of("--config", missing)
    (tmp_path / "latin.yaml").write_bytes("run: {dir: caf\xe9}".encode("latin-1"))
    assert "not UTF-8 at byte 14" in error_of("--config", str(tmp_path / "latin.yaml"))
    assert "directory" in error_of("--config", str(tmp_path))
    for words in ([], ["--train.steps", "5"], ["a.yaml", "b.yaml"]):
        assert "--config: give one YAML file" in error_of("--config", *words)


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--train.stesp", "3"], "train.stesp (did you mean train.steps?)"),
        (["--train.ste", "3"], "train.ste"),  # no abbreviations
        (["--train.lr", "3"], "train.lr (did you mean optim.learning_rate?)"),
        (["--trian.steps=3", "--nonsense"], "nonsense"),
        (["--train.steps", "3x"], "train.steps must be a whole number, not 3x"),
        (["--train.steps"], "train.steps"),
        (["--optim.betas", ".9,.99"], "optim.betas must be a number, not .9,.99; separate several by blanks"),
        (["--optim.betas", ".9", "null"], "optim.betas cannot have null among other values"),
        (["stray"], "stray"),
        (["--cpu", "stray"], "stray"),
        (["--"], "belongs to no option"),
        (["--train.steps=5", "6"], "6"),
        (["--train.steps", "5", "6"], "train.steps takes one value"),
        (
            ["--model.gradient_checkpointing", "perhaps"],
            "model.gradient_checkpointing must be true or false, not perhaps",
        ),
        (["--data.text_column"], "data.text_column"),
    ],
)
def test_a_mistake_on_the_command_line(argv: list[str], part: str):
    assert part in error_of(*argv)


def test_dump_and_load_give_the_same_configuration(tmp_path: Path):
    for argv in (
        SCRATCH,
        PAIR,
        [*PAIR, "--tracking.notes=한글: #1", "--tracking.tags", "a", "5", "--train.compile", "off"],
    ):
        config = resolve(config_of(*argv))
        assert load(Path(write(tmp_path, dump(config)))) == config
    assert yaml.safe_load(dump(config)) == dataclasses.asdict(config)  # and any other YAML reader agrees


def test_help_page_holds_every_option_and_is_readable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    page = help_page(Config, "Pre-trains.\n\n    a command\n")
    assert page.startswith("Pre-trains.\n\n    a command\n\n")
    for name in flatten(Config()):
        assert f"\n  --{name} " in page
    assert max(map(len, page.splitlines())) <= 100
    assert "%" in page and "%%" not in page
    assert "[0.85]" in page and "[0.9 0.999]" in page and "tiny|small|base|large" in page


def test_help_and_print_config_are_quick_and_need_no_torch():
    program = (
        "import sys; from electra_accel.pretraining import config_checks, config_parser\n"
        "try: config_parser.parse(sys.argv[1:], 'x')\n"
        "finally: print('torch' in sys.modules, 'transformers' in sys.modules, file=sys.stderr)"
    )
    shown = run_script("-c", program, "--help")
    assert (shown.returncode, shown.stderr) == (0, "False False\n")
    printed = run_script("-c", program, "--print_config", *SCRATCH)
    assert printed.returncode == 0
    assert yaml.safe_load(printed.stdout)["optim"]["learning_rate"] == 2e-3


def test_a_bare_name_is_a_recipe_unless_a_file_has_it(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = ["--config", "tiny-python-docs", "--config", "published"]
    config = resolve(parse(argv, "").config)
    assert (config.optim.kind, config.objective.mask_prob, config.train.steps) == ("adamw", 0.15, 1000)
    (tmp_path / "published").write_text("train: {steps: 7}")
    assert parse(argv, "").config.train.steps == 7
    with pytest.raises(UserError, match="no-such-recipe"):
        parse(["--config", "no-such-recipe"], "")
