"""The page that ``--help`` prints."""

import shutil
import textwrap
from dataclasses import fields, is_dataclass
from typing import get_args

from electra_accel.options.declare import flatten, is_given, kind_of, names

FLAGS = {
    "--config FILE": "YAML file of options, or the name of one in recipes/; may be repeated, later files win",
    "--print_config": "print all options as YAML and stop",
    "--dry_run": "check everything, prepare the data, print the plan and stop",
    "--cpu": "use the CPU although there is a GPU",
    "--help": "this page",
}
METAVARS = {int: "N", float: "X", bool: "true|false", str: "TEXT"}
ORDER = (
    "The command line overrides --config files, and those override the defaults in [brackets]. "
    "Of options that exclude each other, the command line's replaces a file's; two in one place are an error."
)
COLUMN = 42  # where the texts begin


def help_page(root: type, description: str) -> str:
    """Every flag, and every option by group, with its default in brackets; as wide as the terminal, at most 110 columns."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    lines = [description.strip(), "", textwrap.fill(ORDER, width), ""]
    lines += [_entry(flag, text, width) for flag, text in FLAGS.items()]
    titles = {known.name: known.type.__doc__ for known in fields(root) if is_dataclass(known.type)}
    defaults = flatten(root())
    for name, option in names(root):
        if (group := name.partition(".")[0]) in titles:
            lines += ["", f"{group}: {titles.pop(group)}"]
        kind, several = kind_of(option.type)
        metavar = option.metadata["metavar"] or METAVARS.get(kind) or "|".join(get_args(kind))
        default, text = defaults[name], option.metadata["help"]
        if is_given(default):
            shown = " ".join(map(str, default)) if several else str(default)
            text += f" [{shown.lower() if kind is bool else shown}]"
        lines.append(_entry(f"--{name} {metavar}{' …' if several else ''}", text, width))
    return "\n".join(lines)


def _entry(left: str, text: str, width: int) -> str:
    """One option: its help beside it, or below where the option is long."""
    body = textwrap.fill(text, width, initial_indent=" " * COLUMN, subsequent_indent=" " * COLUMN)
    head = f"  {left}"
    return head + body[len(head) :] if len(head) < COLUMN else f"{head}\n{body}"
