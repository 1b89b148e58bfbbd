"""A study: the same pre-training with one thing changed at a time, several seeds each, and what it does to a task.

A study file names the options that all rows share and those of each row; ``scripts/study.py`` runs it. Each row and seed is a
pre-training run of its own in STUDY/<row>-<seed>/; their networks are fine-tuned in STUDY/tasks/. Nothing here imports torch,
so that mistakes are answered at once.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from electra_accel import run_folder
from electra_accel.errors import UserError

TASKS = "tasks"


@dataclass(frozen=True)
class Row:
    """One variant.

    Attributes:
        name: also the beginning of its runs' folders.
        options: of ``scripts/pretrain.py``, over those that all rows share.
        against: the row that it is compared with; None for that one itself.
        curve: the line of the chart that it is a point of; None without a chart.
    """

    name: str
    options: Mapping[str, Any]
    against: str | None
    curve: str | None


@dataclass(frozen=True)
class Study:
    """``pretrain`` and ``finetune`` are options by name, as the two scripts take them."""

    rows: tuple[Row, ...]
    pretrain: Mapping[str, Any]
    finetune: Mapping[str, Any]

    def run(self, folder: Path, row: Row, seed: int) -> Path:
        return folder / f"{row.name}-{seed}"


def read_study(path: Path, values: Mapping[str, str]) -> Study:
    """
    Args:
        values: of the names in braces in the file's options, such as ``{data}``.

    Raises:
        UserError: the file is missing, is no YAML, or is not written as those in recipes/studies; a name has no value.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    allowed = {"pretrain": dict, "finetune": dict, "rows": list}
    if not isinstance(content, dict) or set(content) != set(allowed):
        raise UserError(f"{path}: a study holds {', '.join(allowed)}; see recipes/studies")
    if wrong := [key for key, kind in allowed.items() if not isinstance(content[key], kind)]:
        raise UserError(f"{path}: {wrong[0]} is not a {'list' if wrong[0] == 'rows' else 'group of options'}")
    rows: list[Row] = []
    for number, entry in enumerate(content["rows"], start=1):
        rows.append(_row(f"{path}, row {number}", entry, [row.name for row in rows], values))
    if not rows:
        raise UserError(f"{path}: no rows")
    return Study(tuple(rows), *(_filled(str(path), content[key], values) for key in ("pretrain", "finetune")))


def _row(where: str, entry: Any, above: list[str], values: Mapping[str, str]) -> Row:
    if not isinstance(entry, dict) or not re.fullmatch(r"[\w.-]+", str(entry.get("name", ""))):
        raise UserError(f"{where}: a row has a name of letters, digits, - and .")
    if unknown := set(entry) - {"name", "options", "against", "curve"}:
        raise UserError(f"{where}: unknown: {', '.join(sorted(unknown))}; a row has name, options, against, curve")
    name, against = str(entry["name"]), entry.get("against", above[0] if above else None)
    if name in above:
        raise UserError(f"{where}: {name} stands there twice")
    if against is not None and against not in above:
        raise UserError(f"{where}: against is none of the rows above: {against}")
    options = entry.get("options", {})
    if not isinstance(options, dict):
        raise UserError(f"{where}: options are no names and values")
    return Row(name, _filled(where, options, values), against, entry.get("curve"))


def _filled(where: str, options: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """The options with values in the place of names in braces."""

    def fill(value: Any) -> Any:
        if isinstance(value, list):
            return [fill(item) for item in value]
        if not isinstance(value, str):
            return value
        try:
            return value.format_map(values)
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise UserError(f"{where}: {value!r} needs a value: --set {str(error).strip(chr(39))}=…") from None

    return {name: fill(value) for name, value in options.items()}


def words(options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command line; a list is several words, as the scripts take it."""
    found = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        found += [
            f"--{name}",
            *("null" if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in values),
        ]
    return found


def is_done(run: Path) -> bool:
    return run_folder.read_status(run)["state"] == "done"


def network_of(run: Path) -> Path:
    """The folder of a finished run that is fine-tuned: its discriminator, of one network alone its encoder."""
    return next(folder for folder in (run / "discriminator", run / "encoder") if folder.is_dir())
