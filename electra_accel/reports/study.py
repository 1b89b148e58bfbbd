"""A study: the same pre-training with one thing changed at a time, several seeds each, and what that does to a task.

A study file names the options that all rows share and those of each row; ``scripts/study.py`` runs it. Each row and seed is a
pre-training run of its own in STUDY/<row>-<seed>/. Their networks are fine-tuned in STUDY/tasks/, if the file has options for
that. Nothing here imports torch, so that mistakes are answered at once.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from electra_accel.errors import UserError, named
from electra_accel.finetuning import config as finetuning_config
from electra_accel.finetuning import config_parser as finetuning_parser
from electra_accel.options.parser import EMPTY
from electra_accel.options.yaml_file import NULL, read_yaml
from electra_accel.pretraining import config_checks, config_parser
from electra_accel.pretraining.config import Config, resolve
from electra_accel.runs import run_folder
from electra_accel.text.writing import normalise_name

TASKS = "tasks"
_PARTS = {"pretrain": dict, "finetune": dict, "rows": list}
_OF_A_ROW = ("name", "options", "finetune", "against", "curve")


@dataclass(frozen=True)
class Row:
    """One variant."""

    name: str  # also the beginning of its runs' folders
    words: list[str]  # its options of scripts/pretrain.py, as on a command line, after those that all rows share
    against: str | None  # the row that it is compared with; None for the first one
    curve: str | None  # the line of the chart that it is a point of; None without a chart
    finetune: list[str] = field(default_factory=list)  # its own options of scripts/finetune.py

    @property
    def tasks(self) -> str:
        """The name of the folder of its fine-tunings. Rows with other options cannot share one: its figures are one table."""
        words = (word.removeprefix("--").replace("%", "%25").replace("/", "%2F") for word in self.finetune)
        return "-".join([TASKS, *words])

    def finished(self, folder: Path) -> dict[int, Path]:
        """The finished pre-training runs of this row in the folder of the study, by seed."""
        ends = (path.name.removeprefix(f"{self.name}-") for path in folder.glob(f"{self.name}-*"))
        runs = {seed: run_of(folder, self, seed) for seed in sorted(int(end) for end in ends if end.isdecimal())}
        return {seed: run for seed, run in runs.items() if run_folder.read_status(run)["state"] == "done"}


@dataclass(frozen=True)
class FineTuning:
    """Rows that are fine-tuned in the same way, into one folder."""

    name: str  # of the folder
    rows: list[Row]
    words: list[str]  # options of scripts/finetune.py
    tasks: list[tuple[finetuning_config.Task, finetuning_config.Settings]]

    def networks(self, folder: Path) -> list[str]:
        """The discriminator, of one network alone its encoder, of every finished run; UserError where it is gone."""
        found = []
        for run in (run for row in self.rows for run in row.finished(folder).values()):
            networks = [path for path in (run / "discriminator", run / "encoder") if path.is_dir()]
            if not networks:
                missing = "has no discriminator/ or encoder/"
                raise UserError(f"{run} is finished, but {missing}; remove it, or export it again")
            found.append(str(networks[0]))
        return found


@dataclass(frozen=True)
class Study:
    """Rows, and what they share, as words of command lines."""

    rows: list[Row]
    pretrain: list[str]
    finetune: list[str]  # where these, the row's and the last ones are none, nothing is fine-tuned
    launcher: list[str] = field(default_factory=list)  # what starts the two scripts
    finetune_last: list[str] = field(default_factory=list)  # after those of the rows

    def check(self) -> None:
        """UserError for options that the scripts would refuse, before hours are spent on the rows above."""
        list(self.configurations())
        list(self.finetunings())

    def configurations(self) -> Iterator[tuple[Row, Config]]:
        """Each row, and what it gives to ``scripts/pretrain.py``."""
        for row in self.rows:
            with named(f"row {row.name}"):
                config = resolve(config_parser.parse([*self.pretrain, *row.words], "").config)
                config_checks.check(config)
            yield row, config

    def finetunings(self) -> Iterator[FineTuning]:
        """One for each folder; nothing is trained here."""
        for name in dict.fromkeys(row.tasks for row in self.rows):
            rows = [row for row in self.rows if row.tasks == name]
            words = [*self.finetune, *rows[0].finetune, *self.finetune_last]
            if not words:
                continue
            with named(f"finetune of row {rows[0].name}" if rows[0].finetune else "finetune"):
                asked = finetuning_parser.parse(["--models", "any", *words], "")
                finetuning_config.check(asked.settings, asked.tasks, asked.of_tasks)
            yield FineTuning(name, rows, words, list(zip(asked.tasks, asked.of_tasks, strict=True)))


def run_of(folder: Path, row: Row, seed: int) -> Path:
    return folder / f"{row.name}-{seed}"


def read_study(path: str, values: Mapping[str, str]) -> Study:
    """A study file, or a W&B sweep with ``method: grid``.

    Args:
        values: of the names in braces in the file's options, such as ``{data}``.

    Raises:
        UserError: the file is missing, is no YAML, or is not written as those in recipes/studies; a name has no value.
    """
    content = read_yaml(path, "study")
    if isinstance(content, dict) and "method" in content:
        return _of_sweep(path, content, values)
    if not isinstance(content, dict) or set(content) != set(_PARTS):
        raise UserError(f"{path}: a study holds {', '.join(_PARTS)}; see recipes/studies")
    content = {part: content[part] or kind() for part, kind in _PARTS.items()}  # `rows:` with nothing behind it is ""
    if wrong := [part for part, kind in _PARTS.items() if not isinstance(content[part], kind)]:
        raise UserError(f"{path}: {wrong[0]} must be {'a list' if wrong[0] == 'rows' else 'names and values'}")
    rows: list[Row] = []
    for number, entry in enumerate(content["rows"], start=1):
        rows.append(_row(f"{path}, row {number}", entry, [row.name for row in rows], values))
    if not rows:
        raise UserError(f"{path}: no rows")
    return Study(rows, *(_words(f"{path}, {part}", content[part], values) for part in ("pretrain", "finetune")))


def _of_sweep(path: str, sweep: dict, values: Mapping[str, str]) -> Study:
    """A row for each combination of the parameters, started by the command that ``wandb agent`` would use; no fine-tuning."""
    method, grid, command = sweep["method"], sweep.get("parameters"), sweep.get("command", ["${program}"])
    if method != "grid":
        raise UserError(f"{path}: method {method} needs W&B (wandb sweep {path}); without it only a grid can be run")
    if not isinstance(grid, dict) or not isinstance(command, list) or "${program}" not in command:
        raise UserError(f"{path}: a sweep has parameters, and ${{program}} in the list command; see recipes/sweeps")
    if Path(str(sweep.get("program"))).name != "pretrain.py":
        raise UserError(f"{path}: program is not scripts/pretrain.py")
    for name, settings in grid.items():
        if not isinstance(settings, dict) or not ("value" in settings or isinstance(settings.get("values"), list)):
            raise UserError(f"{path}: parameters.{name} has neither a value nor a list of values")
    rows: list[Row] = []
    for trial in itertools.product(*(settings.get("values", [settings.get("value")]) for settings in grid.values())):
        against = rows[0].name if rows else None
        rows.append(Row(f"trial-{len(rows) + 1}", _words(path, dict(zip(grid, trial)), values), against, None))
    at = command.index("${program}")
    parts = command[:at], [*command[at:], f"--tracking.group={sweep.get('name') or Path(path).stem}"]
    launcher, pretrain = ([word for word in map(str, part) if not word.startswith("${")] for part in parts)
    return Study(rows, pretrain, [], launcher)


def _row(where: str, entry: Any, above: list[str], values: Mapping[str, str]) -> Row:
    name = normalise_name(str(entry.get("name") or "")) if isinstance(entry, dict) else ""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"{where}: a row has a name of letters, digits, - and .")
    if unknown := set(entry) - set(_OF_A_ROW):
        raise UserError(f"{where}: unknown: {', '.join(sorted(unknown))}; a row has {', '.join(_OF_A_ROW)}")
    against = entry.get("against", above[0] if above else None)
    against = normalise_name(against) if isinstance(against, str) else against
    if name in above or name.split("-")[0] == TASKS:
        raise UserError(f"{where}: {name} stands there twice, or begins as a folder of fine-tunings does")
    if against is not None and against not in above:
        raise UserError(f"{where}: against is none of the rows above: {against}")
    parts = {part: entry.get(part) or {} for part in ("options", "finetune")}
    if wrong := [part for part, chosen in parts.items() if not isinstance(chosen, dict)]:
        raise UserError(f"{where}: {wrong[0]} must be names and values")
    options, finetune = (_words(where, chosen, values) for chosen in parts.values())
    return Row(name, options, against, entry.get("curve"), finetune)


def _words(where: str, chosen: Mapping[str, Any], values: Mapping[str, str]) -> list[str]:
    """Options as words of a command line, with values in the place of names in braces."""

    def value_of(found: re.Match) -> str:
        if found[1] not in values:
            raise UserError(f"{where}: {found[0]} needs a value: --set {found[1]}=…")
        return values[found[1]]

    words = []
    for name, value in chosen.items():
        found = value if isinstance(value, list) else [value]
        if not all(isinstance(each, str | None) for each in found):
            raise UserError(f"{where}: {name} must be one value or a list of values")
        words += words_of(name, [each and re.sub(r"\{(\w+)\}", value_of, each) for each in found], where)
    return words


def words_of(name: str, values: list[str | None], where: str) -> list[str]:
    """One option as words of a command line; UserError for a text for which it has none."""
    if NULL in values or len(values) > 1 and any(word and word.startswith("--") for word in values):
        raise UserError(f"{where}: {name} cannot be given on a command line: {' '.join(map(str, values))}")
    words = [NULL if word is None else word for word in values]
    return [f"--{name}={words[0]}"] if len(words) == 1 and words != [EMPTY] else [f"--{name}", *words]
