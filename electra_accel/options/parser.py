"""A command line and YAML files -> any dataclass of options (see ``declare``), and back.

Layers lie over each other: the defaults, each ``--config`` file, the command line, wherever ``--config`` is on it. A file is
read as if its options were on the command line: ``train: {steps: 100}`` is ``--train.steps=100``. Text is text: ``#1``, ``~``
and ``007`` mean themselves. Only the bare word ``null`` gives an option its default back; in quotes it is a text.
"""

import difflib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml

from electra_accel.errors import UserError, named
from electra_accel.options.declare import Alternative, is_given, kind_of, names, value_of
from electra_accel.options.help import FLAGS, help_page
from electra_accel.options.yaml_file import NULL, read_yaml

RECIPES = Path(__file__).parents[2] / "recipes"
EMPTY = "[]"  # --name=[] is a list without values
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
Layer = tuple[dict[str, list], str]  # options with their values as written, None for null; and where they were given


@dataclass
class Arguments:
    """What every job is asked for; a job's own ``Arguments`` add to it."""

    dry_run: bool = field(default=False, init=False)
    cpu: bool = field(default=False, init=False)


Options, Asked = TypeVar("Options"), TypeVar("Asked", bound=Arguments)


def parse(
    root: type,
    argv: Sequence[str],
    description: str,
    build: Callable[[list[Layer], Layer], Asked],
    dump: Callable[[Asked], str],
) -> Asked:
    """What a command line, without the program's name, asks for. ``--help`` and ``--print_config`` print and exit with 0.

    A word that begins with ``--`` names an option, all other words are values of the option before them. ``--name=value``
    gives a value that begins with ``--``, and no further one.

    Args:
        build: makes it of the layers of the ``--config`` files and that of the command line; ``dump``: gives it as YAML.

    Raises:
        UserError: an option or a file cannot be used; names the file and the option.
    """
    files, given, flags, more = [], {}, set(), False
    for word in argv:
        name, equals, value = word.partition("=")
        if word in FLAGS or word == "-h":
            flags, more = flags | {word}, False
        elif word.startswith("--") and word != "--":
            values, more = [value] * bool(equals and value != EMPTY), not equals
            if name == "--config":
                files.append(values)
            else:
                given[name[2:]] = values
        elif more:
            values.append(word)
        else:
            raise UserError(f"command line: {word!r} belongs to no option; --help lists all")
    if wrong := [values for values in files if len(values) != 1 or not values[0]]:
        raise UserError(f"--config: give one YAML file, not {' '.join(wrong[0]) or 'none'}; it may be repeated")
    if flags & {"-h", "--help"}:
        print(help_page(root, description))
        sys.exit(0)
    given = {name: [None if value == NULL else value for value in values] for name, values in given.items()}
    asked = build([read_layer(root, _found(file)) for [file] in files], (given, "command line"))
    asked.dry_run, asked.cpu = "--dry_run" in flags, "--cpu" in flags
    if "--print_config" in flags:
        print(dump(asked), end="")
        sys.exit(0)
    return asked


def _found(file: str) -> str:
    """A bare name such as ``published`` stands for that file of recipes/, unless a file has it."""
    recipe = RECIPES / f"{file}.yaml"
    return str(recipe) if Path(file).name == file and not Path(file).exists() and recipe.is_file() else file


def read_layer(root: type, path: str | Path) -> Layer:
    """The options in a YAML file; UserError where it is broken, holds no names and values, or has an option twice."""
    groups = {name.partition(".")[0] for name, _ in names(root) if "." in name}
    given: dict[str, list] = {}
    for name, value in mapping(read_yaml(path, "--config"), path).items():
        inner = {name: value}
        if name in groups or isinstance(value, dict):
            inner = {f"{name}.{option}": each for option, each in mapping(value, f"{path}: {name}").items()}
        for option, each in inner.items():
            if option in given:  # run.seed: 1 beside run: {seed: 2}
                raise UserError(f"{path}: {option} is given twice; keep one of the two")
            given[option] = each if isinstance(each, list) else [each]
    return given, str(path)


def mapping(content: Any, where: str | Path) -> dict:
    """``content`` of a file, nothing as an empty dict; UserError where it is something else."""
    if not isinstance(content or {}, dict):
        raise UserError(f"{where}: must hold 'name: value' lines, not {str(content)[:40]!r}")
    return content or {}


def read(root: type[Options], layers: Sequence[Layer], choices: Sequence[Sequence[Alternative]] = ()) -> Options:
    """A new ``root`` with the given options set; the last layer wins, and null gives the default back.

    Args:
        choices: what excludes each other, see :class:`Alternative`.

    Raises:
        UserError: unknown option, wrong type, two of a choice in one layer; names the source and the option.
    """
    kinds = {name: kind_of(option.type) for name, option in names(root)}
    found: dict[str, Any] = {}
    for given, source in layers:
        with named(source):
            if unknown := [_with_hint(name, list(kinds)) for name in given if name not in kinds]:
                raise UserError(f"unknown option {', '.join(unknown)}; --help lists all")
            values = {name: _value(name, words, *kinds[name]) for name, words in given.items()}
            for choice in choices:
                _make_way(found, values, choice)
        found |= values
    options = root()
    for name, value in found.items():
        if value is not None:
            group, _, short = name.rpartition(".")
            setattr(value_of(options, group) if group else options, short, value)
    return options


def _make_way(found: dict[str, Any], values: dict[str, Any], choice: Sequence[Alternative]) -> None:
    """Takes out of ``found`` what the ``values`` of the next layer replace; UserError: they hold two of the choice."""
    now = [each for each in choice if any(is_given(values.get(name)) for name in each.options)]
    if len(now) > 1:
        both = " and ".join(next(name for name in each.options if is_given(values.get(name))) for each in now)
        raise UserError(f"{both} exclude each other; give only one of them")
    for new in now:
        before = [old for old in choice if old != new and any(is_given(found.get(name)) for name in old.options)]
        another = any(is_given(found.get(name)) and found[name] != values.get(name) for name in new.options)
        replaced = (name for old in before for name in (*old.options, *old.own))
        for name in (*new.settles, *replaced, *(new.tuned if another else ())):
            found.pop(name, None)


def _value(name: str, words: list, kind: Any, several: bool) -> Any:
    """The value of an option, None where its default is wanted back; UserError: what is wrong with it."""
    if words == [None]:
        return None
    if wrong := [word for word in words if not isinstance(word, str)]:
        what = "cannot have null among other values" if None in wrong else "must be one value or a list of values"
        raise UserError(f"{name} {what}")
    if kind is bool and not words:
        return True  # --model.gradient_checkpointing alone
    if len(words) != 1 and not several:
        many = f"takes one value, not {len(words)}: {' '.join(words)}"
        raise UserError(f"{name} {many if words else 'needs a value'}")
    choices = TRUTH if kind is bool else {choice: choice for choice in get_args(kind)}
    values = []
    for word in words:
        try:
            values.append(kind(word) if kind in (int, float, str) else choices[word.lower() if kind is bool else word])
        except (KeyError, ValueError):
            wanted = WORDS.get(kind) or "one of " + ", ".join(choices)
            hint = "; separate several by blanks" if several and "," in word else ""
            raise UserError(f"{name} must be {wanted}, not {word[:100]}{hint}") from None
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
