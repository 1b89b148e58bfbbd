"""Command line and suite file -> Settings and tasks: defaults < suite < command line.

The values of a suite file are read as if they were written on the command line, so that both accept the same and give the same
errors.
"""

import shutil
import sys
from dataclasses import asdict, dataclass

import yaml

from electra_accel import options
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
    settings = options.read(Settings, [(words, "command line")])
    if settings.suite:
        entries = _suite(settings.suite, settings.suite_data)
        tasks = [options.read(Settings, [entry, (words, "command line")]).task for entry in entries]
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
    content = options.read_yaml(path, "--suite")
    entries = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path}: must hold 'tasks:' and a list of tasks; see recipes/suites/")
    found = []
    for number, entry in enumerate(entries, start=1):
        where = f"{path}, task {entry.get('name') or number}"
        words = [f"--task.name={number}"] if "name" not in entry else []
        for name, value in entry.items():
            wanted = options.words_of(f"task.{name}", value, where)
            if data is None and any("{data}" in word for word in wanted):
                raise UserError(f"{where}: {name} begins with {{data}}: say which folder that is by --suite_data")
            words += [word.replace("{data}", data or "") for word in wanted]
        found.append((words, where))
    return found


def help_page(description: str) -> str:
    """Every option by group, with its default in brackets; as wide as the terminal, at most 110 columns."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    lines = [description.strip(), "", options.help_entry("--cpu", "use the CPU although there is a GPU", width)]
    return "\n".join([*lines, *options.help_lines(Settings, width)])
