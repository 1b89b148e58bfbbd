"""Which runs a command line names: folders, globs, W&B."""

import glob
import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from electra_accel.errors import UserError
from electra_accel.pretraining.config_checks import READ_BY_CONTENT
from electra_accel.reports.experiments import Experiment, read_run_folder
from electra_accel.reports.wandb_runs import Segment, join_segments, logs_in, read_log, read_server
from electra_accel.runs import run_folder

SERVER = "wandb:"


def read_experiments(sources: Iterable[str], warn: Callable[[str], None]) -> list[Experiment]:
    """The runs that ``sources`` name, in their order, each once, with unique names.

    Args:
        sources: run folders, offline W&B folders (segments of one run count as one run), globs of either,
            ``wandb:entity/project`` and ``wandb:entity/project/run``.
        warn: takes one line for each path that a glob matched and that is no run.

    Raises:
        UserError: what was named is no run or cannot be read, a glob matches no run, or there are fewer than two runs.
    """
    found: dict[str | Path, Experiment | list[Segment]] = {}
    for source in sources:
        if source.startswith(SERVER):
            found |= {run.source: run for run in read_server(source)}
            continue
        for path in _matches(source, warn):
            if (path / run_folder.CONFIG).is_file():
                if path.resolve() not in found:
                    found[path.resolve()] = read_run_folder(path)
                continue
            for segment in map(read_log, logs_in(path)):
                segments = found.setdefault(segment.run_id, [])
                if segment.file.resolve() not in [other.file.resolve() for other in segments]:
                    segments.append(segment)
    runs = [run if isinstance(run, Experiment) else join_segments(run) for run in found.values()]
    if len(runs) < 2:
        raise UserError(f"{runs[0].source} is one run: give at least two to compare")
    # Options that name the same content get the words of the first run, so that such runs do not differ.
    words: dict[tuple[str, str], Any] = {}
    times = Counter(run.name for run in runs)
    for run in runs:
        for option, part in READ_BY_CONTENT.items():
            if part in run.content:
                run.options[option] = words.setdefault((option, run.content[part]), run.options[option])
        run.name = run.source if times[run.name] > 1 else run.name
    return runs


def _matches(source: str, warn: Callable[[str], None]) -> list[Path]:
    """The runs that one word names. A named folder must be a run; a glob may match other paths, which are left out."""
    exact = Path(source)
    if exact.exists():
        if _is_run(exact):
            return [exact]
        inside = exact.is_dir() and any(map(_is_run, exact.iterdir()))
        pattern = shlex.quote(f"{source.rstrip('/')}/*")
        remedy = f"give the runs in it: {pattern}" if inside else "give folders that pretrain.py has made"
        missing = "no run folder (no config.yaml) and no offline W&B folder (no run-*.wandb)"
        raise UserError(f"{source} is {missing}; {remedy}")
    matched = {path: _is_run(path) for path in map(Path, sorted(glob.glob(source)))}
    if not any(matched.values()):
        what = "no run folder" if matched else "nothing"
        raise UserError(f"{source}: {what} matches; give run folders, such as 'runs/*'")
    for path, is_run in matched.items():
        if not is_run:
            warn(f"{path} is no run and is left out")
    return [path for path, is_run in matched.items() if is_run]


def _is_run(path: Path) -> bool:
    return (path / run_folder.CONFIG).is_file() or bool(logs_in(path))
