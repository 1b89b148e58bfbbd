"""export.py and adaptation.py on a real, short run: checkpoints are exported while it goes on; mistakes are one line."""

import json
import re
import shutil
from pathlib import Path

import pytest

from electra_accel.engines import state
from electra_accel.pretraining.exporting import export_checkpoint
from electra_accel.pretraining.model_identity import FOLDER, NETWORKS
from electra_accel.runs import checkpoint, run_folder
from electra_accel.runs.export import ORIGIN
from tests.pretraining_runs import exported_weights, run_here, run_short, write_corpus

SHORT = {
    "train__steps": 4,
    "checkpoint__every": 2,
    "eval__every": 2,
    "eval__batches": 1,
    "tracking__samples": "none",
    "tokenizer__train_vocab_size": 400,
    "optim__warmup_steps": 0,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    write_corpus(folder / "text.txt", most=300)
    return folder


@pytest.fixture
def run(place, monkeypatch, capfd) -> Path:
    """A real run with checkpoints at steps 2 and 4; made by the first test that asks."""
    if not (place / "run").exists():
        code, out, err = run_short(SHORT, place, monkeypatch, capfd)("run")
        assert code == 0, out + err
    return place / "run"


@pytest.fixture
def export(place, monkeypatch, capfd):
    return lambda *arguments: run_here(arguments, place, monkeypatch, capfd, "export.py")


def weights_of(card: Path) -> str:
    return re.search(r"\| weights of \| (.*?) \|", card.read_text("utf-8"))[1]


def test_any_checkpoint_of_a_run_without_its_text(run, place, export):
    """As while the run goes on: nothing of what comes at its end is there, and nothing in its folder changes."""
    copied = shutil.copytree(run, place / "going on", ignore=shutil.ignore_patterns("discriminator", "generator"))
    run_folder.write_status(copied, "running", 4)
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    code, out, err = export("going on", "--to", "newest")
    assert code == 0 and "step-00000004" in out, err
    assert exported_weights(place / "newest") == exported_weights(run)
    assert weights_of(place / "newest" / "discriminator" / "README.md") == "step 4 (a checkpoint)"
    assert weights_of(run / "discriminator" / "README.md") == "step 4 (the last)"
    origins = [json.loads((place / folder / "generator" / ORIGIN).read_text("utf-8")) for folder in ("newest", "run")]
    assert [origin.pop("chosen") for origin in origins] == ["a checkpoint", "the last"]
    assert [origin.pop("run") for origin in origins] == ["going on", "run"]
    assert [origin.pop("facts")["weights of"] for origin in origins] == ["step 4 (a checkpoint)", "step 4 (the last)"]
    assert origins[0] == origins[1]
    assert origins[0]["content"] == run_folder.read_json(run / run_folder.CONTENT)
    identity = run_folder.HELD_OUT_IDENTITY
    assert origins[0]["held_out"] == {"held_out": run_folder.read_json(run / run_folder.HELD_OUT / identity)}
    code, _, err = export("going on/checkpoints/step-00000002", "--to", "older", "--licence", "mit")
    assert code == 0, err
    assert exported_weights(place / "older") != exported_weights(run)
    card = (place / "older" / "discriminator" / "README.md").read_text("utf-8")
    judged = [record for record in run_folder.read_jsonl(run / run_folder.METRICS) if "eval/auc" in record]
    assert "| step 0 | step 2 |" in card and f"{judged[1]['eval/auc']:.4f}" in card
    origin = run_folder.read_json(place / "older" / "discriminator" / ORIGIN)
    assert origin["figures"] == {
        key: value for key, value in judged[1].items() if key.startswith("eval") and key != "eval/calibration"
    }
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before


def damage(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"0" * 100)


def cut_off_networks(path: Path) -> None:
    (path.parent.parent / FOLDER / NETWORKS).write_text('{"generator"')


@pytest.mark.parametrize(
    ("alter", "arguments", "said"),
    [
        (None, ["one/checkpoints/step-00000001", "--to", "out"], "is neither the folder of a run nor a whole checkpoint"),
        (damage, ["one/checkpoints/step-00000004", "--to", "out"], "model.safetensors has 100 bytes"),
        (None, ["moved/step-00000004", "--to", "out"], "not in a run folder"),
        (None, ["one", "--to", "run"], "run/discriminator exists already"),
        (None, ["run/discriminator", "--to", "out"], "run/discriminator is an export already"),
        (None, ["moved", "--to", "out"], "moved is an export already"),
        (None, ["nowhere", "--to", "out"], "there is no folder nowhere"),
        (None, ["one", "--to", "text.txt"], "text.txt is a file); choose another --to"),
        (lambda path: shutil.rmtree(path.parent), ["one", "--to", "out"], "one has no checkpoint yet"),
        (lambda path: shutil.rmtree(path.parent.parent / FOLDER), ["one", "--to", "out"], "one has no model/networks.json"),
        (cut_off_networks, ["one", "--to", "out"], "one/model/networks.json is damaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_one_line(run, place, export, alter, arguments, said):
    for name in ("one", "moved"):
        shutil.rmtree(place / name, ignore_errors=True)
    shutil.copytree(run, place / "one", ignore=shutil.ignore_patterns("discriminator", "generator"))
    newest = checkpoint.path_of(place / "one" / run_folder.CHECKPOINTS, 4)
    shutil.copytree(newest, place / "moved" / newest.name)
    shutil.copytree(run / "generator", place / "moved" / "generator")
    if alter:
        alter(newest)
    code, _, err = export(*arguments)
    assert (code, err.count("\n")) == (2, 1) and said in err, err
    assert not (place / "out" / "discriminator").exists()


def test_a_checkpoint_that_goes_away_while_it_is_read(run, place):
    copied = shutil.copytree(run, place / "pruned", ignore=shutil.ignore_patterns("discriminator", "generator"))
    path = checkpoint.path_of(copied / run_folder.CHECKPOINTS, 4)
    checkpoint.verify(path)
    (path / state.MODEL_FILE).unlink()
    with pytest.raises(run_folder.UserError, match="went away while it was read"):
        export_checkpoint(path, place / "gone")


def error_line(err: str) -> str:
    """The only line beside progress bars of transformers, which this process has loaded before they were switched off."""
    (line,) = [line for line in err.splitlines() if line.strip() and "model shards" not in line]
    return line


def test_pushing_without_a_network_is_one_line(run, place, export, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, out, err = export("run", "--to", "pushed", "--push_to_hub", "me/books")
    assert code == 2 and error_line(err).startswith("error: --push_to_hub me/books: Cannot reach"), err
    assert (place / "pushed" / "discriminator" / "README.md").exists()
    code, _, err = export("run", "--to", "named", "--push_to_hub", "no good name/books/x")
    assert code == 2 and error_line(err).startswith("error: --push_to_hub no good name/books/x: "), err


def test_the_story_of_real_runs(run, place, monkeypatch, capfd):
    code, out, err = run_here(["run", "run", "--json", "story.json"], place, monkeypatch, capfd, "adaptation.py")
    assert code == 0, err
    told = json.loads((place / "story.json").read_text("utf-8"))
    judged = [record for record in run_folder.read_jsonl(run / run_folder.METRICS) if "eval/auc" in record]
    change = told[0]["domain"]["auc"]
    assert (change["before"], change["after"]) == (judged[0]["eval/auc"], judged[-1]["eval/auc"])
    assert f"{change['before']:.4f} -> {change['after']:.4f}" in out and told[0]["verdict"] in out
    (compared,) = [line.split()[-2:] for line in out.splitlines() if "compares with the first run" in line]
    assert compared == ["–", "yes"] and "the held-out text is small" in out
    code, out, err = run_here(["run"], place, monkeypatch, capfd, "adaptation.py")
    assert code == 0 and out.count("better") == out.count("is better") + 1, "one verdict"
    code, _, err = run_here(["checkpoints"], run, monkeypatch, capfd, "adaptation.py")
    assert (code, err.count("\n")) == (2, 1) and "is not the folder of a run" in err
