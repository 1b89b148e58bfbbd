"""detect.py on a real, if very short, run with a corrective head: what should stand in place of a token called replaced is what
stock transformers says. The run itself showed and exported its head."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer, ElectraForMaskedLM, ElectraForPreTraining

from electra_accel.reports.detect import Detector, Reading
from electra_accel.reports.detect_inputs import exported_networks
from electra_accel.reports.detect_views import CORRECTED_LEGEND, LEGEND, html, terminal_lines
from electra_accel.runs import run_folder
from electra_accel.runs.export import corrector_beside
from electra_accel.tracking.samples import CORRECTED_LEGEND as SAMPLES_LEGEND
from electra_accel.tracking.samples import Reconstruction, join
from tests.helpers import run_in_process
from tests.pretraining_runs import metrics, options, run_here, write_corpus

MAX_LENGTH = 24
WRONG = "The module are imported by a statements of the language."
TEXTS = ["The name of the module is [MASK] in the import [MASK].", "class", WRONG]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with a finished run ``run``, the same as ``plain`` without its corrector and as ``sure`` with half
    of the tokens called replaced, and folders with one fault each."""
    folder = tmp_path_factory.mktemp("detect")
    write_corpus(folder / "text.txt", most=400)
    short = {
        "train__steps": 4,
        "optim__warmup_steps": 1,
        "data__max_length": MAX_LENGTH,
        "train__batch_tokens": 20 * MAX_LENGTH,
        "eval__batches": 1,
        "objective__corrective_weight": 50,
    }
    words = options("text.txt", folder / "run", **short)
    done = run_in_process("pretrain.py", *words, cwd=folder, WANDB_MODE="disabled")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "said.txt").write_text(done.stdout)
    for copy, without in (("plain", "corrector"), ("sure", "no such folder")):
        shutil.copytree(folder / "run", folder / copy, ignore=shutil.ignore_patterns("checkpoints", without))
    call_half_replaced(folder / "sure" / "discriminator")
    (folder / "half" / "corrector").mkdir(parents=True)
    renumber(shutil.copytree(folder / "run" / "corrector", folder / "foreign" / "corrector"))
    return folder


@torch.no_grad()
def call_half_replaced(folder) -> None:
    network = ElectraForPreTraining.from_pretrained(folder).eval()
    logits = network(**AutoTokenizer.from_pretrained(folder)(WRONG, return_tensors="pt")).logits[0, 1:-1]
    network.discriminator_predictions.dense_prediction.bias -= logits.median()
    network.save_pretrained(folder)


def renumber(folder) -> None:
    """Two tokens of a vocabulary change places."""
    tokens = (folder / "vocab.txt").read_text("utf-8").splitlines()
    tokens[-2:] = tokens[:-3:-1]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", "utf-8")
    described = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    described["model"]["vocab"] = {token: number for number, token in enumerate(tokens)}
    (folder / "tokenizer.json").write_text(json.dumps(described), "utf-8")


@pytest.fixture
def detect(place, monkeypatch, capfd):
    return lambda *arguments: run_here(arguments, place, monkeypatch, capfd, "detect.py")


@torch.no_grad()
def corrected_by_transformers(run, tokens: list[str], probability: list[float]) -> list[dict]:
    """What should stand in place of tokens called replaced, by nothing but transformers."""
    tokenizer = AutoTokenizer.from_pretrained(run / "corrector")
    ids = tokenizer.convert_tokens_to_ids(["[CLS]", *tokens, "[SEP]"])
    corrector = ElectraForMaskedLM.from_pretrained(run / "corrector").eval()
    shares = corrector(torch.tensor([ids])).logits[0, 1:-1].softmax(-1)
    found = []
    for place in (place for place, p in enumerate(probability) if p > 0.5):
        best = shares[place].topk(3)
        words = tokenizer.convert_ids_to_tokens(best.indices.tolist())
        best = [dict(token=w, probability=pytest.approx(p, abs=1e-5)) for w, p in zip(words, best.values.tolist())]
        found.append({"token": place, "candidates": best})
    return found


def test_what_should_stand_there_is_what_transformers_says(place, detect, monkeypatch):
    """Of tokens called replaced and of no others, also at a [MASK] and in the pieces of a long text."""
    code, out, err = detect("--run", "sure", "--json", *TEXTS)
    assert code == 0, err
    records = [json.loads(line) for line in out.splitlines()]
    for record in records:
        expected = corrected_by_transformers(place / "sure", record["tokens"], record["probability"])
        assert record["corrections"] == expected, record["text"]
    assert 0 < len(records[-1]["corrections"]) < len(records[-1]["tokens"])
    detector = Detector(*exported_networks(place / "sure"))
    long = detector.read(" ".join([WRONG] * 5), 1)
    called = [number for number, p in enumerate(long.probability) if p > 0.5]
    assert long.pieces > 1 and [number for number, _ in long.corrections] == called
    given = "--discriminator", "sure/discriminator", "--generator", "sure/generator"
    assert detect(*given, "--json", *TEXTS) == (code, out, err)
    monkeypatch.chdir(place / "sure" / "discriminator")
    assert corrector_beside(".") == str(place / "sure" / "corrector")
    assert corrector_beside("google/electra-small-discriminator") is None, "on the hub nothing is beside it"


def test_without_a_corrector_all_is_as_it_was(place, detect):
    """It says the same of replaced tokens and masks, and no word of what should stand there."""
    *known, corrected = (detect("--run", run, "--json", *TEXTS) for run in ("plain", "run"))
    records, more = ([json.loads(line) for line in said[1].splitlines()] for said in (*known, corrected))
    assert all(record.pop("corrections") is not None for record in more) and records == more
    said = detect("--run", "plain", *TEXTS)
    assert said[0] == 0 and said[1].startswith(LEGEND + "\n") and "instead" not in said[1]
    arguments = "--discriminator", "plain/discriminator", "--generator", "plain/generator"
    assert detect(*arguments, *TEXTS) == said
    assert detect(*arguments, "--corrector", "run/corrector", *TEXTS)[1].startswith(LEGEND + CORRECTED_LEGEND + "\n")


@pytest.mark.parametrize(
    ("folder", "why"), [("half", "config.json"), ("foreign", "another vocabulary"), ("sure", "another encoder")]
)
def test_a_corrector_that_nobody_named_is_left_out_where_it_cannot_be_used(place, detect, tmp_path, folder, why):
    run = shutil.copytree(place / "plain", tmp_path / "run")
    shutil.copytree(place / folder / "corrector", run / "corrector")
    if folder == "sure":
        shutil.copytree(place / "sure" / "generator", run / "corrector", dirs_exist_ok=True)
    expected = detect("--run", "plain", "--json", *TEXTS)[1]
    for words in (["--run", run], ["--discriminator", run / "discriminator", "--generator", run / "generator"]):
        code, out, err = detect(*words, "--json", *TEXTS)
        assert (code, out) == (0, expected)
        assert [why in line for line in err.splitlines() if line.startswith("nothing is corrected: ")] == [True]


def test_the_run_showed_and_exported_its_corrections(place):
    said, samples = (place / "said.txt").read_text("utf-8"), run_folder.read_jsonl(place / "run" / run_folder.SAMPLES)
    assert all(len(sample["corrected"]) == len(sample["selected"]) for sample in samples)
    corrected = join(Reconstruction.from_record(samples[-1]).corrected_pieces())
    lines = [line for line in said.splitlines() if line.startswith(("  input    : ", "  output   : ", "  corrected: "))]
    assert len(lines) == 3 * len(samples) and lines[-1] == f"  corrected: {corrected}"
    assert said.count(SAMPLES_LEGEND) == 2, "at the start and at the end"
    assert "run/corrector       that encoder with an LM head" in said
    assert "<dt>corrected</dt>" in (place / "run" / "report.html").read_text("utf-8")


def test_saved_networks_are_judged_by_their_corrective_loss_too(place, monkeypatch, capfd):
    """As the run was at its end, from its folders and from its checkpoint; none where the corrector is gone."""
    at_end = [record for record in metrics(place / "run") if "eval/corrective_loss" in record][-1]
    expected = {name[5:]: value for name, value in at_end.items() if name.startswith("eval/corrective") and value}
    shutil.copytree(place / "run", place / "stopped")
    for name in (run_folder.STATUS, "corrector", "discriminator"):
        file = place / "stopped" / name
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    for run in ("run", "stopped"):
        words = "--run", run, "--held_out", "--json", f"{run}.json"
        code, out, err = run_here(words, place, monkeypatch, capfd, "evaluate.py")
        assert code == 0 and "corrective loss" in out, err
        found = run_folder.read_json(place / f"{run}.json")["eval"]
        assert len(expected) > 1 and {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    shutil.copytree(place / "plain", place / "older")
    shutil.copytree(place / "run" / "generator", place / "older" / "corrector")
    for run in ("plain", "older"):
        code, out, err = run_here(["--run", run, "--held_out", "run"], place, monkeypatch, capfd, "evaluate.py")
        assert code == 0 and "generator loss" in out and "corrective" not in out, err
        assert ("judged without the corrector" in out) == (run == "older")


def test_a_followed_sentence_is_corrected_too(place, monkeypatch, capfd):
    code, out, err = run_here(
        ["--run", "run", "The name of a module."], place, monkeypatch, capfd, "follow_sentence.py"
    )
    assert code == 0, err
    weights, losses = zip(*(map(float, pair) for pair in re.findall(r"([\d.]+) x ([\d.]+)", out.splitlines()[-1])))
    assert weights == (1, 10, 50) and f"= {losses[2]:.4f}" in out
    total = sum(weight * loss for weight, loss in zip(weights, losses))
    assert float(out.split()[-1]) == pytest.approx(total, abs=0.01)
    [originally] = re.findall(r"originally (\S+), says", out)
    assert originally in "The name of a module ."


READING = Reading(
    text="책 <script>alert(1)</script>",
    tokens=["책", "##이", "<script>", "\x1b[31m", "a" * 30],
    probability=[0.04, 0.51, 0.5, 0.97, 1.0],
    candidates=[(2, [("<script>", 0.6), ("b", 0.1)])],
    pieces=1,
)
CORRECTED = replace(READING, corrections=[(1, [("##을", 0.7), ("x", 0.2)]), (3, [("<i>", 0.9)]), (4, [("\x1bb", 1)])])


def test_what_should_stand_there_follows_the_lines():
    lines = [line.plain for line in terminal_lines(CORRECTED, width=30)]
    assert lines[:5] == [line.plain for line in terminal_lines(READING, width=30)]
    assert lines[5:] == [
        "  ##이! as token 2, instead: ##을 0.70  x 0.20",
        "  \ufffd[31m! as token 4, instead: <i> 0.90",
        f"  {'a' * 30}! as token 5, instead: \ufffdb 1.00",
    ]


def test_the_page_tells_what_should_stand_there():
    page, without = html([READING, CORRECTED]), html([READING])
    assert "<td>##이</td><td>##을 0.70, x 0.20</td>" in page and "<i>" not in page
    assert "the discriminator would put ##을" in page and "in place of those that it calls replaced" in page
    assert not any(word in without for word in ("would put", "instead", "calls replaced"))
    assert without.count("<table") == 1 and page.count("<table") == 3


MISTAKES = {
    "a corrector beside a run": (["--run", "run", "--corrector", "x", "a"], ["--corrector"]),
    "a corrector without files": (
        ["--discriminator", "run/discriminator", "--corrector", "half/corrector", "a"],
        ["half/corrector", "config.json"],
    ),
    "another vocabulary": (
        ["--discriminator", "run/discriminator", "--corrector", "foreign/corrector", "a"],
        ["foreign/corrector", "another vocabulary"],
    ),
    "another encoder": (
        ["--discriminator", "plain/discriminator", "--corrector", "run/generator", "a"],
        ["--corrector: run/generator has another encoder", "plain/discriminator"],
    ),
    "not a corrector": (
        ["--discriminator", "plain/discriminator", "--corrector", "run/discriminator", "a"],
        ["--corrector: run/discriminator is no ElectraForMaskedLM"],
    ),
    "no such corrector": (
        ["--discriminator", "plain/discriminator", "--corrector", "./nowhere", "a"],
        ["--corrector: there is no folder ./nowhere"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(detect, name):
    arguments, words = MISTAKES[name]
    code, _, err = detect(*arguments)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err
