"""Command line and YAML -> Config, and back: defaults < ``--config`` files < command line, wherever ``--config`` is.

A YAML file is read as if its keys were written on the command line: ``train: {steps: 100}`` is ``--train.steps=100``. So
both accept the same values (``1e-3`` is a number, ``no`` is a word, ``null`` the default) and give the same errors.
"""

import difflib
import re
import shutil
import sys
import textwrap
from argparse import ArgumentError
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser, Namespace

from electra_accel.config import Config, flatten, resolve
from electra_accel.errors import UserError

FLAGS = {
    "--config": "YAML file of options; may be repeated, later files win",
    "--print_config": "print the whole configuration as YAML and stop",
    "--dry_run": "check everything, prepare the data, print the plan and stop",
    "--cpu": "use the CPU although there is a GPU",
    "--help": "this page",
}
TYPE_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
METAVARS = {int: "N", float: "X", bool: "true|false", str: "TEXT"}


@dataclass
class Arguments:
    """What was asked for.

    Attributes:
        config: not resolved and not checked yet.
        recipe: name of the last ``--config`` file without its suffix, or "run".
    """

    config: Config
    recipe: str
    dry_run: bool
    cpu: bool


def parse(argv: list[str], description: str) -> Arguments:
    """Read a command line, without the program's name. ``--help`` and ``--print_config`` print and exit with 0.

    Args:
        description: opens the help page; printed as it is.

    Raises:
        UserError: unknown option, wrong type, missing or broken file; names the file and the key.
    """
    files, words, flags = _split(argv)
    if "--help" in flags:
        print(help_page(description))
        sys.exit(0)
    parser = _parser()
    namespace = parser.get_defaults()
    for file in files:
        namespace = _read(parser, namespace, _words_of(file), file)
    config = _config(_read(parser, namespace, words, "command line"))
    if "--print_config" in flags:
        print(dump(resolve(config)), end="")
        sys.exit(0)
    return Arguments(config, Path(files[-1]).stem if files else "run", "--dry_run" in flags, "--cpu" in flags)


def load(path: Path) -> Config:
    """The configuration in a YAML file, such as config.yaml of a run; errors as in :func:`parse`."""
    parser = _parser()
    return _config(_read(parser, parser.get_defaults(), _words_of(str(path)), str(path)))


def dump(config: Config) -> str:
    """YAML of every option, in the order of the groups; :func:`load` reads it back."""
    return yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)


def _split(argv: list[str]) -> tuple[list[str], list[str], set[str]]:
    """Files of ``--config``, the words that set options, and the flags."""
    files, rest, flags = [], [], set()
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--config":
            files.append(value if equals else next(words, ""))
            if not files[-1]:
                raise UserError("--config: give a YAML file")
        elif word in FLAGS or word == "-h":
            flags.add("--help" if word == "-h" else word)
        else:
            rest.append(word)
    return files, rest, flags


def _words_of(path: str) -> list[str]:
    """A YAML file as words of a command line."""
    try:
        # BaseLoader leaves every value a string; the parser converts it by the option's type
        content = yaml.load(Path(path).read_text(encoding="utf-8"), yaml.BaseLoader)
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--config {path}: not UTF-8 at byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{path}, line {error.problem_mark.line + 1}: broken YAML: {error.problem}") from error
    words = []
    for group, options in _mapping(content, path).items():
        for name, value in _mapping(options, f"{path}: {group}").items():
            values = value if isinstance(value, list) else [value]
            if not all(isinstance(item, str) for item in values):
                raise UserError(f"{path}: {group}.{name} must be one value or a list of values")
            option = f"--{group}.{name}"
            words += [option, *value] if isinstance(value, list) else [f"{option}={value or 'null'}"]
    return words


def _mapping(content: Any, where: str) -> dict:
    if not isinstance(content or {}, dict):
        raise UserError(f"{where}: must hold 'name: value' lines, not {str(content)[:40]!r}")
    return content or {}


def _parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    for name, option in _options():
        kind, several = _kind(option.type)
        arity = {"nargs": "*"} if several else {}
        if kind is bool:
            arity = {"nargs": "?", "const": True}  # --train.compile alone means true
        parser.add_argument(f"--{name}", type=kind | None, **arity)
    return parser


def _options() -> list[tuple[str, Any]]:
    """``("group.option", dataclass field)`` of every option."""
    return [(f"{group.name}.{option.name}", option) for group in fields(Config) for option in fields(group.type)]


def _kind(annotation: Any) -> tuple[Any, bool]:
    """Type of one value, and whether the option takes several: (int, False) of int | None, (str, True) of list[str]."""
    if type(None) in get_args(annotation):
        annotation = get_args(annotation)[0]
    return (get_args(annotation)[0], True) if get_origin(annotation) is list else (annotation, False)


def _read(parser: ArgumentParser, namespace: Namespace, words: list[str], source: str) -> Namespace:
    """``namespace`` with the options that ``words`` set."""
    kinds = {name: _kind(option.type)[0] for name, option in _options()}
    names = [word[2:].partition("=")[0] for word in words if word.startswith("--")]
    if unknown := [name for name in names if name not in kinds]:
        hints = [difflib.get_close_matches(name, kinds, n=1) for name in unknown]
        named = [f"{name} (did you mean {hint[0]}?)" if hint else name for name, hint in zip(unknown, hints)]
        raise UserError(f"{source}: unknown option {', '.join(named)}; --help lists all")
    lists = {f"--{name}=[]" for name, option in _options() if _kind(option.type)[1]}
    words = [word.removesuffix("=[]") if word in lists else word for word in words]
    try:
        return parser.parse_args(words, namespace=namespace)
    except ArgumentError as error:
        key = re.search(r'Parser key "([^"]+)"', str(error))
        value = re.findall(r"(?:Got|Given) value: (.*)", str(error))
        if not key or not value:
            raise UserError(f"{source}: {error}") from error
        kind = kinds[key[1]]
        expected = TYPE_WORDS.get(kind) or "one of " + ", ".join(get_args(kind))
        raise UserError(f"{source}: {key[1]} must be {expected}, not {value[-1]}") from error


def _config(namespace: Namespace) -> Config:
    config = Config()
    for name, _ in _options():
        group, _, short = name.partition(".")
        value = namespace[name]
        if isinstance(value, list) and None in value and value != [None]:
            raise UserError(f"{name}: null cannot stand among other values")
        if value not in (None, [None]):  # not given, or taken back by null: the default stays
            setattr(getattr(config, group), short, value)
    return config


def help_page(description: str) -> str:
    """Every option by group, with its default in brackets; as wide as the terminal, at most 110 columns."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    order = "The command line overrides --config files, and they the defaults, which stand in [brackets]."
    lines = [description.strip(), "", textwrap.fill(order, width), ""]
    lines += [_entry(f"{flag} FILE" if flag == "--config" else flag, text, width) for flag, text in FLAGS.items()]
    titles = {group.name: group.type.__doc__ for group in fields(Config)}
    defaults = flatten(Config())
    for name, option in _options():
        group = name.partition(".")[0]
        if group in titles:
            lines += ["", f"{group}: {titles.pop(group)}"]
        kind, several = _kind(option.type)
        metavar = option.metadata["metavar"] or METAVARS.get(kind) or "|".join(get_args(kind))
        default = defaults[name]
        if isinstance(default, bool):
            default = str(default).lower()
        elif isinstance(default, list):
            default = " ".join(map(str, default)) or None
        text = option.metadata["help"] + (f" [{default}]" if default is not None else "")
        lines.append(_entry(f"--{name} {metavar}{' …' if several else ''}", text, width))
    return "\n".join(lines)


def _entry(left: str, text: str, width: int) -> str:
    """One option: its help beside it, or below where the option is long."""
    column = 42
    body = textwrap.fill(text, width, initial_indent=" " * column, subsequent_indent=" " * column)
    head = f"  {left}"
    return head + body[len(head) :] if len(head) < column else f"{head}\n{body}"
