"""What stands in exported folders: stock transformers, in a process without our package, gives our module's logits; cards and
origin tell names and numbers; the cards' code runs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F

from electra_accel.data.prepare import Prepared, prepare
from electra_accel.engines import state
from electra_accel.errors import UserError
from electra_accel.model.fingerprint import network_fingerprint
from electra_accel.model.mlm import MaskedLanguageModeling
from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.model.sharing import share
from electra_accel.pretraining.config import Config
from electra_accel.pretraining.config_parser import dump
from electra_accel.pretraining.exporting import export_checkpoint, export_run
from electra_accel.pretraining.model_identity import FOLDER, NETWORKS, TEXT, networks_of, write_model_identity
from electra_accel.pretraining.progress import Progress
from electra_accel.pretraining.saved_pairs import run_pair
from electra_accel.reports.report import write_report
from electra_accel.runs import checkpoint, run_folder
from electra_accel.runs.export import ORIGIN, WHAT
from electra_accel.text.corpus import Corpus
from tests.engines.saving import save_state
from tests.model.batches import pack_examples, toy_examples, toy_pair
from tests.pretraining_runs import write_corpus

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
    ids = tokens["corrupted" if os.path.basename(folder) in ("generator", "encoder") else "input"]
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


def trained(kind: str, corrective: bool = False) -> torch.nn.Module:
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
        module = ReplacedTokenDetection(generator, discriminator, corrective=corrective)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return module.eval()


def write_run(folder: Path, module: torch.nn.Module, kind: str, prepared: Prepared, **model: str) -> Path:
    """A run folder around one checkpoint of ``module``, as training leaves it; without a record of its figures."""
    config = Config()
    config.data.train_files, config.model.size, config.objective.mask_prob = ["/secret/place/books.csv"], "tiny", 0.15
    config.objective.kind, config.model.sharing = ("mlm", "tied") if kind == "mlm" else ("rtd", kind)
    config.objective.corrective_weight = 50.0 * (getattr(module, "corrector", None) is not None)
    config.train.batch_tokens = 1024
    for name, value in model.items():
        setattr(config.model, name, value)
    folder.mkdir(parents=True)
    run_folder.write_atomically(folder / run_folder.CONFIG, dump(config))
    write_model_identity(folder, module, prepared)
    partial = checkpoint.begin(folder / run_folder.CHECKPOINTS, 7)
    save_state(partial, state.Parts(module, torch.optim.AdamW(module.parameters())), "AdamW")
    run_folder.write_json(partial / checkpoint.STATE, Progress("data", step=7, tokens=7000).to_json())
    return checkpoint.commit(folder / run_folder.CHECKPOINTS, 7)


def test_stock_transformers_gives_the_modules_logits(tmp_path, prepared):
    """For each way of sharing, with a corrective head, and for one network alone; there the cards' code runs too."""
    example = toy_examples(1, shortest=20)[0]
    batch, _ = pack_examples([example])
    tokens = {"input": example.tokens, "corrupted": example.corrupted, "types": example.token_types}
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    modules, folders = {}, []
    for kind in KINDS:
        modules[kind] = trained(kind, corrective=kind != "mlm")
        names = export_checkpoint(write_run(tmp_path / kind, modules[kind], kind, prepared), tmp_path / f"{kind}-out")
        assert names == (["encoder"] if kind == "mlm" else ["generator", "discriminator", "corrector"])
        folders += [tmp_path / f"{kind}-out" / name for name in names]
    command = [sys.executable, "-I", "-c", STOCK, tmp_path / "tokens.json", *folders]
    done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    length, selected = len(example.tokens), torch.tensor(example.selected)
    for kind in KINDS:
        said = []
        if kind != "mlm":
            modules[kind].corrector.register_forward_hook(lambda head, inputs, logits, said=said: said.append(logits))
        with torch.no_grad():
            output = modules[kind](batch, batch.slot_labels)  # nothing is replaced
        used = batch.slot_used[0]
        loaded = {name: tmp_path / f"{kind}-out" / name / "logits.npy" for name in WHAT}
        loaded = {name: torch.from_numpy(np.load(file)) for name, file in loaded.items() if file.exists()}
        if kind != "mlm":
            theirs = output.discriminator_logits[0, :length]
            torch.testing.assert_close(loaded["discriminator"], theirs, atol=1e-5, rtol=0)
            torch.testing.assert_close(loaded["corrector"][selected], said[0][0][used], atol=1e-5, rtol=0)
        at_slots = loaded["encoder" if kind == "mlm" else "generator"][selected]
        loss = F.cross_entropy(at_slots, torch.tensor(example.tokens)[selected], reduction="sum")
        torch.testing.assert_close(loss, output.generator_loss_sum, atol=1e-4, rtol=0)
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
    origin = json.loads((tmp_path / "out" / "discriminator" / ORIGIN).read_text("utf-8"))
    assert (origin["network"], origin["run"], origin["step"]) == ("discriminator", "run", 7)
    assert origin["licence"] == "apache-2.0"
    assert origin["base_models"] == dict.fromkeys(("discriminator", "encoder"), "google/electra-base-discriminator")
    assert all(f"| {heading} | {fact} |" in card for heading, fact in origin["facts"].items())
    assert "/secret" not in str(origin) and str(tmp_path) not in str(origin)
    shutil.rmtree(tmp_path / "a")
    export_checkpoint(path, tmp_path / "plain")
    assert str(tmp_path) not in (tmp_path / "plain" / "generator" / ORIGIN).read_text("utf-8"), "also when it is gone"
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


def files_of(folder: Path) -> dict[str, bytes]:
    """What a network is, with its tokenizer; without what tells of the run."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name not in (ORIGIN, "README.md")}


def test_a_corrector_stands_beside_the_other_two_and_changes_neither(tmp_path, prepared):
    """After a run, its folder holds only its own networks. Exports of an earlier run there are removed."""
    with_head, without = trained("gdes", corrective=True), trained("gdes")
    without.load_state_dict(with_head.state_dict(), strict=False)
    export_checkpoint(write_run(tmp_path / "run", without, "gdes", prepared), tmp_path / "without")
    head = write_run(tmp_path / "head", with_head, "gdes", prepared, discriminator="me/d", generator="me/g", size=None)
    assert export_checkpoint(head, tmp_path / "run")[-1] == "corrector"
    for name in ("generator", "discriminator"):
        assert files_of(tmp_path / "run" / name) == files_of(tmp_path / "without" / name)
    config, same = (run_folder.read_json(tmp_path / "run" / n / "config.json") for n in ("corrector", "discriminator"))
    assert config.pop("architectures") == ["ElectraForMaskedLM"] and same.pop("architectures")
    assert config == same and config["attention_probs_dropout_prob"] == 0.1
    card = (tmp_path / "run" / "corrector" / "README.md").read_text("utf-8")
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "me/d"
    assert "without [MASK]" in card and "naming the original tokens with weight 50" in card
    assert run_pair(tmp_path / "head").step == 7, "the other two are judged"

    mine = tmp_path / "run" / "encoder"
    mine.mkdir()
    alone, progress = SimpleNamespace(on_main=lambda call: call()), Progress("data", step=7)
    assert export_run(Config(), alone, progress, tmp_path / "run", lambda *_: "", pytest.fail) == 7
    left = {file.name for file in (tmp_path / "run").iterdir()} & {*WHAT}
    assert left == {"generator", "discriminator", "encoder"} and mine.is_dir(), "what no run has written stays"


DAMAGES = {
    "cut off": lambda known: "{",
    "a list": lambda known: "[1]",
    "one of two": lambda known: known.pop("generator") and None,
    "a third": lambda known: known.update(another=known["generator"]),
    "no values": lambda known: known.update(discriminator=1),
    "no architecture": lambda known: known["generator"].pop("architectures") and None,
    "another architecture": lambda known: known["generator"].update(architectures=["BertModel"]),
    "architectures null": lambda known: known["generator"].update(architectures=None),
    "architectures a number": lambda known: known["generator"].update(architectures=7),
    "a number in quotes": lambda known: known["generator"].update(hidden_size="64"),
    "no width": lambda known: known["generator"].update(hidden_size=0),
    "heads that do not divide": lambda known: known["generator"].update(num_attention_heads=7),
    "an unknown activation": lambda known: known["generator"].update(hidden_act="gelu_fancy"),
    "more than memory can hold": lambda known: known["generator"].update(vocab_size=10**9),
    "more layers than a list can hold": lambda known: known["generator"].update(num_hidden_layers=10**9),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, prepared) -> Path:
    return write_run(tmp_path_factory.mktemp("whole") / "run", trained("tied"), "tied", prepared)


@pytest.mark.parametrize("damage", DAMAGES)
def test_networks_changed_by_hand_are_one_line(whole, damage):
    """model/networks.json of a run: what it says is checked before it takes memory."""
    folder = whole.parent.parent
    file = folder / FOLDER / NETWORKS
    before = file.read_text("utf-8")
    described = json.loads(before)
    try:
        file.write_text(DAMAGES[damage](described) or json.dumps(described))
        with pytest.raises(UserError, match=f"{file} is damaged") as caught:
            networks_of(folder, whole, "tied")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
        described = json.loads(before)
        described["generator"]["num_hidden_layers"] += 1
        file.write_text(json.dumps(described))
        with pytest.raises(UserError, match="its weights do not fit the model"):
            networks_of(folder, whole, "tied")
    finally:
        file.write_text(before)


def test_the_origin_is_no_part_of_what_a_network_is(whole, tmp_path):
    export_checkpoint(whole, tmp_path)
    folder = tmp_path / "discriminator"
    known = network_fingerprint(str(folder), None)
    (folder / ORIGIN).write_text("{}")
    assert network_fingerprint(str(folder), None) == known
    (folder / ORIGIN).unlink()
    assert network_fingerprint(str(folder), None) == known
