"""A command that is printed can be typed as it stands, whatever the folders in it are called."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from electra_accel.errors import UserError
from electra_accel.finetuning.heads import open_encoder
from electra_accel.options.groups import Tracking
from electra_accel.reports.closing import closing_lines
from electra_accel.reports.sources import read_experiments
from electra_accel.reports.tasks import _seeds_of
from electra_accel.runs import run_folder
from electra_accel.runs.ending import recorded_end
from electra_accel.terminal import Terminal
from electra_accel.text.corpus import Corpus, resolve
from electra_accel.tracking.trackers import destination
from tests.helpers import ROOT
from tests.pretraining_runs import run_here
from tests.text.texts import TEXTS

NAME = 'our runs/it\'s "a" $HOME; 책'


def words_after(text: str, beginning: str) -> list[str]:
    """The words that a shell makes of what follows ``beginning``; of the rest of a sentence too."""
    return shlex.split(text.partition(beginning)[2].partition("\n")[0])


def test_the_end_of_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (Path(NAME) / "discriminator").mkdir(parents=True)
    said = "\n".join(closing_lines(Path(NAME), None))
    python, flag, code = words_after(said, "load it: ")
    call = next(node for node in ast.walk(ast.parse(code)) if getattr(node, "attr", "") == "from_pretrained")
    path = next(node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant))
    assert (python, flag, path, call.value.id) == ("python", "-c", f"{NAME}/discriminator", "AutoModel")
    assert words_after(said, "the same command with --run.dir ")[0] == NAME
    with pytest.raises(KeyboardInterrupt):
        with recorded_end(Path(NAME), lambda *end: None, Terminal(True), stopped=lambda: "", memory_remedy=""):
            raise KeyboardInterrupt
    assert words_after(capsys.readouterr().out, "--run.dir ")[0] == NAME


def test_logs_of_wandb_to_be_uploaded():
    said = destination(Tracking(project="p", samples="local"), ["wandb"], Path(NAME), "offline")
    assert words_after(said.rstrip(")"), "wandb sync ") == [f"{NAME}/wandb/offline-run-*"]
    assert said.endswith("/wandb/offline-run-*)")  # which the shell has to see


def test_lines_about_mistakes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path(NAME)
    (run / run_folder.CHECKPOINTS).mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        open_encoder(f"{NAME}/discriminator", "name")
    assert words_after(str(caught.value), "scripts/export.py ")[:2] == [NAME, "--to"]
    with pytest.raises(UserError) as caught:
        resolve(Corpus(files=(NAME,)))
    assert words_after(str(caught.value), "for example ") == [f"{NAME}/*.txt"]
    (run / "inside").mkdir()
    (run / "inside" / run_folder.CONFIG).write_text("")
    with pytest.raises(UserError) as caught:
        read_experiments([NAME], print)
    assert words_after(str(caught.value), "the runs in it: ") == [f"{NAME}/*"]
    (run / run_folder.CONFIG).write_text("models: []")
    with pytest.raises(UserError) as caught:
        _seeds_of(f"{NAME}/generator", Path("nowhere"), {}, run, ["first", f"{NAME}/generator"])
    command = ["--config", f"{NAME}/config.yaml", "--models", "first", f"{NAME}/generator", "--run.dir", NAME]
    assert words_after(str(caught.value), "scripts/finetune.py ") == command


def test_what_comes_next(tmp_path, monkeypatch, capfd):
    (tmp_path / "text.txt").write_text("\n".join(TEXTS))
    (tmp_path / "text.csv").write_text("the text\n\u200b\n" + "\n".join(TEXTS), encoding="utf-8")
    options = ["--vocab_size", "300", "--text_column", "the text"]
    options = ["--files", "text.csv", "--out", NAME, *options]
    code, out, err = run_here(options, tmp_path, monkeypatch, capfd, "train_tokenizer.py")
    assert code == 0, err
    assert "the first text reads: one two five" in out
    wanted = ["--tokenizer", NAME, "--text_column", "the text", "--train_files", "…"]
    assert words_after(out, "scripts/prepare_data.py ") == wanted
    options = ["--train_files", "text.txt", "--tokenizer", NAME, "--out", f"{NAME} prepared"]
    code, out, err = run_here(options, tmp_path, monkeypatch, capfd, "prepare_data.py")
    assert code == 0, err
    folder = words_after(out, "--data.prepared ")[0]
    assert (tmp_path / folder / "manifest.json").exists() and folder.startswith(f"{NAME} prepared/")
    (tmp_path / NAME / "unfinished").mkdir()
    run = f"{NAME}/unfinished"
    code, out, err = run_here(["--run", run, "a text"], tmp_path, monkeypatch, capfd, "detect.py")
    assert code == 2 and words_after(err, "scripts/export.py ")[0] == run


def test_no_command_is_printed_with_a_bare_folder():
    """Finds the next one: behind these words a value in braces is quoted for the shell, or is no path."""
    begin = r"(?:python -c|scripts/\w+\.py|wandb sync|--run\.dir|--data\.prepared|--config|--models)"
    bare = re.compile(rf"f[\"'].*{begin} [^{{}}\"']*\{{(?!shlex\.|typed|logs|config|start)(\w+)")
    assert bare.search('print(f"next: python scripts/x.py {folder}")') and not bare.search('f"--run.dir {typed}"')
    lines = [
        f"{path.name}: {line.strip()}"
        for folder in ("electra_accel", "scripts")
        for path in (ROOT / folder).rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
    ]
    assert len(lines) > 10_000 and list(filter(bare.search, lines)) == []
