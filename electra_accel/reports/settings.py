"""What a run was set to, beside its recipe and the defaults, as tables for its page."""

import argparse
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
from electra_accel.reports.page import Table, template
from electra_accel.runs import run_folder

NEVER_DIFFERENT = ("run.dir",)  # where a run lives is no setting of it
# From these other defaults follow: the starting point, what is learnt and how, the length of a row and of the run.
START = ("model.size", "model.generator", "model.discriminator", "data.max_length")
START += ("objective.kind", "optim.kind", "train.steps", "train.epochs", "train.flops")


def read(folder: Path) -> dict[str, Any]:
    """``{"group.option": value}`` of config.yaml, whatever version of the code wrote it; empty where there is none. UserError
    where it is damaged, or cannot be read.
    """
    path = folder / run_folder.CONFIG
    content = read_yaml(path, typed=True) if path.exists() else {}
    if content:
        run_folder.require_pre_training(folder)
    if not isinstance(content, dict) or not all(isinstance(options, dict) for options in content.values()):
        raise UserError(f"{path} is damaged (it should hold groups of options); restore or remove it")
    return {f"{group}.{name}": value for group, options in content.items() for name, value in options.items()}


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``, at any depth."""
    found = {}
    for name, value in nested.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def section(settings: Mapping[str, Any], environment: Mapping[str, Any]) -> Markup:
    """The options that were set, with what the recipe (``--config``, as it is today) and the defaults say, and below them all
    others. Recipe and defaults are resolved: sizes bring their own. A recipe that is gone is left out.
    """
    files, default = _recipe_files(environment.get("command", [])), _defaults(settings)
    try:
        recipe = flatten(resolve(parse([f"--config={file}" for file in files], "").config)) if files else None
    except UserError:
        recipe = None
    columns, rows, rest, changed = ["option", "this run", *["recipe"] * bool(recipe), "default"], [], [], 0
    for name, value in settings.items():
        differs = recipe is not None and value != recipe.get(name)
        if name in NEVER_DIFFERENT or name not in default or not (differs or value != default[name]):
            rest.append([name, text(value)])
            continue
        changed += differs
        written = template("report.html").marked(text(value)) if differs else text(value)
        rows.append([name, written, *([text(recipe[name])] if recipe else []), text(default[name])])
    tables = Table(columns, rows), Table(["option", "this run"], rest)
    return template("report.html").configuration(files, recipe is not None, changed, *tables)


def environment_table(environment: Mapping[str, Any]) -> Markup:
    """environment.json, nested names with dots; the command on top as one would type it."""
    rows, launch, parts = [], [], template("report.html")
    for name, value in flat(environment).items():
        if name != "command":
            (launch if name.startswith("accelerate.") else rows).append([name, parts.code(text(value))])
    command = shlex.join(map(str, environment.get("command", [])))
    return parts.environment(command, Table(["name", "value"], rows), Table(["variable", "value"], launch))


def text(value: object) -> str:
    """A value as YAML and the command line have it; "–" for none."""
    if value is None or value == []:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _recipe_files(command: list[str]) -> list[str]:
    """The values of ``--config`` in a command line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", action="append", nargs="?", default=[])
    return list(filter(None, parser.parse_known_args(list(map(str, command)))[0].config))


def _defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults, seen from the run's starting point; those of no starting point where an option is not known any more."""
    start = {name: settings[name] for name in START if settings.get(name) is not None}
    try:
        config = parse([f"--{name}={value}" for name, value in start.items()], "").config
    except UserError:
        config = Config()
    unresolved = flatten(Config())
    return flatten(resolve(config)) | {name: unresolved[name] for name in start}
