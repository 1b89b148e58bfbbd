"""Programs that are killed before each of their operations on files: what they read, and what has to be equal at the end."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from electra_accel.runs import run_folder
from tests.faults.trial import RUN, SETTINGS, command, content, digest, exported, program, undisturbed, write_text
from tests.finetuning_runs import line, make_place
from tests.pretraining_runs import metrics

GIVEN, TOKENIZER = "given", "tokenizer"


@dataclass(frozen=True)
class Job:
    told: str  # in the table
    make: Callable[[Path], None]  # writes what the program reads into its folder
    words: list[str]  # command
    content: Callable[[Path], dict[str, object]]
    ends: tuple[int, ...] = (0,)  # exit codes of a program that goes on, or finds that all is done


@functools.cache
def _discriminator() -> Path:
    """The folder of one that was trained for a step."""
    folder = Path(tempfile.mkdtemp(prefix="faults-given-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_text(folder)
    undisturbed(command(train__steps=1), folder)
    return folder / RUN / "discriminator"


def _write_text_and_discriminator(folder: Path) -> None:
    write_text(folder)
    shutil.copytree(_discriminator(), folder / GIVEN)


def _finetuned(folder: Path) -> dict[str, object]:
    """Figures and predictions, exported weights, and curves."""
    run = folder / RUN
    predictions = {str(path.relative_to(run)): digest(path) for path in sorted(run.rglob("predictions-*.jsonl"))}
    curves = {str(path.relative_to(run)): metrics(path.parent) for path in sorted(run.rglob(run_folder.METRICS))}
    return {**predictions, **curves, "table": (run / "results.md").read_text("utf-8"), **exported(run)}


def _tokenizer(folder: Path) -> dict[str, object]:
    return {path.name: digest(path) for path in sorted((folder / TOKENIZER).glob("*"))}


WARM = dict(
    model__size=None, model__generator_width=0.5, model__generator="warm-start", model__discriminator=GIVEN,
    model__warm_start_steps=2, tokenizer__train_vocab_size=None, train__steps=1,
)  # fmt: skip
FINETUNING = line(
    *(RUN, "--train.epochs=2", "--run.save_models=best", "--tracking.log_every=5"),
    models=("first/discriminator", "second/discriminator"),
)
TRAINING = ["--files", "text.txt", "--vocab_size", "400", "--out", TOKENIZER]
JOBS = {
    "pretraining": Job("pretrain.py, one process", write_text, command(), content),
    "warm-start": Job(
        "pretrain.py with a warm start", _write_text_and_discriminator, command(**SETTINGS | WARM), content
    ),
    "finetuning": Job("finetune.py, two models", make_place, program("finetune.py", FINETUNING), _finetuned),
    # Its folder is new: where it is whole already, that is said with exit code 2.
    "tokenizer": Job("train_tokenizer.py", write_text, program("train_tokenizer.py", TRAINING), _tokenizer, (0, 2)),
}
