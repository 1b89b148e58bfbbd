"""The folder of a run: names, layout, status, and jsonl files that can be cut back to a step.

    config.yaml  content.json  environment.json  status.json  metrics.jsonl  samples.jsonl  run_id
    failure.log (where status.json names it)  skipped.jsonl (where steps were skipped)
    held_out/  checkpoints/  discriminator/  generator/  corrector/ (where objective.corrective_weight trains one)  wandb/
    warm-start/ (a run of its own, see pretraining/warm_start.py)

The functions here know files, not training. Only the main process writes.
"""

import datetime
import errno
import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from electra_accel import json_text
from electra_accel.durable import flush, flush_names
from electra_accel.errors import UserError, one_line
from electra_accel.options.yaml_file import read_yaml

CONFIG, CONTENT, ENVIRONMENT, STATUS = "config.yaml", "content.json", "environment.json", "status.json"
PRE_TRAINING, FINE_TUNING = "a pre-training run", "fine-tunings"
MODELS = "models"  # option that fine-tunings have and no other job has: by it config.yaml says whose it is
METRICS, SAMPLES, SKIPPED = "metrics.jsonl", "samples.jsonl", "skipped.jsonl"
RUN_ID, FAILURE = "run_id", "failure.log"
HELD_OUT_IDENTITY = "held_out.json"  # in HELD_OUT: what figures of two runs must share to be compared
CHECKPOINTS, HELD_OUT, WARM_START = "checkpoints", "held_out", "warm-start"
LOCK, PROBE = ".lock", ".writable"  # hold nothing
ESCAPE = "backslashreplace"  # what no UTF-8 can hold, such as a file's name on an old disk; JSON reads it as it was
MOST_BYTES = 255  # of a name, on the file systems of Linux
STEP = re.compile(rb'\{"step": (\d+)[,}]')  # how a line of ours begins


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` so that a reader sees the old or the new text, never a part, also after a power cut."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # several processes may report their end at once
    with storage_errors(path.parent):
        with open(partial, "w", encoding="utf-8", errors=ESCAPE) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def discard(path: Path) -> str:
    """Delete a folder; its name is free at once, so a kill in the middle leaves no half of one under it.

    Returns:
        What is left of it and why, where it could not be deleted; "" else.
    """
    if not path.is_dir():
        return ""
    hidden, left = _free_name(path), path
    try:
        os.rename(path, hidden)
        left = hidden
        shutil.rmtree(hidden)
    except OSError as error:
        return f"{left} stays ({error.strerror})"
    return ""


def replace_folder(new: Path, place: Path) -> None:
    """Rename the folder ``new`` to ``place``; what stood there is deleted after that, or stays under a hidden name."""
    flush(new)
    hidden = _free_name(place)
    if place.exists():
        os.rename(place, hidden)
    os.rename(new, place)
    flush_names(place.parent)
    for left in place.parent.glob(f".{place.name}.removed*"):
        shutil.rmtree(left, ignore_errors=True)


def _free_name(path: Path) -> Path:
    """A hidden one beside ``path``: an earlier folder that could not be deleted may have the first."""
    names = (path.with_name(f".{path.name.lstrip('.')}.removed{number or ''}") for number in itertools.count())
    return next(name for name in names if not name.exists())


def read_json(path: Path) -> dict:
    """The names and values in a file; none where there is no such file.

    Raises:
        UserError: it holds something else, or cannot be read.
    """
    try:
        return _names_and_values(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); restore or remove it") from error


def _names_and_values(text: bytes) -> dict:
    value = json_text.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"it should hold names and values, not {str(value)[:40]}")
    return value


def require_pre_training(folder: Path) -> None:
    """Raises UserError where the run in ``folder`` is another job's."""
    if (there := job_in(folder)) != PRE_TRAINING:
        raise UserError(f"{folder} holds {there}, no pre-training: see its results.md")


def job_in(folder: Path) -> str:
    """Whose run ``folder`` holds, by its config.yaml: PRE_TRAINING or FINE_TUNING."""
    content = read_yaml(folder / CONFIG, "run.dir")
    return FINE_TUNING if isinstance(content, dict) and MODELS in content else PRE_TRAINING


def write_status(folder: Path, state: str, step: int, reason: str = "", exit_code: int | None = None) -> None:
    """``state`` is running, done, preempted or failed. Launchers flatten exit codes, so this file carries the truth.

    A long reason is cut to a line; failure.log beside it has all of it.
    """
    line = one_line(reason, FAILURE)
    if line != one_line(reason):
        write_atomically(folder / FAILURE, reason + "\n")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_json(folder / STATUS, {"state": state, "step": step, "reason": line, "exit_code": exit_code, "time": now})


def read_status(folder: Path) -> dict:
    """The last written status, or ``{"state": "new", "step": 0}``."""
    return {"state": "new", "step": 0} | read_json(folder / STATUS)


def append_jsonl(path: Path, record: dict) -> None:
    """One record, one line, one write: a killed process leaves at most the last line unfinished."""
    with storage_errors(path.parent), open(path, "a", encoding="utf-8", errors=ESCAPE) as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read_jsonl(path: Path, steps: Container[int] | None = None) -> list[dict]:
    """The whole records of ``steps``, or all; an unfinished last line (a kill in mid-write) is left out.

    Lines of other steps are not parsed: a long file costs the time and memory of what is asked for.

    Raises:
        UserError: a line holds something else, or the file cannot be read.
    """
    lines = _whole_lines(path)
    return [_record(path, *line) for line in lines if steps is None or _step(path, *line) in steps]


def recorded_steps(path: Path) -> list[int]:
    """The steps of which a jsonl file has whole records, in order; of a line of ours only the beginning is read."""
    return sorted({_step(path, *line) for line in _whole_lines(path)})


def _whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and content of each, one at a time; bytes, as a kill may leave half of a character."""
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    with file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n") and line.strip():
                yield number, line


def _step(path: Path, number: int, line: bytes) -> int:
    known = STEP.match(line)
    return int(known[1]) if known else _record(path, number, line)["step"]


def _record(path: Path, number: int, line: bytes) -> dict:
    try:
        record = _names_and_values(line)
        if not isinstance(record.get("step"), int):
            raise ValueError("it has no step")
    except ValueError as error:
        remedy = "restore the file, or remove the line"
        raise UserError(f"{path} is damaged (line {number} is no record: {error}); {remedy}") from error
    return record


def cut_back(path: Path, step: int) -> None:
    """Drop the records after ``step``, so that a resumed run writes every step once. Records have a ``step`` key."""
    if path.exists():
        kept = [record for record in read_jsonl(path) if record["step"] <= step]
        write_atomically(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))


def records(folder: Path) -> dict[str, list]:
    """``{name: [bytes, SHA-256]}`` of the jsonl files of a run that are there."""
    found = {}
    for path in (folder / name for name in (METRICS, SAMPLES)):
        if path.is_file():
            content = path.read_bytes()
            found[path.name] = [len(content), hashlib.sha256(content).hexdigest()]
    return found


def altered_records(folder: Path, known: dict[str, list]) -> list[str]:
    """Names of the files that do not begin with what :func:`records` knew: since then they are only appended to."""
    altered = []
    for name, (size, digest) in known.items():
        content = (folder / name).read_bytes()[:size] if (folder / name).is_file() else b""
        if hashlib.sha256(content).hexdigest() != digest:
            altered.append(name)
    return altered


def require_creatable(folder: Path, option: str = "run.dir") -> None:
    """Find out, without changing anything, whether ``folder`` could be made and written.

    Raises:
        UserError: it stands under a file, or under a folder without permission; a name in it cannot be one of a file.
    """
    existing, problem = folder.absolute(), ""
    # Path.exists raises for a name that is too long, or in a folder without permission.
    while not os.path.exists(existing):
        try:
            if len(os.fsencode(existing.name)) > MOST_BYTES:
                problem = f"the name {existing.name[:20]}… is too long"
        except UnicodeEncodeError:
            problem = f"{existing.name} is no {sys.getfilesystemencoding()}, which Python was told to name files in"
        if os.path.islink(existing):
            problem = f"{existing} is a link to something that is not there"
        existing = existing.parent
    if not existing.is_dir():
        problem = f"{existing} is a file"
    elif not os.access(existing, os.W_OK | os.X_OK):
        problem = f"no permission in {existing}"
    if problem:
        raise UserError(
            f"{option} {folder} cannot be written ({problem}); choose another --{option.removeprefix('--')}"
        )


def require_file(path: Path, option: str) -> None:
    """The same for a file, whose folder has to be there.

    Raises:
        UserError: it could not be written.
    """
    problem = ""
    if os.path.isdir(path):
        problem = "it is a folder"
    elif not os.path.isdir(path.parent):
        problem = f"there is no folder {path.parent}"
    elif not os.path.exists(path):
        return require_creatable(path, option)
    elif not os.access(path, os.W_OK):
        problem = "no permission"
    if problem:
        raise UserError(f"{option} {path} cannot be written ({problem}); choose another file")


def lock(folder: Path) -> TextIO:
    """Hold the run folder for this process until the returned file is closed or the process ends, however it ends.

    Raises:
        UserError: another process trains in it.
    """
    file = open(folder / LOCK, "wb")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock: loader processes would inherit it and outlive us
    except (BlockingIOError, PermissionError):
        raise UserError(
            f"run.dir {folder} is in use by another process; wait for it, or choose another --run.dir"
        ) from None
    except OSError:
        return file  # a file system without locks: nothing can be known
    return file


def require_writable(folder: Path, needed_bytes: int) -> None:
    """Create ``folder`` and find out now, not at the first checkpoint, whether it can hold the run.

    Raises:
        UserError: it cannot be created or written, or has less than ``needed_bytes`` free.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / PROBE
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
        free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise UserError(
            f"run.dir {folder}: {free / 1e9:.2f} GB are free, the run needs about {needed_bytes / 1e9:.2f} GB"
            " (checkpoints and exports); choose another --run.dir or a smaller --checkpoint.keep"
        )


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn an ``OSError`` met while writing to the run folder into the user's line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"run.dir {folder}: no space left; free some and start the same command again") from error
        raise UserError(f"run.dir {folder} cannot be written ({error.strerror}); choose another --run.dir") from error
