"""No script needs a terminal or a locale of UTF-8, and no file's content depends on one."""

import ast
import io
import json
import os
from collections.abc import Iterator

import pytest

from electra_accel.cli import print_any_character
from electra_accel.errors import UserError
from electra_accel.options.yaml_file import read_yaml
from electra_accel.runs import run_folder
from tests.helpers import ROOT, run_script
from tests.pretraining_runs import finish, options, start

POSIX = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
WRITTEN = "한글 … ± é 😀 \udcb0\ud800"  # the last two are what Python makes of names and of JSON that no UTF-8 can hold


@pytest.mark.parametrize("encoding", ["ascii", "euc-kr", "latin-1", "utf-8"])
@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_what_an_encoding_lacks_is_escaped(encoding, errors):
    stream = io.TextIOWrapper(io.BytesIO(), encoding, errors)
    print_any_character(stream)
    stream.write(WRITTEN)
    stream.flush()
    assert stream.buffer.getvalue() == WRITTEN.encode(encoding, "backslashreplace")


def test_a_choice_of_the_user_and_other_streams_stay():
    stream = io.TextIOWrapper(io.BytesIO(), "ascii", "replace")  # PYTHONIOENCODING=ascii:replace
    print_any_character(stream)
    print_any_character(io.StringIO())
    assert stream.errors == "replace"


def test_every_script_begins_and_ends_in_cli():
    """Where it learns to print to any terminal, and to end with one line. What scripts share is none."""
    shared = {ROOT / "scripts" / "benchmarks" / "measuring.py"}
    scripts = [path for path in (ROOT / "scripts").rglob("*.py") if path not in shared]
    ending = 'if __name__ == "__main__":\n    exit_with_one_line(main)\n'
    assert len(scripts) > 15
    assert [path.name for path in scripts if not path.read_text("utf-8").endswith(ending)] == []


@pytest.mark.parametrize("script", ["pretrain", "finetune", "study", "train_tokenizer"])
def test_help_under_a_posix_locale(script):
    """Most help pages have characters in them that ASCII lacks."""
    done = run_script(f"scripts/{script}.py", "--help", **POSIX)
    assert done.returncode == 0 and "--" in done.stdout, done.stderr


@pytest.mark.slow
def test_a_run_under_a_posix_locale(tmp_path):
    """Korean text, a recipe with Korean in it, samples on the terminal, the page and every file."""
    lines = [f"책 {n}권을 읽은 café의 손님은 “맛있다”고 말했다 😀" for n in range(200)]
    (tmp_path / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text("tracking:\n  notes: 책\n", encoding="utf-8")
    short = {"train__steps": 2, "optim__warmup_steps": 1, "train__batch_tokens": 256, "eval__batches": 1}
    arguments = [*options("text.txt", tmp_path / "run", **short), "--config=recipe.yaml"]
    code, out, err = finish(start(arguments, tmp_path, WANDB_MODE="disabled", **POSIX))
    assert code == 0, out + err
    assert "\\uc190\\ub2d8" in out and "손님" in (tmp_path / "run" / "samples.jsonl").read_text("utf-8")
    assert "notes: 책" in (tmp_path / "run" / "config.yaml").read_text("utf-8")
    assert "손님" in (tmp_path / "run" / "report.html").read_text("utf-8")


PROGRAM = """
import json, sys
from electra_accel.cli import exit_with_one_line
def main():
    print(json.dumps(sys.argv[1:]))
exit_with_one_line(main)
"""


def test_words_of_a_command_line_are_utf8_or_refused_at_once():
    """So that no name comes to light hours later that a run's files, W&B or a library cannot hold."""
    mangled = os.fsdecode("나쁘다.txt".encode("cp949"))  # a zip of Korean Windows
    good = run_script("-c", PROGRAM, "책.txt")
    assert (good.returncode, json.loads(good.stdout)) == (0, ["책.txt"])
    bad = run_script("-c", PROGRAM, "--files", mangled)
    assert (bad.returncode, bad.stdout, bad.stderr.count("\n")) == (2, "", 1)
    assert r"\xb3\xaa" in bad.stderr and "convmv" in bad.stderr
    posix = run_script("-c", PROGRAM, "책.txt", **POSIX)
    assert (posix.returncode, posix.stdout, posix.stderr.count("\n")) == (2, "", 1)
    assert "PYTHONUTF8=1" in posix.stderr and "convmv" not in posix.stderr


def test_a_name_in_a_file_that_the_locale_cannot_write_is_one_line():
    """Such as run.dir in a recipe, which is UTF-8 whatever the locale is; what else cannot be encoded is a bug."""
    say, written = "print(json.dumps(sys.argv[1:]))", ascii("책/run")
    done = run_script("-c", PROGRAM.replace(say, f"open({written})"), **POSIX)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert written in done.stderr and "PYTHONUTF8=1" in done.stderr
    done = run_script("-c", PROGRAM.replace(say, f"{written}.encode('latin-1')"), **POSIX)
    assert done.returncode == 1 and "Traceback" in done.stderr


@pytest.mark.parametrize("escape", [r"\0", r"\x00", r"\ud800", r"\uDCB0", r"\U0000D800"])
@pytest.mark.parametrize("typed", [True, False])
def test_what_no_text_can_hold_cannot_be_written_in_yaml_either(tmp_path, escape, typed):
    file = tmp_path / "a.yaml"
    for line in (f'  dir: "runs/{escape}"', f'  dir: [a, "{escape}"]', f'  "dir{escape}": a'):
        file.write_text(f"run:\n{line}\n")
        with pytest.raises(UserError, match="a.yaml, line 2: .*the escape"):
            read_yaml(file, typed=typed)
    file.write_text(r'a: "책 \u20ac \x01 \ue000 \U0001F600"', encoding="utf-8")
    assert read_yaml(file, typed=typed) == {"a": "책 € \x01 \ue000 😀"}


def test_files_of_a_run_hold_what_no_utf8_can(tmp_path):
    """A name of a file may stand in them; in JSON it reads back as it was."""
    run_folder.write_status(tmp_path, "failed", 3, WRITTEN, 2)
    assert run_folder.read_status(tmp_path)["reason"] == WRITTEN
    run_folder.append_jsonl(tmp_path / "metrics.jsonl", {"step": 1, "name": WRITTEN})
    run_folder.cut_back(tmp_path / "metrics.jsonl", 1)
    assert run_folder.read_jsonl(tmp_path / "metrics.jsonl") == [{"step": 1, "name": WRITTEN}]


PLACE_OF_ENCODING = {"read_text": 0, "write_text": 1, "TextIOWrapper": 1}  # among the arguments
USUAL_MODE = {"open": "r", "fdopen": "r", "NamedTemporaryFile": "w+b", "TemporaryFile": "w+b"}


def without_encoding(source: str) -> Iterator[int]:
    """Lines of calls that read or write text in whatever encoding the locale has."""
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        named = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
        if "encoding" in named or ast.unparse(call.func) == "os.open":
            continue
        values = [named.get("mode"), *(getattr(value, "value", None) for value in call.args[:2])]
        modes = [word for word in values if isinstance(word, str) and set(word) <= set("rwxabt+")]
        is_text = named.get("text") or named.get("universal_newlines")  # of a pipe
        is_text = is_text or len(call.args) <= PLACE_OF_ENCODING.get(name, -1)
        is_text = is_text or (name in USUAL_MODE and "b" not in (modes or [USUAL_MODE[name]])[-1])
        if is_text:
            yield call.lineno


PLANTED = """
open(path)
open(path, 'w')
path.open()
gzip.open(path, 'rt')
os.fdopen(1, 'w')
tempfile.NamedTemporaryFile('w')
path.read_text()
path.write_text(text)
io.TextIOWrapper(file)
subprocess.run(words, text=True)
"""
HARMLESS = """
open(path, 'rb')
open(path, encoding='utf-8')
path.open(mode='wb')
os.open(path, os.O_RDONLY)
tempfile.NamedTemporaryFile()
path.read_text('utf-8')
path.write_text(text, 'utf-8')
subprocess.run(words, encoding='utf-8')
"""


def test_every_file_and_pipe_names_its_encoding():
    assert list(without_encoding(PLANTED + HARMLESS)) == list(range(2, PLANTED.count("\n") + 1))
    files = [path for folder in ("electra_accel", "scripts") for path in (ROOT / folder).rglob("*.py")]
    assert [f"{path}:{line}" for path in files for line in without_encoding(path.read_text("utf-8"))] == []
