"""Options written as a dataclass -> what sets them (words of a command line, YAML), what explains them, what is wrong in them.

A field of the dataclass is an option that ``config.option`` made, or a group: a dataclass of options, which are then called
``group.option``.
"""

import difflib
import re
import shutil
import textwrap
from argparse import ArgumentError
from collections.abc import Container, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser

from electra_accel.errors import UserError

Options = TypeVar("Options")
TYPE_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
METAVARS = {int: "N", float: "X", bool: "true|false", str: "TEXT"}


def names(root: type, prefix: str = "") -> list[tuple[str, Any]]:
    """``("group.option", dataclass field)`` of every option, in order."""
    found = []
    for known in fields(root):
        found += names(known.type, f"{known.name}.") if is_dataclass(known.type) else [(prefix + known.name, known)]
    return found


def read(root: type[Options], sources: list[tuple[list[str], str]]) -> Options:
    """A new ``root`` with what the words of command lines set; the last source wins, ``null`` gives the default back.

    Args:
        sources: words, and what they were read from, for errors.

    Raises:
        UserError: unknown option or wrong type; names the source and the option.
    """
    kinds = {name: _kind(option.type) for name, option in names(root)}
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, add_help=False)
    for name, (kind, several) in kinds.items():
        arity = {"nargs": "*"} if several else {}
        if kind is bool:
            arity = {"nargs": "?", "const": True}  # --train.compile alone means true
        parser.add_argument(f"--{name}", type=kind | None, **arity)
    namespace = parser.get_defaults()
    for words, source in sources:
        given = [word[2:].partition("=")[0] for word in words if word.startswith("--")]
        if unknown := [name for name in given if name not in kinds]:
            hints = [_nearest(name, list(kinds)) for name in unknown]
            named = [f"{name} (did you mean {hint}?)" if hint else name for name, hint in zip(unknown, hints)]
            raise UserError(f"{source}: unknown option {', '.join(named)}; --help lists all")
        lists = {f"--{name}=[]" for name, (_, several) in kinds.items() if several}
        words = [word.removesuffix("=[]") if word in lists else word for word in words]
        try:
            namespace = parser.parse_args(words, namespace=namespace)
        except ArgumentError as error:
            raise UserError(f"{source}: {_complaint(str(error), kinds)}") from error
    found = root()
    for name in kinds:
        group, _, short = name.rpartition(".")
        value = namespace[name]
        if isinstance(value, list) and None in value and value != [None]:
            raise UserError(f"{name}: null cannot stand among other values")
        if value not in (None, [None]):  # not given, or taken back by null: the default stays
            setattr(getattr(found, group) if group else found, short, value)
    return found


def _nearest(name: str, known: list[str]) -> str | None:
    """The option that an unknown one was probably meant to be; ``lr`` and the like are read as initials."""
    short = name.rpartition(".")[2]
    initials = [option for option in known if _initials(option.rpartition(".")[2]) == short]
    return next(iter(initials or difflib.get_close_matches(name, known, n=1)), None)


def _initials(words: str) -> str:
    return "".join(word[0] for word in words.split("_"))


def _kind(annotation: Any) -> tuple[Any, bool]:
    """Type of one value, and whether the option takes several: (int, False) of int | None, (str, True) of list[str]."""
    if type(None) in get_args(annotation):
        annotation = get_args(annotation)[0]
    return (get_args(annotation)[0], True) if get_origin(annotation) is list else (annotation, False)


def _complaint(error: str, kinds: dict[str, tuple[Any, bool]]) -> str:
    """What jsonargparse says, in short."""
    key = re.search(r'Parser key "([^"]+)"', error)
    value = re.findall(r"(?:Got|Given) value: (.*)", error)
    if not key or not value:
        return error
    kind, several = kinds[key[1]]
    hint = "; separate several by blanks" if several and "," in value[-1] else ""
    return f"{key[1]} must be {TYPE_WORDS.get(kind) or 'one of ' + ', '.join(get_args(kind))}, not {value[-1]}{hint}"


def read_yaml(path: str, option: str) -> Any:
    """What a YAML file holds, with every single value as a string: types are for :func:`read`.

    Raises:
        UserError: names ``option``, the file, and the line where it is broken.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), yaml.BaseLoader)
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{option} {path}: not UTF-8 at byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{path}, line {error.problem_mark.line + 1}: broken YAML: {error.problem}") from error
    except yaml.YAMLError as error:  # a control character, which has no mark
        raise UserError(f"{option} {path}: broken YAML: {' '.join(str(error).split())}") from error


def split(argv: list[str], flags: Container[str]) -> tuple[list[str], list[str], set[str]]:
    """A command line as files of ``--config``, the words that set options, and those of ``flags`` that are in it.

    Raises:
        UserError: ``--config`` without a file.
    """
    files, rest, found = [], [], set()
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--config":
            files.append(value if equals else next(words, ""))
            if not files[-1]:
                raise UserError("--config: give a YAML file")
        elif word in flags or word == "-h":
            found.add("--help" if word == "-h" else word)
        else:
            rest.append(word)
    return files, rest, found


def words_of(name: str, value: Any, path: str) -> list[str]:
    """One option of a YAML file as words of a command line.

    Raises:
        UserError: it is neither a value nor a list of values.
    """
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in values):
        raise UserError(f"{path}: {name} must be one value or a list of values")
    return [f"--{name}", *value] if isinstance(value, list) else [f"--{name}={value or 'null'}"]


def help_page(root: type, flags: Mapping[str, str], description: str) -> str:
    """Every flag, and every option by group, with its default in brackets; as wide as the terminal, at most 110 columns."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    order = "The command line overrides --config files, and they the defaults, which stand in [brackets]."
    lines = [description.strip(), "", textwrap.fill(order, width), ""]
    for flag, text in flags.items():
        lines.append(help_entry(f"{flag} FILE" if flag == "--config" else flag, text, width))
    return "\n".join([*lines, *help_lines(root, width)])


def help_lines(root: type, width: int) -> list[str]:
    lines = []
    titles = {known.name: known.type.__doc__ for known in fields(root) if is_dataclass(known.type)}
    defaults = root()
    for name, option in names(root):
        group, _, short = name.rpartition(".")
        if group in titles:
            lines += ["", f"{group}: {titles.pop(group)}"]
        kind, several = _kind(option.type)
        metavar = option.metadata["metavar"] or METAVARS.get(kind) or "|".join(get_args(kind))
        default = getattr(getattr(defaults, group) if group else defaults, short)
        if isinstance(default, bool):
            default = str(default).lower()
        elif isinstance(default, list):
            default = " ".join(map(str, default)) or None
        text = option.metadata["help"] + (f" [{default}]" if default is not None else "")
        lines.append(help_entry(f"--{name} {metavar}{' …' if several else ''}", text, width))
    return lines


def help_entry(left: str, text: str, width: int) -> str:
    """One option: its help beside it, or below where the option is long."""
    column = 42
    body = textwrap.fill(text, width, initial_indent=" " * column, subsequent_indent=" " * column)
    head = f"  {left}"
    return head + body[len(head) :] if len(head) < column else f"{head}\n{body}"


def outside_interval(group: Any, name: str) -> list[str]:
    """What is wrong with the numbers in a group of options of this name."""
    problems = []
    for option in fields(group):
        interval, value = option.metadata["within"], getattr(group, option.name)
        numbers = value if isinstance(value, list) else [value]
        if interval and value is not None and not all(_within(interval, number) for number in numbers):
            problems.append(f"{name}.{option.name} must lie in {interval}, not {value}")
    return problems


def _within(interval: str, x: float) -> bool:
    """Whether x lies in an interval such as ``[0, 1)``; nan lies in none."""
    low, high = map(float, interval[1:-1].split(","))
    return (low < x or (interval[0] == "[" and x == low)) and (x < high or (interval[-1] == "]" and x == high))
