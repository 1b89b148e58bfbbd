"""docs/from-the-tutorial.ko.md: its commands run on two small csv files, its options exist, and `.electra` is what it says."""

import csv
import re
import shlex
from pathlib import Path

import pytest
import safetensors.torch
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, ElectraForPreTraining

from electra_accel.finetuning import config
from electra_accel.model.pair import build_pair
from electra_accel.options.declare import flatten
from electra_accel.pretraining import config_checks
from electra_accel.pretraining.config import Config, resolve
from electra_accel.pretraining.config_parser import load, parse
from electra_accel.runs import run_folder
from electra_accel.text.tokenizer import train_tokenizer
from tests.helpers import ROOT, run_command
from tests.pretraining_runs import run_here
from tests.published import write_published

PAGE = (ROOT / "docs" / "from-the-tutorial.ko.md").read_text(encoding="utf-8")
RECIPE = ROOT / "recipes" / "koelectra-two-csv.yaml"
PAIR = ["--model.generator", "published/generator", "--model.discriminator", "published/discriminator"]
SHORT = "--train.steps 4 --eval.every 2 --tracking.samples_every 2 --checkpoint.every 2".split()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def commands(script: str) -> list[list[str]]:
    """The page's calls of a script: its arguments, with the pair made here in place of the published one."""
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    found = [shlex.split(line.partition(f"scripts/{script}")[2]) for line in lines if f"scripts/{script}" in line]
    return [[re.sub(r"^monologg/koelectra-base-v3-", "published/", word) for word in words] for words in found]


def write_csv(path: Path, texts: list[str], labelled: bool = False) -> None:
    """As pandas writes it: a column of numbers without a name comes first."""
    path.parent.mkdir(exist_ok=True)
    rows = [["", "sen", "label"], *([number, text, number % 2] for number, text in enumerate(texts))]
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows if labelled else [row[:2] for row in rows])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The files that the page names, a pair laid out as KoELECTRA's, and the page's run of it, cut to a few steps."""
    folder = tmp_path_factory.mktemp("tutorial")
    words = "이 책은 파이썬을 처음 배우는 분께 알맞고, 예제가 많아 혼자서도 차근차근 따라 할 수 있습니다".split()
    texts = [" ".join(words[(n + i * (1 + n % 5)) % len(words)] for i in range(4 + n % 23)) for n in range(400)]
    texts = [f"{text} {number}쪽" for number, text in enumerate(texts)]
    write_csv(folder / "books" / "train.csv", texts[:300])
    write_csv(folder / "books" / "eval.csv", texts[299:340])  # one text is in both
    write_csv(folder / "general_eval.csv", texts[340:360])
    write_csv(folder / "general_train.csv", texts[360:])
    tokenizer = train_tokenizer(lambda: [texts], 600, folder / "vocabulary")
    pair = build_pair(
        "tiny",
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        max_length=128,
        generator_width=0.5,
        dropout=0.1,
        seed=1,
        sharing="none",
    )
    write_published(pair, tokenizer, folder / "published")
    for name in ("scripts", "recipes", "accelerate_configs"):
        (folder / name).symlink_to(ROOT / name)
    (line,) = (line for block in blocks("sh") for line in block.splitlines() if line.endswith("--run.dir runs/books"))
    environment = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", "CUDA_VISIBLE_DEVICES": ""}
    done = run_command([*shlex.split(line), *PAIR, *SHORT], folder, 240, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "said.txt").write_text(done.stdout, encoding="utf-8")
    return folder


@pytest.fixture
def here(place, monkeypatch, capfd):
    """``here("script.py", arguments)`` -> what a script says, which must end well."""
    monkeypatch.setenv("WANDB_MODE", "disabled")

    def run(script: str, arguments: list) -> str:
        code, out, err = run_here(arguments, place, monkeypatch, capfd, script)
        assert code == 0, out + err
        return out

    return run


@pytest.mark.slow
def test_the_run_of_two_files_is_the_recipes(place):
    run, said = place / "runs" / "books", (place / "said.txt").read_text("utf-8")
    assert said.count("all weights found and used") == 2 and "step      8 bins = 1,024 token slots" in said
    used, recipe = flatten(load(run / "config.yaml")), flatten(load(RECIPE))
    same = ["data.train_files", "data.eval_files", "data.text_column", "data.max_length", "optim.learning_rate"]
    for name in [*same, "train.batch_tokens", "eval.batches"]:
        assert used[name] == recipe[name] is not None
    manifests = [path.read_text("utf-8") for path in (place / "prepared").glob("*/manifest.json")]
    assert manifests and all('"also in train": 1' in manifest for manifest in manifests)
    judged = [record for record in run_folder.read_jsonl(run / run_folder.METRICS) if "eval/auc" in record]
    assert [record["step"] for record in judged] == [0, 2, 4]
    samples = run_folder.read_jsonl(run / run_folder.SAMPLES)
    assert all(any(best for best in sample["best"]) for sample in samples)
    assert run_folder.read_status(run)["state"] == "done"


@pytest.mark.slow
def test_electra_is_what_auto_model_loads(place, here, monkeypatch):
    """The page's Python runs; bit for bit the exported encoder, loaded either way, and the last checkpoint's."""
    (python,) = blocks("python")
    monkeypatch.chdir(place)
    names = {}
    exec(python, names)
    assert names["hidden"].shape[::2] == (1, 128) and names["hidden"].isfinite().all()

    for words in commands("export.py"):
        assert "discriminator" in here("export.py", words)
    encoders = {
        "auto": AutoModel.from_pretrained("runs/books/discriminator"),
        "electra": ElectraForPreTraining.from_pretrained("runs/books/discriminator").electra,
        "classifier": AutoModelForSequenceClassification.from_pretrained("runs/books/discriminator").electra,
        "exported": AutoModel.from_pretrained("exported/books/discriminator"),
    }
    saved = safetensors.torch.load_file("runs/books/checkpoints/step-00000004/model.safetensors")
    start = AutoModel.from_pretrained("published/discriminator").state_dict()
    weights = encoders.pop("auto").state_dict()
    for name, encoder in encoders.items():
        assert encoder.state_dict().keys() == weights.keys()
        for key, weight in encoder.state_dict().items():
            assert torch.equal(weight, weights[key]), (name, key)
    prefix = "discriminator.electra."
    trained = {name.removeprefix(prefix): saved[name] for name in saved if name.startswith(prefix)}
    assert trained and all(torch.equal(weights[name], weight) for name, weight in trained.items())
    assert not torch.equal(weights["encoder.layer.0.output.dense.weight"], start["encoder.layer.0.output.dense.weight"])


@pytest.mark.slow
def test_the_other_commands_run(here):
    """Those that train are dry runs here; each pair is found whole."""
    (words,) = commands("prepare_data.py")
    assert "found prepared data" in here("prepare_data.py", words), "the run has prepared the same"
    replayed = 0
    for words in commands("pretrain.py"):
        others = [word.replace("runs/books", "runs/new") for word in words]  # runs/books is there, cut short
        said = here("pretrain.py", [*others, *PAIR, "--dry_run", "--cpu"])
        assert said.count("all weights found and used") == 2 and "dry run: nothing was trained" in said
        replayed += "; replay: " in said
    assert replayed == 1
    (words,) = commands("detect.py")
    assert "[MASK] as token" in here("detect.py", words)


@pytest.mark.slow
def test_the_story_goes_on_to_a_task(place, here):
    alone, with_task = commands("adaptation.py")
    assert "domain: discriminator ROC-AUC" in here("adaptation.py", alone)
    for name, rows in (("train", 48), ("dev", 16), ("test", 32)):
        write_csv(place / "labels" / f"{name}.csv", [f"{name} {row}쪽" for row in range(rows)], labelled=True)
    (words,) = commands("finetune.py")
    assert "| books | 2 |" in here("finetune.py", [*words, "--run.seeds", "1", "2", "--train.epochs", "1", "--cpu"])
    assert "books: fine-tuned, it is " in here("adaptation.py", with_task)


def test_options_that_the_page_names_exist():
    ours = set(flatten(Config())) | {f"task.{name}" for name in vars(config.Task())}
    groups = {name.split(".")[0] for name in ours}
    named = {name for name in re.findall(r"`(?:--)?([a-z]+\.[a-z_]+)", PAGE) if name.split(".")[0] in groups}
    assert len(named) > 40 and named <= ours, named - ours


def test_the_table_of_values_is_the_recipes():
    """The second column of the table and the extra options below it: the Trainer's defaults are possible too."""
    recipe = flatten(load(RECIPE))
    rows = re.findall(r"^\| [^|]+ \| `([a-z]+\.[a-z_]+)` ([\w.-]+) \|", PAGE, re.M)
    assert len(rows) == 4
    for name, value in rows:
        assert recipe[name] == float(value)
    unset = {"optim.warmup_steps", "optim.weight_decay", "optim.eps", "train.precision", "model.dropout"}
    default = flatten(Config())
    assert all(recipe[name] == default[name] for name in unset)
    (more,) = re.findall(r"`(--optim\.warmup_steps 0 [^`]+)`", PAGE)
    as_trainer = resolve(parse(["--config", str(RECIPE), *more.split()], "").config, 1000)
    assert [*config_checks.check(as_trainer), *config_checks.check_warmup(as_trainer, 1000)] == []
    assert (as_trainer.optim.warmup_steps, as_trainer.optim.weight_decay, as_trainer.optim.eps) == (0, 0, 1e-8)
    assert as_trainer.train.precision == "no"
