"""What a study reads and goes on from, looked at before its first run: hours later the last row would find it wrong."""

from collections.abc import Container, Sequence
from pathlib import Path

from electra_accel.data.prepare import Prepared
from electra_accel.errors import UserError, named
from electra_accel.finetuning.job import RESULT, require_same, shared_identity
from electra_accel.finetuning.tasks import load_task
from electra_accel.pretraining import opening
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.networks import given_tokenizer
from electra_accel.reports.study import Study, run_of
from electra_accel.runs import run_folder
from electra_accel.text.corpus import Corpus, read_documents, resolve


def check_inputs(study: Study, folder: Path, rows: Container[str], seeds: Sequence[int]) -> None:
    """Open text, tokenizer and given networks' configurations of the rows of these names, and read the labelled data whole.

    Of each text file the first texts are read: that is where a wrong column or format shows. Data sets of the hub are left to
    the runs, except labelled ones.

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
    for finetuning in study.finetunings():
        networks = {run.name for row in finetuning.rows for run in row.finished(folder).values()}
        for task, settings in finetuning.tasks:
            with named(f"finetune, task {task.name}"):
                wanted = shared_identity(settings, load_task(task))
                for result in sorted((folder / finetuning.name / task.name).glob(f"*/seed-*/{RESULT}")):
                    if result.parent.parent.name in networks:
                        require_same(result.parent, wanted)


def _open_texts(config: Config) -> None:
    data = config.data
    if data.prepared:
        Prepared(Path(data.prepared))
    for files in (data.train_files, data.eval_files, data.eval_general_files, data.replay_files):
        for path in resolve(Corpus(files=tuple(files))) if files else ():
            corpus = Corpus(files=(str(path),), text_column=data.text_column)
            if next(read_documents(corpus, data.join_lines), None) is None:
                raise UserError(f"{path} holds no text")
