"""A command line and YAML files -> any dataclass of options (see ``declare``), and back.

Layers lie over each other: the defaults, each ``--config`` file, the command line, wherever ``--config`` is on it. A file is
read as if its options were on the command line: ``train: {steps: 100}`` is ``--train.steps=100``. Both accept the same values
and give the same errors. Text is text: ``#1``, ``~`` and ``007`` mean themselves. Only the bare word ``null`` gives an option
its default back; in a file ``"null"`` in quotes is a text.
"""

import difflib
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from electra_accel.errors import UserError
from electra_accel.options.declare import Alternative, cast, is_given, kind_of, names, value_of
from electra_accel.options.help import FLAGS, help_page
from electra_accel.options.yaml_file import NULL, read_yaml

Options = TypeVar("Options")
Layer = tuple[
    dict[str, list], str
]  # options with their values as they were written, None for null; where they were given
EMPTY = "[]"  # --name=[] is a list without values


def layers(root: type, argv: Sequence[str], description: str) -> tuple[list[Layer], set[str]]:
    """The files that a command line names, then its own options; and its flags. ``--help`` prints and exits with 0.

    A word that begins with ``--`` names an option, all other words are values of the option before them. ``--name=value``
    gives a value that begins with ``--``, and no further one. UserError where this does not fit, or a file is broken.
    """
    files, given, flags, values = [], {}, set(), None
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--config":
            values = None
            files.append(value if equals else next(words, ""))
            if not files[-1]:
                raise UserError("--config: give a YAML file")
        elif word in FLAGS or word == "-h":
            values = None
            flags.add("--help" if word == "-h" else word)
        elif equals and word.startswith("--"):
            values, given[name[2:]] = None, [value] * (value != EMPTY)
        elif word.startswith("--") and word != "--":
            values = given[name[2:]] = []
        elif values is not None:
            values.append(word)
        else:
            raise UserError(f"command line: {word!r} belongs to no option; --help lists all")
    if "--help" in flags:
        print(help_page(root, description))
        sys.exit(0)
    given = {name: [None if value == NULL else value for value in values] for name, values in given.items()}
    return [*(read_layer(root, file) for file in files), (given, "command line")], flags


def read_layer(root: type, path: str | Path) -> Layer:
    """The options in a YAML file; UserError where it is broken, holds no names and values, or has an option twice."""
    groups = {known.name for known in fields(root) if is_dataclass(known.type)}
    given: dict[str, list] = {}
    for name, value in mapping(read_yaml(path, "--config"), path).items():
        inner = {name: value}
        if name in groups or isinstance(value, dict):
            inner = {f"{name}.{option}": each for option, each in mapping(value, f"{path}: {name}").items()}
        if twice := [option for option in inner if option in given]:  # run.seed: 1 beside run: {seed: 2}
            raise UserError(f"{path}: {twice[0]} is given twice; keep one of the two")
        given |= {option: each if isinstance(each, list) else [each] for option, each in inner.items()}
    return given, str(path)


def mapping(content: Any, where: str | Path) -> dict:
    """``content`` of a file, nothing as an empty dict; UserError where it is something else."""
    if not isinstance(content or {}, dict):
        raise UserError(f"{where}: must hold 'name: value' lines, not {str(content)[:40]!r}")
    return content or {}


def read(root: type[Options], asked: Sequence[Layer], choices: Sequence[Sequence[Alternative]] = ()) -> Options:
    """A new ``root`` with the given options set; the last layer wins, and null gives the default back.

    Args:
        choices: what excludes each other, see :class:`Alternative`.

    Raises:
        UserError: unknown option, wrong type, two of a choice in one layer; names the source and the option.
    """
    kinds = {name: kind_of(option.type) for name, option in names(root)}
    found: dict[str, Any] = {}
    for given, source in asked:
        if unknown := [_with_hint(name, list(kinds)) for name in given if name not in kinds]:
            raise UserError(f"{source}: unknown option {', '.join(unknown)}; --help lists all")
        try:
            values = {name: _value(name, words, *kinds[name]) for name, words in given.items()}
            for choice in choices:
                _make_way(found, values, choice)
        except ValueError as error:
            raise UserError(f"{source}: {error}") from None
        found |= values
    options = root()
    for name, value in found.items():
        if value is not None:
            group, _, short = name.rpartition(".")
            setattr(value_of(options, group), short, value)
    return options


def _make_way(found: dict[str, Any], values: dict[str, Any], choice: Sequence[Alternative]) -> None:
    """Takes out of ``found`` what the ``values`` of the next layer replace; ValueError: they hold two of the choice."""

    def made(options: dict[str, Any]) -> dict[Alternative, str]:
        given = {each: [name for name in each.options if is_given(options.get(name))] for each in choice}
        return {each: names[0] for each, names in given.items() if names}

    now = made(values)
    if len(now) > 1:
        raise ValueError(f"{' and '.join(now.values())} exclude each other; give only one of them")
    for new in now:
        replaced = [name for old in made(found) if old != new for name in (*old.options, *old.own)]
        for name in (*replaced, *new.settles):
            found.pop(name, None)


def _value(name: str, words: list, kind: Any, several: bool) -> Any:
    """The value of an option, None where its default is wanted back; ValueError: what is wrong with it."""
    if words == [None]:
        return None
    if not all(isinstance(word, str) for word in words):
        nulls = None in words
        raise ValueError(
            f"{name} {'cannot have null among other' if nulls else 'must be one value or a list of'} values"
        )
    if kind is bool and not words:
        return True  # --train.compile alone
    if len(words) != 1 and not several:
        many = f"takes one value, not {len(words)}: {' '.join(words)}"
        raise ValueError(f"{name} {many if words else 'needs a value'}")
    try:
        values = [cast(word, kind) for word in words]
    except ValueError as error:
        hint = "; separate several by blanks" if several and any("," in word for word in words) else ""
        raise ValueError(f"{name} {error}{hint}") from None
    return values if several else values[0]


def _with_hint(name: str, known: list[str]) -> str:
    """An unknown option, with the one that was probably meant; ``lr`` and the like are read as initials."""
    initials = {option: "".join(word[0] for word in option.rpartition(".")[2].split("_")) for option in known}
    short = [option for option in known if initials[option] == name.rpartition(".")[2]]
    hints = short or difflib.get_close_matches(name, known, n=1)
    return f"{name} (did you mean {hints[0]}?)" if hints else name


def dump(values: dict[str, Any]) -> str:
    """YAML of options, groups as dicts; :func:`read_layer` reads it back."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
