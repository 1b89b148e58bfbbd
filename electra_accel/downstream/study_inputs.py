"""What a study reads and goes on from, looked at before its first run: hours later the last row would find it wrong."""

from collections.abc import Container, Sequence
from pathlib import Path

from electra_accel import run_folder
from electra_accel.config import Config
from electra_accel.data.corpus import Corpus, read_documents
from electra_accel.data.prepare import Prepared
from electra_accel.downstream.job import require_same, shared_identity
from electra_accel.downstream.study import TASKS, Study, named, run_of
from electra_accel.downstream.tasks import load_task
from electra_accel.training import opening
from electra_accel.training.networks import given_tokenizer


def check_inputs(study: Study, folder: Path, rows: Container[str], seeds: Sequence[int]) -> None:
    """Open text, tokenizer and given networks' configurations of the rows of these names, and read the labelled data whole.

    Of text files the first lines are read: that is where a wrong column or format shows. Data sets of the hub are left to the
    runs, except labelled ones.

    Raises:
        UserError: one of them cannot be used, or the study's ``folder`` holds runs of another configuration; names the row.
    """
    for row, config in study.configurations():
        if row.name not in rows:
            continue
        with named(f"row {row.name}"):
            given_tokenizer(config, lambda line: None)
            _open_texts(config)
            for seed in seeds:
                config.run.seed = seed
                if (run_of(folder, row, seed) / run_folder.CONFIG).is_file():
                    opening.require_same(run_of(folder, row, seed), config)
    for task, settings in study.finetunings():
        with named(f"finetune, task {task.name}"):
            wanted = shared_identity(settings, load_task(task))
            for known in sorted((folder / TASKS / task.name).glob("*/seed-*")):
                require_same(known, wanted)


def _open_texts(config: Config) -> None:
    data = config.data
    if data.prepared:
        Prepared(Path(data.prepared))
    for files in (data.train_files, data.eval_files, data.eval_general_files, data.replay_files):
        if files:
            next(read_documents(Corpus(files=tuple(files), text_column=data.text_column), data.join_lines))
