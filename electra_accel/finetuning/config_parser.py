"""Command line and YAML files -> Settings and tasks, and back; see ``options/parser.py``. A suite lies between the ``--config``
files and the command line; a ``--config`` file may hold tasks as a suite does, and config.yaml of a run does.
"""

from dataclasses import asdict, dataclass
from typing import Any

from electra_accel.errors import UserError
from electra_accel.finetuning.config import CHOICES, Settings, Task, resolve
from electra_accel.options import parser
from electra_accel.options.declare import names, value_of
from electra_accel.options.yaml_file import read_yaml

OF_A_TASK = ("train.epochs", *(name for name, _ in names(Settings) if name.startswith("optim.")))
TASKS = "tasks"


@dataclass
class Arguments(parser.Arguments):
    """Not checked yet.

    Attributes:
        tasks: of the suite or the ``--config`` files, or the one of the command line; resolved.
        of_tasks: the settings of each task: ``settings``, but for the options in OF_A_TASK that a file sets for the task.
    """

    settings: Settings
    tasks: list[Task]
    of_tasks: list[Settings]


def parse(argv: list[str], description: str) -> Arguments:
    """See ``parser.parse``."""
    return parser.parse(Settings, argv, description, _arguments, dump)


def _arguments(files: list[parser.Layer], line: parser.Layer) -> Arguments:
    suite: tuple[str, Any] | None = None  # the file whose tasks count, and what it has under that name
    for given, source in files:
        if TASKS in given:
            given.pop("checkpoint.every", None)  # in config.yaml of older runs: now every whole epoch is saved
            if given.get("suite", [None]) != [None]:
                raise UserError(f"{source}: suite and tasks exclude each other; give only one of them")
            suite = source, given.pop(TASKS)
            given["suite"] = [None]  # takes the place of one in a file before
    settings = parser.read(Settings, [*files, line], CHOICES)
    if settings.suite:
        content = parser.mapping(read_yaml(settings.suite, "--suite"), settings.suite)
        suite = settings.suite, content.get(TASKS)
    elif settings.suite_data and not suite:
        raise UserError("--suite_data is the folder of a suite's files: give --suite too")
    entries = _entries(*suite, settings.suite_data) if suite else [({}, "")]
    of_tasks = [parser.read(Settings, [*files, entry, line], CHOICES) for entry in entries]
    return Arguments(settings, [resolve(each.task) for each in of_tasks], of_tasks)


def _entries(path: str, tasks: Any, data: str | None) -> list[parser.Layer]:
    """The options of each task of a file."""
    if not isinstance(tasks, list) or not tasks or not all(isinstance(entry, dict) for entry in tasks):
        raise UserError(f"{path}: must hold 'tasks:' and a list of tasks; see recipes/suites/")
    found = []
    for number, entry in enumerate(tasks, start=1):
        where = f"{path}, task {entry.get('name') or number}"
        given: dict[str, list] = {"task.name": [str(number)]}
        for name, value in entry.items():
            if "." in name and name not in OF_A_TASK:
                raise UserError(
                    f"{where}: {name} holds for all tasks; of its own a task may have {', '.join(OF_A_TASK)}"
                )
            values = value if isinstance(value, list) else [value]
            if data is None and any("{data}" in str(each) for each in values):
                raise UserError(f"{where}: {name} begins with {{data}}: say which folder that is by --suite_data")
            values = [each.replace("{data}", data or "") if isinstance(each, str) else each for each in values]
            given[name if "." in name else f"task.{name}"] = values
        found.append((given, where))
    return found


def dump(asked: Arguments) -> str:
    """YAML of every option, for config.yaml of the run folder; ``--config`` reads it back."""
    values = asdict(asked.settings)
    for name in ("suite", "suite_data", "task"):  # the tasks say it all
        del values[name]
    values[TASKS] = []
    for task, settings in zip(asked.tasks, asked.of_tasks, strict=True):
        own = {name: value_of(settings, name) for name in OF_A_TASK}
        own = {name: value for name, value in own.items() if value != value_of(asked.settings, name)}
        values[TASKS].append(asdict(task) | own)
    return parser.dump(values)
