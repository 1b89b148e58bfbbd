"""What a run was set to, beside its recipe and the defaults, as tables for its page."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from electra_accel.errors import UserError
from electra_accel.options.declare import flatten
from electra_accel.options.yaml_file import read_yaml
from electra_accel.pretraining.config import Config, resolve
from electra_accel.pretraining.config_parser import parse
from electra_accel.reports.page import table
from electra_accel.runs import run_folder

NEVER_DIFFERENT = ("run.dir",)  # where a run lives is no setting of it


def read(folder: Path) -> dict[str, Any]:
    """``{"group.option": value}`` of config.yaml, whatever version of the code wrote it; empty where there is none.

    Raises:
        UserError: it is damaged, or cannot be read.
    """
    path = folder / run_folder.CONFIG
    try:
        content = read_yaml(path, typed=True) if path.exists() else {}
        if isinstance(content, dict) and "models" in content:
            raise UserError(f"{folder} holds fine-tunings, no pre-training: see its results.md")
        return {f"{group}.{name}": value for group, options in content.items() for name, value in options.items()}
    except AttributeError as error:  # a list, or nothing, where names belong
        raise UserError(f"{path} is damaged (it should hold groups of options); restore or remove it") from error


def section(settings: Mapping[str, Any], environment: Mapping[str, Any]) -> Markup:
    """The options that were set, with what the recipe and the defaults say, and below them all others.

    The recipe is what ``--config`` named in the command of the run, as it is today; without it, or where it is gone, the run
    is compared with the defaults alone. Recipe and defaults are resolved: sizes bring their own.
    """
    files = _recipe_files(environment.get("command", []))
    default = _resolved(["--" + name + "=" + str(settings[name]) for name in _start(settings)])
    try:
        recipe = flatten(resolve(parse([f"--config={file}" for file in files], "").config)) if files else None
    except UserError:
        recipe = None
    columns, rows, rest, changed = ["option", "this run", *(["recipe"] if recipe else []), "default"], [], [], 0
    for name, value in settings.items():
        differs = recipe is not None and value != recipe.get(name)
        if name in NEVER_DIFFERENT or name not in default or not (differs or value != default[name]):
            rest.append([name, text(value)])
            continue
        changed += differs
        written = Markup("<strong>{}</strong> <mark>changed</mark>").format(text(value)) if differs else text(value)
        rows.append([name, written, *([text(recipe[name])] if recipe else []), text(default[name])])
    return Markup("<p>{}</p>\n{}<details><summary>{}</summary>{}</details>\n").format(
        _explain(files, recipe, changed),
        table(columns, rows) if rows else "",
        f"The other {len(rest)} options",
        table(["option", "this run"], rest),
    )


def environment_table(environment: Mapping[str, Any]) -> Markup:
    """environment.json, nested names with dots; the command on top as one would type it."""
    rows, launch = [], []
    for name, value in _flat(environment):
        if name != "command":
            row = [name, Markup("<code>{}</code>").format(text(value))]
            (launch if name.startswith("accelerate.") else rows).append(row)
    command = Markup("<pre>{}</pre>\n").format(shlex.join(map(str, environment.get("command", []))))
    more = Markup("<details><summary>{}</summary>{}</details>").format(
        "What the launcher set", table(["variable", "value"], launch)
    )
    return command + table(["name", "value"], rows) + (more if launch else "")


def text(value: object) -> str:
    """A value as YAML and the command line have it; "–" for none."""
    if value is None or value == []:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


def _explain(files: list[str], recipe: dict | None, changed: int) -> Markup:
    named = Markup(", ").join(Markup("<code>{}</code>").format(file) for file in files)
    if not files:
        return Markup("Started without a recipe; these options differ from the defaults.")
    if recipe is None:
        return Markup("The recipe {} cannot be read from here; these options differ from the defaults.").format(named)
    count = "no option" if not changed else "one option" if changed == 1 else f"{changed} options"
    return Markup("Recipe {}, as the file is today; {} of this run differ{} from it.").format(
        named, count, "" if changed > 1 else "s"
    )


def _recipe_files(command: list[str]) -> list[str]:
    """The values of ``--config`` in a command line."""
    words = iter(map(str, command))
    found = [next(words, "") if word == "--config" else word.partition("=")[2] for word in words if _is_config(word)]
    return [file for file in found if file]


def _is_config(word: str) -> bool:
    return word.partition("=")[0] == "--config"


def _start(settings: Mapping[str, Any]) -> list[str]:
    """The options from which other defaults follow: the starting point, the length of a row and of the run."""
    names = ("model.size", "model.generator", "model.discriminator", "data.max_length")
    names += ("train.steps", "train.epochs", "train.flops")
    return [name for name in names if settings.get(name) is not None]


def _resolved(words: list[str]) -> dict[str, Any]:
    """The defaults, seen from a starting point; those of no starting point where an option is not known any more."""
    try:
        config = parse(words, "").config
    except UserError:
        config = Config()
    found = flatten(resolve(config))
    return found | {word[2:].partition("=")[0]: flatten(Config())[word[2:].partition("=")[0]] for word in words}


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in values.items():
        found += _flat(value, f"{before}{name}.") if isinstance(value, dict) else [(before + name, value)]
    return found
