"""Names of files and folders that are not UTF-8, too long, or of places that cannot be read: handled, or one line before any
work."""

import os
import unicodedata
from pathlib import Path

import pytest

from electra_accel.data.prepare import Prepared, prepare
from electra_accel.errors import UserError
from electra_accel.finetuning.heads import names
from electra_accel.names import short_name
from electra_accel.pretraining.config_parser import default_folder
from electra_accel.runs import run_folder
from electra_accel.text.corpus import Corpus
from electra_accel.text.tokenizer import load_tokenizer
from tests.helpers import run_script
from tests.pretraining_runs import options, run_here
from tests.text.texts import TEXTS

MANGLED = os.fsdecode("나쁘다".encode("cp949"))  # a name in a zip of Korean Windows
LONG = unicodedata.normalize("NFD", "각" * 27)  # as macOS writes it: 243 bytes


@pytest.mark.parametrize("stem", [MANGLED, LONG], ids=["not UTF-8", "long"])
def test_text_files_may_have_any_name(tmp_path, stem):
    (tmp_path / f"{stem}.txt").write_text("\n".join(TEXTS))
    how = dict(tokenizer=None, train_vocab_size=300, max_length=64, eval_fraction=0.1, join_lines=False)
    folder = prepare(tmp_path / "prepared", Corpus(files=(f"{tmp_path}/*.txt",)), {}, **how, log=lambda line: None)
    assert prepare(tmp_path / "prepared", Corpus(files=(f"{tmp_path}/*.txt",)), {}, **how) == folder
    folder.name.encode()
    prepared = Prepared(folder)
    assert list(prepared.manifest["splits"]["train"]["sources"]) == [f"{tmp_path}/{stem}.txt"]
    load_tokenizer(folder / "tokenizer")
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == [folder.name]


def test_short_names_are_cut_at_a_character():
    assert short_name("recipe") == "recipe" and short_name("책" * 66) == "책" * 66
    assert short_name("책" * 67) == "책" * 66
    Path(default_folder(LONG)).name.encode()
    assert len(os.fsencode(Path(default_folder("책" * 85)).name)) < 255


def test_models_with_long_names_stay_apart():
    found = names([f"{'a' * 150}/{'b' * 150}/{last}" for last in "cccc"] + [f"{'x' * 250}1", f"{'x' * 250}2"])
    assert len(set(found)) == 6 and max(len(os.fsencode(name)) for name in found) < 255


REFUSED = {
    "pretrain.py": lambda name: options("text.txt", name),
    "finetune.py": lambda name: ["--models", name, "--task.kind=classification", "--task.train_file=t.tsv"],
    "train_tokenizer.py": lambda name: ["--files", "text.txt", "--vocab_size", 300, "--out", name],
    "prepare_data.py": lambda name: ["--train_files", "text.txt", "--train_vocab_size", 300, "--out", name],
    "evaluate.py": lambda name: ["--run", name, "--files", "text.txt"],
    "detect.py": lambda name: ["--run", name, "a text"],
    "follow_sentence.py": lambda name: ["--run", name, "a text"],
    "export.py": lambda name: [name, "--to", "exported"],
    "adaptation.py": lambda name: [name],
    "compare_runs.py": lambda name: [name, "other"],
    "study.py": lambda name: [name],
}


@pytest.mark.parametrize(
    "name", [MANGLED, "n" * 300, f"new/{'n' * 300}"], ids=["not UTF-8", "long", "long in a new folder"]
)
@pytest.mark.parametrize("script", REFUSED)
def test_other_names_are_one_line_before_any_work(tmp_path, monkeypatch, capfd, script, name):
    (tmp_path / "text.txt").write_text("\n".join(TEXTS))
    (tmp_path / "t.tsv").write_text("text\tlabel\na\tb\nc\td\n")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run_here(REFUSED[script](name), tmp_path, monkeypatch, capfd, script)
    assert (code, out, err.count("\n")) == (2, "", 1), out + err
    assert err.startswith("error: ") and ("UTF-8" if name == MANGLED else "nnn") in err
    assert sorted(tmp_path.rglob("*")) == before


def test_where_a_folder_can_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    run_folder.require_creatable(tmp_path / "a" / "b")
    run_folder.require_creatable(tmp_path)
    for name in ("file/run", "dangling", "dangling/run", "loop/run", "n" * 256, "책" * 86 + "/run"):
        with pytest.raises(UserError, match="^--out .* --out$"):
            run_folder.require_creatable(tmp_path / name, "--out")
    run_folder.require_creatable(tmp_path / ("책" * 85))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file", "loop"]


def test_where_a_file_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for good in (tmp_path / "new", tmp_path / "file", Path("/dev/null")):
        run_folder.require_file(good, "--json")
    for bad in (tmp_path, tmp_path / "new" / "file", tmp_path / "file" / "x", tmp_path / ("n" * 256)):
        with pytest.raises(UserError, match="^--json .* cannot be written"):
            run_folder.require_file(bad, "--json")


PROGRAM = """
import os, pathlib, sys
from electra_accel.cli import exit_with_one_line
def main():
    os.setuid(65534)
    {body}
exit_with_one_line(main)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="permissions bind everybody but root; root can become somebody else")
@pytest.mark.parametrize(
    "body", ["open(sys.argv[1])", "pathlib.Path(sys.argv[1], 'x').is_dir()", "os.listdir(sys.argv[1])"]
)
def test_a_place_without_permission_is_one_line(tmp_path, body):
    tmp_path.chmod(0o755)
    (tmp_path / "closed").mkdir(mode=0o700)
    done = run_script(
        "-c", PROGRAM.format(body=body), tmp_path / "closed" / "x" if "open" in body else tmp_path / "closed"
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "closed" in done.stderr and "ermission" in done.stderr


def test_other_errors_of_files_stay_bugs(tmp_path):
    for body in ("open(sys.argv[1])", "raise OSError('a bug')"):
        program = PROGRAM.format(body=body).replace("    os.setuid(65534)\n", "")
        done = run_script("-c", program, tmp_path / "nowhere")
        assert done.returncode == 1 and "Traceback" in done.stderr
