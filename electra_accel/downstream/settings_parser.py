"""Command line and suite file -> Settings and tasks: defaults < suite < command line.

The values of a suite file are read as if they were written on the command line, so that both accept the same and give the same
errors.
"""

import difflib
import re
import shutil
import sys
import textwrap
from argparse import ArgumentError
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser

from electra_accel.config_parser import METAVARS, TYPE_WORDS
from electra_accel.downstream.settings import Settings, Task, resolve
from electra_accel.errors import UserError


@dataclass
class Arguments:
    """What was asked for: ``tasks`` are those of the suite, or the one of the command line; not checked yet."""

    settings: Settings
    tasks: list[Task]
    cpu: bool


def parse(argv: list[str], description: str) -> Arguments:
    """Read a command line, without the program's name. ``--help`` prints and exits with 0.

    Raises:
        UserError: unknown option, wrong type, missing or broken suite; names the file and the option.
    """
    words = [word for word in argv if word not in ("--cpu", "--help", "-h")]
    if "--help" in argv or "-h" in argv:
        print(help_page(description))
        sys.exit(0)
    settings = _read([(words, "command line")])
    if settings.suite:
        entries = _suite(settings.suite, settings.suite_data)
        tasks = [_read([entry, (words, "command line")]).task for entry in entries]
    elif settings.suite_data:
        raise UserError("--suite_data is the folder of a suite's files: give --suite too")
    else:
        tasks = [settings.task]
    return Arguments(settings, [resolve(task) for task in tasks], "--cpu" in argv)


def dump(settings: Settings, tasks: list[Task]) -> str:
    """YAML of every option, for config.yaml of the run folder; ``tasks`` in place of what the suite file said."""
    values = asdict(settings) | {"tasks": [asdict(task) for task in tasks]}
    values.pop("task")
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _suite(path: str, data: str | None) -> list[tuple[list[str], str]]:
    """Each task of a suite file as words of a command line, and where it stands."""
    try:
        # BaseLoader leaves every value a string; the parser converts it by the option's type
        content = yaml.load(Path(path).read_text(encoding="utf-8"), yaml.BaseLoader)
    except OSError as error:
        raise UserError(f"--suite {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--suite {path}: not UTF-8 at byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{path}, line {error.problem_mark.line + 1}: broken YAML: {error.problem}") from error
    entries = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path}: must hold 'tasks:' and a list of tasks; see recipes/suites/")
    found = []
    for number, entry in enumerate(entries, start=1):
        where = f"{path}, task {entry.get('name') or number}"
        words = [f"--task.name={number}"] if "name" not in entry else []
        for name, value in entry.items():
            values = value if isinstance(value, list) else [value]
            if not all(isinstance(item, str) for item in values):
                raise UserError(f"{where}: {name} must be one value or a list of values")
            if data is None and any("{data}" in item for item in values):
                raise UserError(f"{where}: {name} begins with {{data}}: say which folder that is by --suite_data")
            values = [item.replace("{data}", data or "") for item in values]
            words += [f"--task.{name}", *values] if isinstance(value, list) else [f"--task.{name}={values[0]}"]
        found.append((words, where))
    return found


def _options(root: type = Settings, prefix: str = "") -> list[tuple[str, Any]]:
    """``("group.option", dataclass field)`` of every option."""
    found = []
    for known in fields(root):
        found += _options(known.type, f"{known.name}.") if is_dataclass(known.type) else [(prefix + known.name, known)]
    return found


def _kind(annotation: Any) -> tuple[Any, bool]:
    """Type of one value, and whether the option takes several: (int, False) of int | None, (str, True) of list[str]."""
    if type(None) in get_args(annotation):
        annotation = get_args(annotation)[0]
    return (get_args(annotation)[0], True) if get_origin(annotation) is list else (annotation, False)


def _read(sources: list[tuple[list[str], str]]) -> Settings:
    """Settings from words of a command line and the name of their source; the last source wins."""
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    kinds = {name: _kind(known.type) for name, known in _options()}
    for name, (kind, several) in kinds.items():
        parser.add_argument(f"--{name}", type=kind | None, **({"nargs": "*"} if several else {}))
    namespace = parser.get_defaults()
    for words, source in sources:
        names = [word[2:].partition("=")[0] for word in words if word.startswith("--")]
        if unknown := [name for name in names if name not in kinds]:
            hints = [difflib.get_close_matches(name, kinds, n=1) for name in unknown]
            named = [f"{name} (did you mean {hint[0]}?)" if hint else name for name, hint in zip(unknown, hints)]
            raise UserError(f"{source}: unknown option {', '.join(named)}; --help lists all")
        try:
            namespace = parser.parse_args(words, namespace=namespace)
        except ArgumentError as error:
            raise UserError(f"{source}: {_complaint(str(error), kinds)}") from error
    settings = Settings()
    for name in kinds:
        group, _, short = name.rpartition(".")
        value = namespace[name]
        if value is not None:
            setattr(getattr(settings, group) if group else settings, short, value)
    return settings


def _complaint(error: str, kinds: dict[str, tuple[Any, bool]]) -> str:
    """What jsonargparse says, in short."""
    key = re.search(r'Parser key "([^"]+)"', error)
    value = re.findall(r"(?:Got|Given) value: (.*)", error)
    if not key or not value:
        return error
    kind = kinds[key[1]][0]
    return f"{key[1]} must be {TYPE_WORDS.get(kind) or 'one of ' + ', '.join(get_args(kind))}, not {value[-1]}"


def help_page(description: str) -> str:
    """Every option by group, with its default in brackets; as wide as the terminal, at most 110 columns."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    lines = [description.strip(), "", _entry("--cpu", "use the CPU although there is a GPU", width)]
    titles = {known.name: known.type.__doc__ for known in fields(Settings) if is_dataclass(known.type)}
    defaults = asdict(Settings())
    for name, known in _options():
        group, _, short = name.rpartition(".")
        if group in titles:
            lines += ["", f"{group}: {titles.pop(group)}"]
        default = (defaults[group] if group else defaults)[short]
        default = " ".join(map(str, default)) if isinstance(default, list) else default
        kind, several = _kind(known.type)
        metavar = known.metadata["metavar"] or METAVARS.get(kind) or "|".join(get_args(kind))
        text = known.metadata["help"] + (f" [{default}]" if default not in (None, "") else "")
        lines.append(_entry(f"--{name} {metavar}{' …' if several else ''}", text, width))
    return "\n".join(lines)


def _entry(left: str, text: str, width: int) -> str:
    """One option: its help beside it, or below where the option is long."""
    column = 42
    body = textwrap.fill(text, width, initial_indent=" " * column, subsequent_indent=" " * column)
    head = f"  {left}"
    return head + body[len(head) :] if len(head) < column else f"{head}\n{body}"
