"""Command line and YAML files -> Settings and tasks, and back: defaults < ``--config`` files < suite < command line.

The values of a file are read as if they were written on the command line (see ``options``), so that both accept the same and
give the same errors. A ``--config`` file may hold tasks as a suite file does; config.yaml of a run does.
"""

import sys
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from electra_accel.errors import UserError
from electra_accel.finetuning.config import Settings, Task, resolve
from electra_accel.options import parser

FLAGS = {
    "--config": "YAML file of options, such as config.yaml of a run; may be repeated, later files win",
    "--print_config": "print all options as YAML and stop",
    "--dry_run": "read models and data, check everything, print the plan and stop",
    "--cpu": "use the CPU although there is a GPU",
    "--help": "this page",
}
OF_A_TASK = ("train.epochs", *(name for name, _ in parser.names(Settings) if name.startswith("optim.")))

Source = tuple[parser.Given, str]  # options, and where they come from


@dataclass
class Arguments:
    """What was asked for; not checked yet.

    Attributes:
        tasks: of the suite or the ``--config`` files, or the one of the command line; resolved.
        of_tasks: the settings of each task: ``settings``, but for the options in OF_A_TASK that a file sets for the task.
    """

    settings: Settings
    tasks: list[Task]
    of_tasks: list[Settings]
    dry_run: bool
    cpu: bool


def parse(argv: list[str], description: str) -> Arguments:
    """Read a command line, without the program's name. ``--help`` and ``--print_config`` print and exit with 0.

    Raises:
        UserError: unknown option, wrong type, missing or broken file; names the file and the option.
    """
    files, given, flags = parser.split(argv, FLAGS)
    if "--help" in flags:
        print(help_page(description))
        sys.exit(0)
    contents = [(file, _content(file, "--config")) for file in files]
    shared = [(_options_of(content, file), file) for file, content in contents]
    line = (given, "command line")
    settings = parser.read(Settings, [*shared, line])
    suites = [(file, content["tasks"]) for file, content in contents if "tasks" in content]
    if settings.suite:
        if suites:
            raise UserError(f"{suites[-1][0]} holds tasks already: leave out --suite, or the tasks there")
        suites = [(settings.suite, _content(settings.suite, "--suite").get("tasks"))]
    elif settings.suite_data and not suites:
        raise UserError("--suite_data is the folder of a suite's files: give --suite too")
    entries = _entries(*suites[-1], settings.suite_data) if suites else [([], "")]
    of_tasks = [parser.read(Settings, [*shared, entry, line]) for entry in entries]
    tasks = [resolve(each.task) for each in of_tasks]
    asked = Arguments(settings, tasks, of_tasks, "--dry_run" in flags, "--cpu" in flags)
    if "--print_config" in flags:
        print(dump(asked), end="")
        sys.exit(0)
    return asked


def dump(asked: Arguments) -> str:
    """YAML of every option, for config.yaml of the run folder; ``--config`` reads it back."""
    values = asdict(asked.settings)
    for name in ("suite", "suite_data", "task"):  # the tasks say it all
        del values[name]
    values["tasks"] = []
    for task, of_task in zip(asked.tasks, asked.of_tasks, strict=True):
        own = {name: value for name in OF_A_TASK if (value := _value(of_task, name)) != _value(asked.settings, name)}
        values["tasks"].append(asdict(task) | own)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _value(settings: Settings, name: str) -> Any:
    group, _, option = name.partition(".")
    return getattr(getattr(settings, group), option)


def _content(path: str, option: str) -> dict:
    content = parser.read_yaml(path, option) or {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold 'name: value' lines, not {str(content)[:40]!r}")
    return content


def _options_of(content: dict, path: str) -> parser.Given:
    """Everything in a ``--config`` file but its tasks."""
    found = []
    for name, value in content.items():
        if name != "tasks":
            group = (
                {f"{name}.{option}": each for option, each in value.items()}
                if isinstance(value, dict)
                else {name: value}
            )
            found += [parser.values_of(option, each, path) for option, each in group.items()]
    return parser.once(found, path)


def _entries(path: str, tasks: Any, data: str | None) -> list[Source]:
    """The options of each task of a file."""
    if not isinstance(tasks, list) or not tasks or not all(isinstance(entry, dict) for entry in tasks):
        raise UserError(f"{path}: must hold 'tasks:' and a list of tasks; see recipes/suites/")
    found = []
    for number, entry in enumerate(tasks, start=1):
        where = f"{path}, task {entry.get('name') or number}"
        given = [("task.name", [str(number)])] if "name" not in entry else []
        for name, value in entry.items():
            if "." in name and name not in OF_A_TASK:
                raise UserError(
                    f"{where}: {name} holds for all tasks; of its own a task may have {', '.join(OF_A_TASK)}"
                )
            option, values = parser.values_of(name if "." in name else f"task.{name}", value, where)
            if data is None and any("{data}" in each for each in values if each):
                raise UserError(f"{where}: {name} begins with {{data}}: say which folder that is by --suite_data")
            given.append((option, [each and each.replace("{data}", data or "") for each in values]))
        found.append((parser.once(given, where), where))
    return found


def help_page(description: str) -> str:
    """Every option by group, with its default in brackets."""
    return parser.help_page(Settings, FLAGS, description)
