"""Options written as a dataclass -> what sets them (a command line, YAML), what explains them, what is wrong in them.

A field of the dataclass is an option that ``config.option`` made, or a group: a dataclass of options, which are then called
``group.option``. Text is text: ``#1``, ``~`` and ``007`` mean themselves. Only the bare word ``null`` gives an option its
default back; in a YAML file ``"null"`` in quotes is a text too.
"""

import difflib
import re
import shutil
import textwrap
from collections.abc import Container, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml

from electra_accel.errors import UserError

Options = TypeVar("Options")
Given = list[tuple[str, list[str | None]]]  # options with their values, in order; None is the bare word null
TYPE_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
METAVARS = {int: "N", float: "X", bool: "true|false", str: "TEXT"}
TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
NULL, EMPTY = "null", "[]"


def names(root: type, prefix: str = "") -> list[tuple[str, Any]]:
    """``("group.option", dataclass field)`` of every option, in order."""
    found = []
    for known in fields(root):
        found += names(known.type, f"{known.name}.") if is_dataclass(known.type) else [(prefix + known.name, known)]
    return found


def read(root: type[Options], sources: list[tuple[Given, str]]) -> Options:
    """A new ``root`` with the given options set; the last source wins, and null gives the default back.

    Args:
        sources: options, and where they were given, for errors.

    Raises:
        UserError: unknown option or wrong type; names the source and the option.
    """
    kinds = {name: _kind(option.type) for name, option in names(root)}
    found: dict[str, Any] = {}
    for given, source in sources:
        if unknown := [name for name, _ in given if name not in kinds]:
            hints = [_nearest(name, list(kinds)) for name in unknown]
            named = [f"{name} (did you mean {hint}?)" if hint else name for name, hint in zip(unknown, hints)]
            raise UserError(f"{source}: unknown option {', '.join(named)}; --help lists all")
        for name, values in given:
            try:
                found[name] = _typed(values, *kinds[name])
            except ValueError as error:
                raise UserError(f"{source}: {name} {error}") from None
    options = root()
    for name, value in found.items():
        if value is not None:
            group, _, short = name.rpartition(".")
            setattr(getattr(options, group) if group else options, short, value)
    return options


def _typed(values: list[str | None], kind: Any, several: bool) -> Any:
    """The value of an option; None where its default is wanted back.

    Raises:
        ValueError: what is wrong with it; the text goes on after the option's name.
    """
    if values == [None]:
        return None
    if None in values:
        raise ValueError("cannot have null among other values")
    if several:
        return [_value(word, kind, several) for word in values]
    if kind is bool and not values:
        return True  # --train.compile alone
    if len(values) != 1:
        raise ValueError(f"takes one value, not {len(values)}: {' '.join(values)}" if values else "needs a value")
    return _value(values[0], kind, several)


def _value(word: str, kind: Any, several: bool) -> Any:
    try:
        if kind is bool:
            return TRUTH[word.lower()]
        if kind in (int, float, str):
            return kind(word)
        return {choice: choice for choice in get_args(kind)}[word]
    except (KeyError, ValueError):
        wanted = TYPE_WORDS.get(kind) or "one of " + ", ".join(get_args(kind))
        hint = "; separate several by blanks" if several and "," in word else ""
        raise ValueError(f"must be {wanted}, not {word[:100]}{hint}") from None


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


def split(argv: list[str], flags: Container[str]) -> tuple[list[str], Given, set[str]]:
    """A command line as files of ``--config``, the options that are given, and those of ``flags`` that are in it.

    A word that begins with ``--`` names an option, all other words are values of the option before them. ``--name=value``
    gives a value that begins with ``--``, and no further one.

    Raises:
        UserError: ``--config`` without a file; a value without an option.
    """
    files, given, found = [], [], set()
    words, takes_more = iter(argv), False
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--config":
            files.append(value if equals else next(words, ""))
            takes_more = False
            if not files[-1]:
                raise UserError("--config: give a YAML file")
        elif word in flags or word == "-h":
            found.add("--help" if word == "-h" else word)
            takes_more = False
        elif word.startswith("--") and word != "--":
            given.append((name[2:], [] if not equals or value == EMPTY else [_or_null(value)]))
            takes_more = not equals
        elif takes_more:
            given[-1][1].append(_or_null(word))
        else:
            raise UserError(f"command line: {word!r} belongs to no option; --help lists all")
    return files, given, found


def _or_null(word: str) -> str | None:
    return None if word == NULL else word


def values_of(name: str, value: Any, path: str) -> tuple[str, list[str | None]]:
    """One option of a YAML file, for :func:`read`.

    Raises:
        UserError: it is neither a value nor a list of values.
    """
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | None) for item in values):
        raise UserError(f"{path}: {name} must be one value or a list of values")
    return name, values


def once(given: Given, path: str) -> Given:
    """``given``; UserError where a file gives an option twice, which YAML allows: ``run.seed: 1`` beside ``run: {seed: 2}``."""
    known: set[str] = set()
    for name, _ in given:
        if name in known:
            raise UserError(f"{path}: {name} is given twice; keep one of the two")
        known.add(name)
    return given


def words_of(name: str, values: list[str | None], path: str) -> list[str]:
    """One option as words of a command line.

    Raises:
        UserError: a text for which a command line has no words.
    """
    if NULL in values or len(values) > 1 and any(word and word.startswith("--") for word in values):
        raise UserError(f"{path}: {name} cannot be given on a command line: {' '.join(map(str, values))}")
    words = [NULL if word is None else word for word in values]
    return [f"--{name}={words[0]}"] if len(words) == 1 and words != [EMPTY] else [f"--{name}", *words]


class _UniqueNames:
    """YAML allows a name once in a mapping; PyYAML takes the last of several without a word. Escapes can write what no text of
    a command line, file or folder can hold."""

    def compose_scalar_node(self, anchor: str | None) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if found := re.search("[\0\ud800-\udfff]", node.value):
            problem = f"the escape {ascii(found[0])[1:-1]} stands for no character of a text"
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in lines:
                problem = f"{key.value!r} stands in line {lines[key.value]} already; keep one of the two"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
            key.style = key.style or '"'  # a name is a text, also one that is written null
        return super().construct_mapping(node, deep)


class _Texts(_UniqueNames, yaml.BaseLoader):
    """Every value is a text as it is written, or None for the bare word null and for nothing at all."""

    def construct_scalar(self, node: yaml.ScalarNode) -> str | None:
        return None if node.style is None and node.value in (NULL, "") else node.value


class _Values(_UniqueNames, yaml.SafeLoader):
    """Numbers, texts, true and false, as any YAML reader has them."""


def read_yaml(path: str | Path, option: str = "", typed: bool = False) -> Any:
    """What a YAML file holds: texts, and None for null, as types are for :func:`read`; with ``typed`` as YAML has them.

    Raises:
        UserError: names ``option``, the file, and the line where it is broken or has a name twice.
    """
    where = f"{option} {path}".strip()
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8-sig"), _Values if typed else _Texts)
    except OSError as error:
        raise UserError(f"{where}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 at byte {error.start}") from error
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{path}, line {error.problem_mark.line + 1}: broken YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # a control character, which has no mark; a date such as 2026-99-99
        raise UserError(f"{where}: broken YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise UserError(f"{where}: broken YAML: nested too deeply") from error


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
