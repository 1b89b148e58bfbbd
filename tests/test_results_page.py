"""Every command of docs/results.md is one that the scripts accept, and every figure file it names is there."""

import re
import shlex
import subprocess

import pytest

from electra_accel.finetuning import config as finetuning_config
from electra_accel.finetuning import config_parser as finetuning_parser
from electra_accel.pretraining import config_checks, config_parser
from electra_accel.pretraining.config import resolve
from electra_accel.reports.study import read_study
from tests.helpers import ROOT

PAGE = ROOT / "docs" / "results.md"
# The shell itself fills in variables; instead of running, a command prints its words.
SPEAK = 'say() { printf "%q " "$@"; echo; }; python() { say python "$@" >&3; }; make() { say make "$@" >&3; }; xz() { :; }\n'


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    place = tmp_path_factory.mktemp("results")
    (place / "folder").mkdir()
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    script = "exec 3>&1\nset -u\n" + SPEAK + "\n".join(blocks)
    done = subprocess.run(["bash", "-c", script], cwd=place, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return [shlex.split(line) for line in done.stdout.splitlines()]


def of(commands, script: str) -> list[list[str]]:
    found = [words[2:] for words in commands if words[1].endswith(script)]
    assert found
    return found


def test_pre_training(commands, monkeypatch):
    monkeypatch.chdir(ROOT)
    folders = []
    for words in of(commands, "pretrain.py"):
        asked = config_parser.parse(words, "")
        config_checks.check(resolve(asked.config))
        folders.append(asked.config.run.dir)
    assert len(folders) == len(set(folders)) == 8


def test_fine_tuning_names_networks_that_are_made_above(commands):
    made = {words[words.index("--run.dir") + 1] for words in of(commands, "pretrain.py")}
    for words in of(commands, "finetune.py"):
        asked = finetuning_parser.parse(words, "")
        finetuning_config.check(asked.settings, asked.tasks, asked.of_tasks)
        assert {model.removeprefix("untrained:").rpartition("/")[0] for model in asked.settings.models} <= made


def test_studies(commands, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    *ours, dry, own = of(commands, "study.py")
    assert dry == [*own, "--dry_run"] == ["study.yaml", "--set", "data=folder", "--seeds", "1", "2", "--dry_run"]
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    (tmp_path / "study.yaml").write_text(example)
    read_study(str(tmp_path / "study.yaml"), {"data": "folder"}).check()
    for words in ours:
        values = dict(word.split("=", 1) for word in words if re.match(r"(data|tokenizer)=", word))
        rows = words[words.index("--rows") + 1 : words.index("--pretrain")] if "--rows" in words else []
        assert set(rows) <= {row.name for row in read_study(words[0], values).rows}
    assert ["make", "ablations", "DATA=folder", "PAIR=runs/general"] in commands


def test_nothing_is_left_to_be_filled_in():
    text = PAGE.read_text("utf-8")
    assert "@" not in text and "not finished" not in text.partition("## 2.")[0]
