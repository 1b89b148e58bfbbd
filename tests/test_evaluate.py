"""evaluate.py on real, short runs: the figures that training logged, again; and pairs on one frozen corruption."""

import json
import shutil

import pytest

from electra_accel.runs import run_folder
from electra_accel.runs.export import ORIGIN
from tests.helpers import run_in_process
from tests.pretraining_runs import options, run_here, write_corpus

SHORT = {
    "train__steps": 8,
    "checkpoint__every": 3,
    "eval__every": 1000,
    "eval__batches": 2,
    "tracking__samples": "none",
}
FROM_A_PAIR = {
    "model__size": None,
    "model__generator_width": None,
    "tokenizer__train_vocab_size": None,
    "model__generator": "scratch/generator",
    "model__discriminator": "scratch/discriminator",
    "objective__mask_prob": 0.25,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with two finished runs on one text: ``scratch``, and ``pair`` that went on from its networks."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_corpus(folder / "text.txt", most=900)
    lines = (folder / "text.txt").read_text(encoding="utf-8").splitlines()
    (folder / "new.csv").write_text("sen\n" + "\n".join(f'"{line.replace(chr(34), "")}"' for line in lines[:150]))
    for run, changed in (("scratch", {}), ("pair", FROM_A_PAIR)):
        words = options("text.txt", run, **SHORT | changed)
        done = run_in_process("pretrain.py", *words, cwd=folder, WANDB_MODE="disabled")
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def evaluate(place, monkeypatch, capfd):
    """``evaluate("--run", …)`` -> what --json holds."""

    def call(*arguments) -> dict:
        code, out, err = run_here([*arguments, "--json", "out.json"], place, monkeypatch, capfd, "evaluate.py")
        assert code == 0, out + err
        return json.loads((place / "out.json").read_text(encoding="utf-8")) | {"printed": out}

    return call


def logged(run) -> dict:
    """The last evaluation that training logged."""
    return [record for record in run_folder.read_jsonl(run / run_folder.METRICS) if "eval/auc" in record][-1]


def same(one: dict, other: dict, but: tuple[str, ...] = ()) -> bool:
    return {name: one[name] for name in one if name not in but} == {
        name: other[name] for name in one if name not in but
    }


@pytest.mark.parametrize("run", ["scratch", "pair"])
def test_a_run_on_its_own_held_out_text_has_the_figures_that_it_logged(place, evaluate, run):
    before = {path: path.stat().st_mtime_ns for path in (place / run).rglob("*")}
    found, record = evaluate("--run", run, "--held_out"), logged(place / run)
    for kind in ("eval", "eval_own"):
        values = {name: value for name, value in found[kind].items() if f"{kind}/{name}" in record}
        assert len(values) >= 12
        for name, value in values.items():
            assert value == (None if (said := record[f"{kind}/{name}"]) is None else pytest.approx(said, abs=1e-6)), (
                name
            )
    assert found["calibration"] == record["eval/calibration"]
    assert found["step"] == record["step"] and "as exported" in found["weights"]
    identity = json.loads((place / run / "held_out" / "held_out.json").read_text())
    assert same(identity, found["held_out"])
    assert {path: path.stat().st_mtime_ns for path in (place / run).rglob("*")} == before, "a run is only read"


def test_two_runs_meet_on_the_corruption_of_one(evaluate):
    own, other = evaluate("--run", "pair", "--held_out"), evaluate("--run", "pair", "--held_out", "scratch")
    scratch = evaluate("--run", "scratch", "--held_out")
    assert own["held_out"]["corruption"] != other["held_out"]["corruption"], "drawn by a generator, and by frequency"
    assert same(scratch["held_out"], other["held_out"])
    assert own["eval"]["auc"] != other["eval"]["auc"]
    assert own["eval"]["generator_loss"] == pytest.approx(other["eval"]["generator_loss"], abs=1e-6), (
        "the same positions"
    )


def test_any_text_gives_every_pair_the_same_corruption(place, evaluate):
    text = ["--files", "new.csv", "--text_column", "sen"]
    scratch, pair = (evaluate("--run", run, *text) for run in ("scratch", "pair"))
    assert same(scratch["held_out"], pair["held_out"])
    assert scratch["eval"]["generator_loss"] != pair["eval"]["generator_loss"]
    folders = ["--generator", "scratch/generator", "--discriminator", "scratch/discriminator", "--max_length", 64]
    assert same(scratch["eval"], evaluate(*folders, *text)["eval"]), "equal weights, equal figures"
    counts = scratch["held_out"]
    assert counts["replacements"] == "token frequency of this text" and counts["mask_prob"] == 0.15
    assert counts["selected"] / counts["judged"] == pytest.approx(0.15, abs=0.01)
    assert scratch["eval"]["replaced_fraction"] == counts["replaced"] / counts["judged"]
    again = [evaluate("--run", "scratch", *text, *other) for other in (["--seed", 2], ["--mask_prob", 0.3])]
    assert len({found["held_out"]["corruption"] for found in [scratch, *again]}) == 3
    assert again[1]["held_out"]["selected"] == pytest.approx(2 * counts["selected"], rel=0.02)


def test_a_reference_generator_draws_the_replacements(evaluate):
    """The pair's own generator as reference: then the fixed corruption is what it is judged by as its own."""
    text = ["--files", "new.csv", "--text_column", "sen", "--reference_generator", "scratch/generator"]
    scratch, pair = (evaluate("--run", run, *text) for run in ("scratch", "pair"))
    assert same(scratch["held_out"], pair["held_out"])
    assert scratch["held_out"]["replacements"] == "generator scratch/generator"
    assert same(scratch["eval_own"], scratch["eval"]) and not same(pair["eval_own"], pair["eval"])


def test_the_table_shows_figures_and_their_errors(evaluate):
    found = evaluate("--run", "scratch", "--held_out")
    lines = {line[:24].strip(): line[24:].split() for line in found["printed"].splitlines()}
    for name in ("generator_loss", "discriminator_accuracy", "auc"):
        cells = [found["eval"][name], found["standard_errors"]["eval"][name]]
        cells += [found["eval_own"][name], found["standard_errors"]["eval_own"][name]]
        assert lines[name.replace("_", " ")] == [f"{cell:.4f}" for cell in cells]
    assert f"{found['held_out']['corruption']}: {found['held_out']['selected']:,} tokens selected" in found["printed"]
    assert set(found["standard_errors"]["eval"]) <= set(found["eval"])


def test_an_unfinished_run_is_judged_by_its_newest_whole_checkpoint(place, evaluate):
    whole = evaluate("--run", "scratch", "--held_out")
    shutil.copytree(place / "scratch", place / "running")
    run_folder.write_status(place / "running", "running", 8)
    found = evaluate("--run", "running", "--held_out")
    assert found["step"] == 8 and "checkpoints/step-00000008" in found["weights"]
    assert same(whole["eval"], found["eval"])
    shutil.copytree(place / "pair", place / "alone" / "pair")
    run_folder.write_status(place / "alone" / "pair", "running", 8)
    shutil.move(place / "scratch", place / "gone")  # that pair started from it
    try:
        assert same(
            evaluate("--run", "pair", "--held_out")["eval"], evaluate("--run", "alone/pair", "--held_out")["eval"]
        )
    finally:
        shutil.move(place / "gone", place / "scratch")
    weights = place / "running" / "checkpoints" / "step-00000008" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    found = evaluate("--run", "running", "--held_out")
    assert found["step"] == 6 and "is damaged" in found["printed"] and not same(whole["eval"], found["eval"])


def test_an_export_of_an_older_version_does_not_say_its_step(place, evaluate):
    whole = evaluate("--run", "scratch", "--held_out")
    shutil.copytree(place / "scratch", place / "older")
    (place / "older" / "discriminator" / ORIGIN).unlink()
    found = evaluate("--run", "older", "--held_out")
    assert (
        found["step"] is None and found["weights"].startswith("the last weights") and same(whole["eval"], found["eval"])
    )


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"step": "8", "chosen": "the last"}', '{"step": 8}', '{"chosen": "x"}', "\0"]
)
def test_a_damaged_origin_is_one_line(place, content, monkeypatch, capfd):
    shutil.copytree(place / "scratch", place / "damaged", dirs_exist_ok=True)
    (place / "damaged" / "discriminator" / ORIGIN).write_text(content)
    code, _, err = run_here(["--run", "damaged", "--held_out"], place, monkeypatch, capfd, "evaluate.py")
    assert code == 2 and err.count("\n") == 1 and f"damaged/discriminator/{ORIGIN} is damaged" in err


MISTAKES = {
    "no pair": (["--files", "text.txt"], ["--run", "--generator"]),
    "half a pair": (["--generator", "scratch/generator", "--files", "text.txt"], ["--discriminator"]),
    "no text": (["--run", "scratch"], ["--files", "--held_out"]),
    "two texts": (["--run", "scratch", "--files", "text.txt", "--held_out"], ["--files", "--held_out"]),
    "a share for a stored corruption": (["--run", "scratch", "--held_out", "--mask_prob", ".2"], ["--mask_prob"]),
    "mask_prob": (["--run", "scratch", "--files", "text.txt", "--mask_prob", "2"], ["--mask_prob", "2"]),
    "no run": (["--run", "empty", "--files", "text.txt"], ["empty", "config.yaml"]),
    "no weights yet": (["--run", "begun", "--files", "text.txt"], ["--run begun", "checkpoint"]),
    "no such file": (["--run", "scratch", "--files", "nowhere.txt"], ["nowhere.txt"]),
    "wrong column": (["--run", "scratch", "--files", "new.csv"], ["new.csv", "sen"]),
    "too long": (["--run", "scratch", "--files", "text.txt", "--max_length", "600"], ["600", "512"]),
    "a discriminator as generator": (
        ["--run", "scratch", "--files", "text.txt", "--reference_generator", "scratch/discriminator"],
        ["--reference_generator", "scratch/discriminator"],
    ),
    "another vocabulary": (
        ["--run", "scratch", "--files", "text.txt", "--reference_generator", "other/generator"],
        ["--reference_generator", "other/generator has another vocabulary", "id 900"],
    ),
    "another tokenizer": (
        ["--generator", "other/generator", "--discriminator", "other/discriminator", "--held_out", "scratch"],
        ["another tokenizer", "scratch"],
    ),
    "no corruption": (["--run", "scratch", "--held_out", "begun"], ["begun", "held_out.npy"]),
    "JSON in no folder": (["--run", "scratch", "--held_out", "--json", "nowhere/x.json"], ["--json nowhere/x.json"]),
}


@pytest.fixture(scope="module")
def faults(place):
    """Runs and a pair with one fault each, beside the good ones."""
    (place / "empty").mkdir()
    (place / "begun").mkdir()
    shutil.copy(place / "scratch" / run_folder.CONFIG, place / "begun")
    for network in ("generator", "discriminator"):
        swap_two_tokens(shutil.copytree(place / "scratch" / network, place / "other" / network) / "tokenizer.json")


def swap_two_tokens(file):
    """In a tokenizer.json: a vocabulary of the same size, in which two ids mean something else."""
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    one, two = (next(token for token, number in vocab.items() if number == wanted) for wanted in (900, 901))
    vocab[one], vocab[two] = vocab[two], vocab[one]
    file.write_text(json.dumps(tokenizer), encoding="utf-8")


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(place, faults, name, monkeypatch, capfd):
    arguments, words = MISTAKES[name]
    code, _, err = run_here(arguments, place, monkeypatch, capfd, "evaluate.py")
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err


def test_a_text_that_has_changed_is_refused(place, monkeypatch, capfd):
    shutil.copytree(place / "scratch", place / "moved" / "scratch")
    (place / "moved" / "text.txt").write_text((place / "new.csv").read_text(encoding="utf-8"), encoding="utf-8")
    code, _, err = run_here(["--run", "scratch", "--held_out"], place / "moved", monkeypatch, capfd, "evaluate.py")
    assert code == 2 and "the text of scratch has changed" in err
