"""Checkpoints that exist whole or not at all (invariant 9).

A checkpoint is written into a hidden folder, every file is flushed to disk and hashed, the manifest is written last, and the
folder is renamed into place. A folder without a manifest, or whose files do not have the recorded sizes and hashes, is
damaged: it is named and skipped, never loaded.

    checkpoints/step-00001000/            state.json, what the engine writes, manifest.json (last)
    checkpoints/step-00001000.replaced/   the older one, while the same step is saved again
"""

import os
import re
import shutil
from collections.abc import Callable, Container
from contextlib import suppress
from pathlib import Path

from electra_accel import json_text
from electra_accel.digests import Damaged, digests, require_whole
from electra_accel.durable import flush, flush_names
from electra_accel.engines.state import MODEL_FILE, OPTIMIZER_FILE, Snapshot
from electra_accel.engines.state import write as write_state
from electra_accel.errors import UserError
from electra_accel.runs.run_folder import CHECKPOINTS, discard, storage_errors, write_json

MANIFEST, STATE = "manifest.json", "state.json"
FORMAT = 1
REPLACED = ".replaced"
_NAME = re.compile(rf"step-(\d{{8,}})(?:{REPLACED})?")


def write(
    folder: Path,
    snapshot: Snapshot,
    step: int,
    state: dict,
    warn: Callable[[str], None],
    *,
    keep: int,
    protect: Container[int] = (),
) -> None:
    """Write a checkpoint of the run in ``folder``, and prune. On the main process.

    Args:
        step: by which it is known; ``state``: of the loop, as JSON.
        keep: newest checkpoints that stay, beside those of the steps in ``protect``.

    Raises:
        UserError: no space, or no permission.
    """
    checkpoints = folder / CHECKPOINTS
    with storage_errors(folder):
        partial = begin(checkpoints, step)
        write_state(partial, snapshot)
        write_json(partial / STATE, state)
        commit(checkpoints, step, snapshot.kind)
        prune(checkpoints, keep, protect, warn)


def read_state(path: Path) -> dict:
    """The state that :func:`write` was given, of a verified checkpoint."""
    return json_text.loads((path / STATE).read_bytes())


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    final = folder / f"step-{step:08d}"
    replaced = final.with_name(final.name + REPLACED)
    killed = replaced.exists() and not final.exists()  # before the new one was in place
    return replaced if killed else final


def partial_path_of(folder: Path, step: int) -> Path:
    """Where the files of a checkpoint are written before it is complete."""
    return folder / f".step-{step:08d}.partial"


def begin(folder: Path, step: int) -> Path:
    """An empty hidden folder to write into; remains of an interrupted save go away. Call on one process per file system."""
    partial = partial_path_of(folder, step)
    discard(partial)
    partial.mkdir(parents=True)
    return partial


def commit(folder: Path, step: int, optimizer: str = "") -> Path:
    """Make the files under the hidden folder a checkpoint: hash, flush, manifest last, rename.

    One of the same step goes away after that: there is a whole one at every moment. The manifest names the ``optimizer`` for
    whoever looks into the folder; what is loaded is checked by the optimizer's file itself.
    """
    partial, final = partial_path_of(folder, step), folder / f"step-{step:08d}"
    replaced = final.with_name(final.name + REPLACED)
    files = digests(partial)
    write_json(partial / MANIFEST, {"format": FORMAT, "step": step, "optimizer": optimizer, "files": files})
    flush(partial)
    if final.exists():  # the same step saved again
        discard(replaced)
        os.rename(final, replaced)
    os.rename(partial, final)
    flush_names(folder)
    discard(replaced)
    return final


def verify(path: Path) -> dict:
    """The manifest of a whole checkpoint.

    Raises:
        Damaged: no manifest, another format, or a file that is missing, short, or altered.
    """
    try:
        manifest = json_text.loads((path / MANIFEST).read_bytes())
        wanted = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{MANIFEST} is missing or unreadable") from error
    if manifest.get("format") != FORMAT:
        raise Damaged(f"format {manifest.get('format')}, this version reads {FORMAT}")
    require_whole(path, wanted)
    if unknown := [
        name for name in (MODEL_FILE, OPTIMIZER_FILE, STATE) if (path / name).exists() and name not in wanted
    ]:
        raise Damaged(f"{MANIFEST} does not list {unknown[0]}")
    return manifest


def existing(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of every folder that is named like a checkpoint, oldest first; nothing is verified."""
    if not folder.is_dir():
        return []
    steps = {int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))}
    return [(step, path_of(folder, step)) for step in sorted(steps)]


def bytes_in(folder: Path) -> int:
    """What all checkpoints in ``folder``, and what is left of others, take on the disk."""
    sizes = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # a file may go away meanwhile
            sizes += path.stat().st_size if path.is_file() else 0
    return sizes


def newest_valid(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that verifies, None where there is none; each damaged one on the way is named through ``warn``.

    Raises:
        UserError: there are checkpoints, and all of them are damaged. Starting from step 0 is for the user to decide.
    """
    found = existing(folder)
    for _, path in reversed(found):
        try:
            verify(path)
            return path
        except Damaged as reason:
            warn(f"checkpoint {path} is damaged ({reason}): skipped")
    if found:
        names = ", ".join(path.name for _, path in found)
        raise UserError(f"all checkpoints in {folder} are damaged ({names}); move them away to start from step 0")
    return None


def set_aside(folder: Path, after_step: int) -> None:
    """Rename checkpoints later than the one a run resumes from (damaged, or of a course now abandoned).

    Otherwise they would count as the newest ones when pruning. The next pruning removes them.
    """
    for step, path in existing(folder):
        if step > after_step:
            aside = path.with_name(path.name + ".set-aside")
            discard(aside)
            os.rename(path, aside)


def prune(folder: Path, keep: int, protect: Container[int], warn: Callable[[str], None]) -> None:
    """Remove all but the newest ``keep`` checkpoints and the protected steps, and what older courses of the run left.

    One that cannot be deleted (an NFS client or another user holds it) is named through ``warn`` once: the state is saved, and
    the next pruning tries again.
    """
    for leftover in [*folder.glob(".step-*"), *folder.glob("step-*.set-aside")]:
        shutil.rmtree(leftover, ignore_errors=True)
    for step, path in existing(folder)[:-keep]:
        if step not in protect and (left := discard(path)):
            warn(f"checkpoint {path} cannot be deleted: {left}; its space is not free")
