"""Exports: stock transformers, in a process without our package, gives our module's logits; the cards' code runs; checkpoints
are exported while a run goes on."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F

from electra_accel.data.prepare import Prepared, prepare
from electra_accel.engines import sharded
from electra_accel.model.mlm import MaskedLanguageModeling
from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.model.sharing import share
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.config_parser import dump
from electra_accel.pretraining.exporting import export_checkpoint
from electra_accel.pretraining.model_identity import FOLDER, TEXT, write_model_identity
from electra_accel.pretraining.progress import Progress
from electra_accel.reports.report import write_report
from electra_accel.runs import checkpoint, run_folder
from electra_accel.runs.export import WHAT
from electra_accel.text.corpus import Corpus
from tests.model.batches import pack_examples, toy_examples, toy_pair
from tests.pretraining_runs import exported_weights, run_here, run_short, write_corpus

KINDS = ("tied", "none", "gdes", "mlm")
# Our package cannot be imported there; it is installed for whoever runs the tests.
STOCK = """
import json, os, re, sys
sys.modules["electra_accel"] = None
import numpy as np, torch, transformers
transformers.logging.set_verbosity_error()
tokens = {name: torch.tensor(ids) for name, ids in json.load(open(sys.argv[1])).items()}
for folder in sys.argv[2:]:
    os.chdir(folder)
    architecture = json.load(open("config.json"))["architectures"][0]
    model, found = getattr(transformers, architecture).from_pretrained(".", output_loading_info=True)
    assert not any(found.values()), found
    ids = tokens["input" if architecture == "ElectraForPreTraining" else "corrupted"]
    inputs = {"input_ids": ids[None], "token_type_ids": tokens["types"][None]}
    with torch.no_grad():
        np.save("logits.npy", model.eval()(**inputs).logits[0].numpy())
        encoder = transformers.AutoModel.from_pretrained(".").eval()
        assert torch.equal(encoder(**inputs)[0], model.electra(**inputs)[0])
    longest = transformers.AutoTokenizer.from_pretrained(".")("a " * 2000, truncation=True).input_ids
    assert len(longest) == model.config.max_position_embeddings
    code = re.findall("```python\\n(.*?)```", open("README.md").read(), re.DOTALL)
    assert len(code) == 4
    exec("".join(code), {})
    assert os.path.exists("electra/config.json")
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Prepared:
    place = tmp_path_factory.mktemp("text")
    write_corpus(place / "text.txt", most=60)
    text, limits = Corpus(files=(str(place / "text.txt"),)), {"max_length": 64, "eval_fraction": 0.1}
    return Prepared(prepare(place, text, {}, tokenizer=None, train_vocab_size=300, join_lines=False, **limits))


def trained(kind: str) -> torch.nn.Module:
    """A joint module whose every parameter is another than at its start; with tables that came apart where they may."""
    torch.manual_seed(1)
    generator, discriminator = toy_pair()
    for network in (generator, discriminator):
        copied = {name: tensor.clone() for name, tensor in network.electra.embeddings.state_dict().items()}
        network.electra.embeddings = type(network.electra.embeddings)(network.config)
        network.electra.embeddings.load_state_dict(copied)
    if kind == "mlm":
        share(generator, discriminator, "none")
        module = MaskedLanguageModeling(generator)
    else:
        share(generator, discriminator, kind)
        module = ReplacedTokenDetection(generator, discriminator)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return module.eval()


def write_run(folder: Path, module: torch.nn.Module, kind: str, prepared: Prepared, **model: str) -> Path:
    """A run folder around one checkpoint of ``module``, as training leaves it; without a record of its figures."""
    config = Config()
    config.data.train_files, config.model.size, config.objective.mask_prob = ["/secret/place/books.csv"], "tiny", 0.15
    config.objective.kind, config.model.sharing = ("mlm", "tied") if kind == "mlm" else ("rtd", kind)
    config.train.batch_tokens = 1024
    for name, value in model.items():
        setattr(config.model, name, value)
    folder.mkdir(parents=True)
    run_folder.write_atomically(folder / run_folder.CONFIG, dump(config))
    write_model_identity(folder, module, prepared)
    partial = checkpoint.begin(folder / run_folder.CHECKPOINTS, 7)
    sharded.save(partial, module, torch.optim.AdamW(module.parameters()), None, writes=True)
    run_folder.write_json(partial / checkpoint.STATE, Progress("data", step=7, tokens=7000).to_json())
    return checkpoint.commit(folder / run_folder.CHECKPOINTS, 7)


def test_stock_transformers_gives_the_modules_logits(tmp_path, prepared):
    """For each way of sharing, and for one network alone; there the code of the model cards runs too."""
    example = toy_examples(1, shortest=20)[0]
    batch, _ = pack_examples([example])
    tokens = {"input": example.tokens, "corrupted": example.corrupted, "types": example.token_types}
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    modules, folders = {}, []
    for kind in KINDS:
        modules[kind] = trained(kind)
        names = export_checkpoint(write_run(tmp_path / kind, modules[kind], kind, prepared), tmp_path / f"{kind}-out")
        assert sorted(names) == (["encoder"] if kind == "mlm" else ["discriminator", "generator"])
        folders += [tmp_path / f"{kind}-out" / name for name in names]
    command = [sys.executable, "-I", "-c", STOCK, tmp_path / "tokens.json", *folders]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    length, selected = len(example.tokens), torch.tensor(example.selected)
    for kind in KINDS:
        with torch.no_grad():
            output = modules[kind](batch, batch.slot_labels)  # nothing is replaced
        loaded = {name: tmp_path / f"{kind}-out" / name / "logits.npy" for name in WHAT}
        loaded = {name: torch.from_numpy(np.load(file)) for name, file in loaded.items() if file.exists()}
        if kind != "mlm":
            theirs = output.discriminator_logits[0, :length]
            torch.testing.assert_close(loaded["discriminator"], theirs, atol=1e-5, rtol=0)
        at_slots = loaded["encoder" if kind == "mlm" else "generator"][selected]
        loss = F.cross_entropy(at_slots, torch.tensor(example.tokens)[selected], reduction="sum")
        torch.testing.assert_close(loss, output.generator_loss_sum, atol=1e-4, rtol=0)
        used = batch.slot_used[0]
        assert torch.equal(at_slots.argmax(-1), output.generator_argmax[0][used])


def test_the_card_tells_names_and_numbers(tmp_path, prepared):
    pair = {"size": None, "discriminator": "google/electra-base-discriminator", "generator": str(tmp_path / "a" / "g")}
    (tmp_path / "a" / "g").mkdir(parents=True)
    path = write_run(tmp_path / "run", trained("tied"), "tied", prepared, **pair)
    export_checkpoint(path, tmp_path / "out", licence="apache-2.0", source="me/books")
    card = (tmp_path / "out" / "discriminator" / "README.md").read_text("utf-8")
    data = yaml.safe_load(card.split("---")[1])
    assert (data["license"], data["base_model"]) == ("apache-2.0", "google/electra-base-discriminator")
    assert "| started from | discriminator google/electra-base-discriminator, generator a/g |" in card
    assert f"| training text | books.csv: {prepared.manifest['splits']['train']['documents']:,} documents, " in card
    assert "| tokens seen | 7,000 in 7 steps of 1,024 token slots |" in card
    assert 'source = "me/books-discriminator"' in card
    assert "/secret" not in card and str(tmp_path) not in card
    export_checkpoint(path, tmp_path / "plain")
    card = (tmp_path / "plain" / "generator" / "README.md").read_text("utf-8")
    data = yaml.safe_load(card.split("---")[1])
    assert "license" not in data and "base_model" not in data, "a folder of this machine is nobody's base model"
    assert "| licence | not stated |" in card


def test_the_card_counts_what_came_before_and_beside(tmp_path, prepared):
    """General text in data.prepared has no file names, a branch has no record of the warm start; the page tells of tokens."""
    given = {"size": None, "discriminator": "me/d", "generator": "warm-start", "warm_start_steps": 3}
    path = write_run(tmp_path / "run", trained("tied"), "tied", prepared, **given)
    added = {"added": 40, "tokens_before": 1000, "tokens_after": 950}
    counts = {"train": {"documents": 9, "tokens": 90}, "replay": {"documents": 7, "tokens": 70}, "vocabulary": added}
    run_folder.write_json(tmp_path / "run" / FOLDER / TEXT, counts)
    export_checkpoint(path, tmp_path / "branch")
    card = (tmp_path / "branch" / "generator" / "README.md").read_text("utf-8")
    assert "| general text mixed in | 7 documents, 10% of the tokens of a pass |" in card
    assert "| warm start of the generator | 3 steps: its cost was not recorded |" in card
    assert "| vocabulary | 40 tokens added, 5.0% fewer tokens of training text |" in card
    (tmp_path / "run" / run_folder.WARM_START).mkdir()
    spent = {"step": 3, "train/tokens": 20_015, "train/hours": 0.05}
    run_folder.append_jsonl(tmp_path / "run" / run_folder.WARM_START / run_folder.METRICS, spent)
    export_checkpoint(path, tmp_path / "whole")
    card = (tmp_path / "whole" / "generator" / "README.md").read_text("utf-8")
    assert "| 3 steps: 20,015 tokens in 3m00s, beside the run's |" in card
    page = write_report(tmp_path / "run").read_text("utf-8")
    assert "40 tokens added, 5.0% fewer" in page and "20,015 tokens in 3m00s" in page


def test_a_warm_started_generator_is_exported_as_such(tmp_path, prepared):
    path = write_run(
        tmp_path / "run", trained("mlm"), "mlm", prepared, generator="warm-start", discriminator="me/d", size=None
    )
    assert export_checkpoint(path, tmp_path / "out") == ["generator"]
    assert "| started from | discriminator me/d, generator none, one was trained first |" in (
        tmp_path / "out" / "generator" / "README.md"
    ).read_text("utf-8")


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
    code, _, err = export("going on/checkpoints/step-00000002", "--to", "older", "--licence", "mit")
    assert code == 0, err
    assert exported_weights(place / "older") != exported_weights(run)
    card = (place / "older" / "discriminator" / "README.md").read_text("utf-8")
    judged = [record for record in run_folder.read_jsonl(run / run_folder.METRICS) if "eval/auc" in record]
    assert "| step 0 | step 2 |" in card and f"{judged[1]['eval/auc']:.4f}" in card
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before


def damage(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"0" * 100)


@pytest.mark.parametrize(
    ("alter", "arguments", "said"),
    [
        (None, ["one/checkpoints/step-00000001", "--to", "out"], "is neither the folder of a run nor a whole checkpoint"),
        (damage, ["one/checkpoints/step-00000004", "--to", "out"], "model.safetensors has 100 bytes"),
        (None, ["moved/step-00000004", "--to", "out"], "stands in no run folder"),
        (None, ["one", "--to", "run"], "run/discriminator exists already"),
        (None, ["run/discriminator", "--to", "out"], "run/discriminator is an export already"),
        (None, ["moved", "--to", "out"], "moved is an export already"),
        (None, ["nowhere", "--to", "out"], "there is no folder nowhere"),
        (None, ["one", "--to", "text.txt"], "text.txt is a file); choose another --to"),
        (lambda path: shutil.rmtree(path.parent), ["one", "--to", "out"], "one has no checkpoint yet"),
        (lambda path: shutil.rmtree(path.parent.parent / FOLDER), ["one", "--to", "out"], "one has no model/networks.json"),
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
    (path / sharded.MODEL_FILE).unlink()
    with pytest.raises(run_folder.UserError, match="went away while it was read: the run keeps only its newest"):
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
