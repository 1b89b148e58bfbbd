"""Networks that compute what is no number: nothing of it is printed as if it were a figure, and JSON stays JSON."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from electra_accel.model.pair import build_pair
from tests.pretraining_runs import run_here, write_corpus
from tests.published import write_published
from tests.test_broken_pairs import WEIGHTS, WORD_TABLE, WORDS, tokenizer

LARGE = 3e38  # in fp32's range, but no sum of two of them
FOLDERS = {  # network and tensor, and what fills it
    "good": (None, None, None),
    "nan": ("discriminator", "electra.encoder.layer.1.output.dense.weight", float("nan")),
    "large-discriminator": ("discriminator", "discriminator_predictions.dense.weight", LARGE),
    "large-generator": ("generator", WORD_TABLE, LARGE),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("no-numbers")
    write_corpus(folder / "text.txt", most=60)
    shape = dict(vocab_size=len(WORDS), pad_token_id=0, max_length=128, generator_width=0.25, dropout=0.1, seed=1)
    write_published(build_pair("tiny", **shape), tokenizer(WORDS), folder / "good", "koelectra")
    for name, (network, tensor, value) in FOLDERS.items():
        if network:
            shutil.copytree(folder / "good", folder / name)
            file = folder / name / network / WEIGHTS
            tensors = load_file(file)
            tensors[tensor].fill_(value)
            save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.fixture
def run(place, monkeypatch, capfd):
    return lambda script, *arguments: run_here(arguments, place, monkeypatch, capfd, script)


def errors(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("error: ")]


def evaluate(run, place, pair, *more):
    networks = [f"--{network}={pair}/{network}" for network in ("generator", "discriminator")]
    code, out, err = run("evaluate.py", *networks, "--files", "text.txt", "--json", "out.json", *more)
    assert code == 0, err
    found = json.loads((place / "out.json").read_text(), parse_constant=pytest.fail)
    return found, out


def test_a_discriminator_whose_logits_are_nan(run, place):
    found, out = evaluate(run, place, "large-discriminator")
    for figures in (found["eval"], found["eval_own"]):
        known = {name for name, value in figures.items() if value is not None}
        assert known == {
            "generator_loss",
            "generator_accuracy",
            "generator_entropy",
            "generator_loss_se",
            "replaced_fraction",
        }
    assert "auc" not in found["standard_errors"]["eval"] and found["calibration"] == []
    [line] = [line for line in out.splitlines() if line.startswith("auc ")]
    assert line.split()[1:] == ["–", "–"] and "not finite" in out


def test_a_generator_whose_distribution_is_nan(run, place):
    """The discriminator is judged on the fixed corruption alone: what such a generator draws is no sample."""
    good, out = evaluate(run, place, "good")
    assert "not finite" not in out
    found, _ = evaluate(run, place, "large-generator")
    generator = {name for name in good["eval"] if name.startswith("generator")}
    assert {name for name, value in found["eval"].items() if value is None} == generator
    assert set(found["eval_own"].values()) == {None}
    assert found["held_out"] == good["held_out"]


def test_nothing_is_drawn_from_nan(run):
    networks = ["--generator=good/generator", "--discriminator=good/discriminator"]
    files = ["--files", "text.txt", "--reference_generator", "large-generator/generator"]
    code, _, err = run("evaluate.py", *networks, *files)
    assert code == 2 and len(errors(err)) == 1 and "--reference_generator: large-generator/generator" in err
    code, out, err = run(
        "detect.py", "--discriminator=good/discriminator", "--generator=large-generator/generator", "a [MASK]"
    )
    assert code == 2 and len(errors(err)) == 1 and "--generator: large-generator/generator" in err and out == ""


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_probability_that_is_none_is_not_told(run, form):
    code, out, err = run("detect.py", "--discriminator=large-discriminator/discriminator", "a text", *form)
    assert code == 2 and len(errors(err)) == 1 and "--discriminator: large-discriminator/discriminator" in err
    assert out == ""


def test_damaged_weights_are_named_by_every_script(run):
    pair = ["--generator=nan/generator", "--discriminator=nan/discriminator"]
    lines = {
        "detect.py": ["--discriminator=nan/discriminator", "a text"],
        "evaluate.py": [*pair, "--files", "text.txt"],
    }
    for script, arguments in lines.items():
        code, _, err = run(script, *arguments)
        assert code == 2 and len(errors(err)) == 1, err
        assert "nan/discriminator" in err and "encoder.layer.1.output.dense.weight" in err
