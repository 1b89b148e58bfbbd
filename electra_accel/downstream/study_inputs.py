"""What a study is to read, looked at before its first run: the last row would otherwise find a wrong path hours later."""

from collections.abc import Container
from pathlib import Path

from electra_accel.config import Config
from electra_accel.data.corpus import Corpus, read_documents
from electra_accel.data.prepare import Prepared
from electra_accel.downstream.study import Study, named
from electra_accel.downstream.tasks import load_task
from electra_accel.training.networks import given_tokenizer


def check_inputs(study: Study, rows: Container[str]) -> None:
    """Open text, tokenizer and given networks' configurations of the rows of these names, and read the labelled data whole.

    Of text files the first lines are read: that is where a wrong column or format shows. Data sets of the hub are left to the
    runs, except labelled ones.

    Raises:
        UserError: one of them cannot be used; names the row.
    """
    for row, config in study.configurations():
        if row.name not in rows:
            continue
        with named(f"row {row.name}"):
            given_tokenizer(config, lambda line: None)
            _open_texts(config)
    for task in study.tasks():
        with named(f"finetune, task {task.name}"):
            load_task(task)


def _open_texts(config: Config) -> None:
    data = config.data
    if data.prepared:
        Prepared(Path(data.prepared))
    for files in (data.train_files, data.eval_files, data.eval_general_files, data.replay_files):
        if files:
            next(read_documents(Corpus(files=tuple(files), text_column=data.text_column), data.join_lines))
