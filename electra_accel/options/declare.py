"""How options are declared: fields of dataclasses, the intervals of their numbers, and which of them exclude each other.

A field of a job's dataclass is an option that :func:`option` made, or a group: a dataclass of options, which are then called
``group.option``. A subclass may add options, give one another default, or leave one out: ``notes: ClassVar = None``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from operator import attrgetter
from typing import Any, get_args, get_origin

COUNT, NOT_NEGATIVE, POSITIVE = "[1, inf)", "[0, inf)", "(0, inf)"


def option(default: Any, help: str, metavar: str | None = None, within: str | None = None) -> Any:
    """A dataclass field with its help; ``metavar`` names its value there, ``within`` is an interval such as ``[0, 1)``."""
    how = {"default_factory": default.copy} if isinstance(default, list) else {"default": default}
    return field(**how, metadata={"help": help, "metavar": metavar, "within": within})


@dataclass(frozen=True)
class Alternative:
    """Options that stand for one of several choices; a choice is a tuple of alternatives.

    One that is given takes the place of the others that a layer before it gave (a file; see ``parser``). Two in one layer are
    an error.

    Attributes:
        options: one, or several that go together.
        own: have a meaning beside these only. What layers before say of them goes when these are replaced.
        settles: follow from these. What layers before say of them goes when these are given.
        tuned: were chosen for one value of these. What layers before say of them goes when another value is given.
    """

    options: tuple[str, ...]
    own: tuple[str, ...] = ()
    settles: tuple[str, ...] = ()
    tuned: tuple[str, ...] = ()


def names(root: type, prefix: str = "") -> list[tuple[str, Any]]:
    """``("group.option", dataclass field)`` of every option, in order."""
    found = []
    for known in fields(root):
        found += names(known.type, f"{known.name}.") if is_dataclass(known.type) else [(prefix + known.name, known)]
    return found


def kind_of(annotation: Any) -> tuple[Any, bool]:
    """Type of one value, and whether the option takes several: (int, False) of int | None, (str, True) of list[str]."""
    if type(None) in get_args(annotation):
        annotation = get_args(annotation)[0]
    return (get_args(annotation)[0], True) if get_origin(annotation) is list else (annotation, False)


def value_of(options: Any, name: str) -> Any:
    """The option or group of that name."""
    return attrgetter(name)(options)


def is_given(value: Any) -> bool:
    """Whether a value says something; an empty text or list does not."""
    return value not in (None, "", [])


def flatten(options: Any) -> dict[str, Any]:
    """``{"group.option": value}`` of a dataclass of options, in the order of ``--help``."""
    return {name: value_of(options, name) for name, _ in names(type(options))}


def plain(values: Mapping[str, Any]) -> dict[str, int | float | str]:
    """Values as trackers hold them: lists and None are text."""
    return {name: value if isinstance(value, int | float | str) else str(value) for name, value in values.items()}


def outside_intervals(options: Any, prefix: str = "") -> list[str]:
    """What is wrong with the numbers in a dataclass of options."""
    problems = []
    for name, known in names(type(options)):
        interval, value = known.metadata["within"], value_of(options, name)
        numbers = value if isinstance(value, list) else [value]
        if interval and value is not None and not all(_within(interval, number) for number in numbers):
            problems.append(f"{prefix}{name} must lie in {interval}, not {value}")
    return problems


def _within(interval: str, x: float) -> bool:
    """Whether x lies in an interval such as ``[0, 1)``; nan lies in none."""
    low, high = map(float, interval[1:-1].split(","))
    return (low < x or (interval[0] == "[" and x == low)) and (x < high or (interval[-1] == "]" and x == high))
