"""Domain adaptation as a user starts it: from a pair in the published layout, in every way, to the exported folders."""

import json
import re
import shutil
import signal
import time

import pytest
import safetensors.torch
import torch
from transformers import AutoModel, ElectraForMaskedLM, ElectraForPreTraining

from electra_accel.engines.deepspeed import deepspeed_version
from electra_accel.engines.state import MODEL_FILE, OPTIMIZER_FILE
from electra_accel.pretraining import warm_start
from electra_accel.pretraining.config import resolve
from electra_accel.pretraining.config_parser import load, parse
from electra_accel.reports.adaptation import story_of_run
from electra_accel.runs import run_folder
from electra_accel.text.tokenizer import load_tokenizer
from tests import published
from tests.helpers import ROOT, run_in_process
from tests.pretraining_runs import finish, metrics, options, run_here, run_short, start, write_corpus

SHORT = {"train.steps": 6, "eval.every": 3, "checkpoint.every": 3, "tracking.log_every": 3, "eval.batches": 1}
PAIR = {
    "tokenizer.train_vocab_size": None,
    "model.size": None,
    "model.generator_width": None,
    "model.generator": "published/generator",
    "model.discriminator": "published/discriminator",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A domain's text and general text, and a tiny pair that was pre-trained on both and written as published pairs are."""
    folder = tmp_path_factory.mktemp("adaptation")
    write_corpus(folder / "all.txt")
    lines = (folder / "all.txt").read_text("utf-8").splitlines()
    (folder / "text.txt").write_text("\n".join(lines[:900]), "utf-8")
    (folder / "general.txt").write_text("\n".join(lines[900:1000]), "utf-8")
    (folder / "replay.txt").write_text("\n".join(lines[950:1800]), "utf-8")
    arguments = options("all.txt", "scratch", **SHORT | {"tracking.samples": "none", "model.sharing": "tied"})
    done = run_in_process("pretrain.py", *arguments, cwd=folder, WANDB_MODE="disabled")
    assert done.returncode == 0, done.stdout + done.stderr
    published.main(folder / "scratch", folder / "published")
    return folder


@pytest.fixture
def run(place, monkeypatch, capfd):
    """``run("name", option=…)``: the pair adapted to text.txt."""
    return run_short(SHORT | PAIR, place, monkeypatch, capfd)


@pytest.fixture
def evaluate(place, monkeypatch, capfd):
    return lambda *arguments: run_here([*arguments], place, monkeypatch, capfd, script="evaluate.py")


@pytest.mark.slow
def test_all_of_it_at_once(run, place):
    """General text beside the domain's, replay, learnt tokens, whole words and gdes in one run, resumed half-way."""
    together = {
        "data.eval_general_files": "general.txt",
        "data.replay_files": "replay.txt",
        "data.replay_fraction": 0.3,
        "tokenizer.learn_tokens": 40,
        "objective.mask_unit": "word",
        "model.sharing": "gdes",
    }
    code, out, err = run("whole", **together, tracking__samples="none")
    assert code == 0, out + err
    folder = place / "whole"
    assert "vocabulary: 40 tokens added" in out and "general text at step 6" in out
    assert "embeddings: gdes" in out and "(were equal)" in out
    card = (folder / "discriminator" / "README.md").read_text("utf-8")
    assert (
        "general text mixed in" in card and "40 tokens added" in card and (folder / "discriminator/vocab.txt").exists()
    )
    sets = {name: json.loads((folder / "held_out" / f"{name}.json").read_text()) for name in ("held_out", "general")}
    assert {found["replacements"] for found in sets.values()} == {"generator of the starting pair"}
    assert sets["general"]["examples"] < 100, (
        "texts that replay has too are still judged: those of the held-out sets go"
    )
    records = run_folder.read_jsonl(folder / run_folder.METRICS)
    judged = [record for record in records if "general/auc" in record]
    assert [record["step"] for record in judged] == [0, 3, 6]
    assert all(record["general/generator_loss"] > 0 and "general_own/auc" in record for record in judged)
    told = story_of_run(folder)
    assert told.general and told.domain["generator_loss"].before == judged[0]["eval/generator_loss"]
    report = (folder / "report.html").read_text("utf-8")
    assert "General text" in report and "on the domain&#39;s text" in report.replace("'", "&#39;")

    tokenizer = load_tokenizer(folder / "discriminator")
    known = load_tokenizer(place / "published" / "discriminator")
    assert len(tokenizer) == len(known) + 40
    saved = safetensors.torch.load_file(folder / "checkpoints" / "step-00000006" / MODEL_FILE)
    name = "electra.embeddings.word_embeddings"
    folded = saved[f"generator.{name}.weight"] + saved[f"discriminator.{name}.delta"]
    exported = ElectraForPreTraining.from_pretrained(folder / "discriminator")
    assert len(folded) == len(tokenizer) and torch.equal(exported.get_input_embeddings().weight, folded)

    (folder / "checkpoints" / "step-00000006" / "manifest.json").unlink()
    (folder / run_folder.STATUS).unlink()
    code, out, err = run("whole", **together, tracking__samples="none")
    assert code == 0 and "from step 3" in out, out + err
    again = safetensors.torch.load_file(folder / "checkpoints" / "step-00000006" / MODEL_FILE)
    assert all(torch.equal(saved[key], again[key]) for key in saved) and saved.keys() == again.keys()
    code, out, err = run("whole", **together | {"model.sharing": "none"})
    assert code == 2 and "model.sharing: gdes -> none" in err


@pytest.mark.slow
def test_a_missing_generator_is_warm_started(run, place):
    warm = {"model.generator": "warm-start", "model.generator_width": 0.5, "model.warm_start_steps": 4}
    process = start(
        options("text.txt", "warm", **SHORT | PAIR | warm | {"checkpoint.every": 1}), place, WANDB_MODE="disabled"
    )
    checkpoints = place / "warm" / "warm-start" / "checkpoints"
    while not (checkpoints / "step-00000001" / "manifest.json").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    code, out, err = finish(process)
    status = run_folder.read_status(place / "warm")
    assert (code, status["state"], status["exit_code"]) == (75, "preempted", 75), out + err
    assert "--run.dir warm goes on" in out

    code, out, err = run("warm", **warm, checkpoint__every=1)
    assert code == 0, out + err
    assert "tied, the generator uses the discriminator's (were equal)" in out, "the embeddings were frozen"
    assert "warm/warm-start, from step " in out and "warm, from step 0" in out
    assert out.count("warm start done: the pair comes next") == out.count("made      ") == 1
    assert "in the generator's warm start" in out and "python scripts/adaptation.py warm" in out
    given = safetensors.torch.load_file(place / "published" / "discriminator" / "model.safetensors")
    first, last = (safetensors.torch.load_file(checkpoints / f"step-0000000{step}" / MODEL_FILE) for step in (3, 4))
    moved = {name for name in last if not torch.equal(first[name], last[name])}
    still = {name for name in last if ".embeddings." in name}
    assert moved == last.keys() - still and still
    for name in still:
        assert torch.equal(last[name], given[name.removeprefix("network.")])
    moments = safetensors.torch.load_file(checkpoints / "step-00000004" / OPTIMIZER_FILE)
    assert not any(".embeddings." in name for name in moments)
    generator = ElectraForMaskedLM.from_pretrained(place / "warm" / "generator")
    assert generator.config.hidden_size == 64 and generator.config.num_hidden_layers == 4
    assert load(place / "warm" / "config.yaml").model.generator == "warm-start"
    assert "| warm start of the generator |" in (place / "warm" / "generator" / "README.md").read_text("utf-8")
    found = json.loads((place / "warm" / "held_out" / "held_out.json").read_text())
    assert found["replacements"] == "generator of the starting pair"
    shutil.rmtree(place / "warm" / "warm-start")
    code, out, _ = run("warm", **warm)
    assert code == 0 and "is finished" in out, "nothing is warm-started for a run that has begun"


@pytest.mark.parametrize(("kind", "rates"), [("adamw", (1e-3, None)), ("muon", (2e-3, 4e-3))])
def test_a_warm_start_has_the_rates_of_its_optimizer_from_scratch(kind, rates, place, monkeypatch):
    monkeypatch.chdir(place)
    warm = {"model.generator": "warm-start", "optim.learning_rate": None, "optim.kind": kind}
    config = resolve(parse(options("text.txt", "rates", **SHORT | PAIR | warm), "").config)
    asked = config.optim.learning_rate, config.optim.matrix_learning_rate
    assert asked == ((5e-5, None) if kind == "adamw" else (1e-4, 2e-4))
    optim = warm_start.configuration(config, place / "rates").optim
    assert (optim.kind, optim.learning_rate, optim.matrix_learning_rate) == (kind, *rates)


@pytest.mark.slow
def test_a_dry_run_counts_the_warm_start(place, monkeypatch, capfd):
    flops = {}
    for steps in (5, 500):
        warm = {
            "model.generator": "warm-start",
            "model.warm_start_steps": steps,
            "data.eval_general_files": "general.txt",
        }
        arguments = [*options("text.txt", "planned", **SHORT | PAIR | warm), "--dry_run", "--cpu"]
        code, out, err = run_here(arguments, place, monkeypatch, capfd)
        assert code == 0, out + err
        first, time_, general = (
            next(line for line in out.splitlines() if line.startswith(word))
            for word in ("warm start", "time", "general ")
        )
        assert f"warm start {steps} steps first: " in first and "examples, " in general
        flops[steps] = [float(re.search(r"(\S+) FLOP", line)[1]) for line in (first, time_)]
    (short, whole_short), (long, whole_long) = flops.values()
    assert long == pytest.approx(100 * short, rel=0.01) and whole_long - whole_short == pytest.approx(
        long - short, rel=0.05
    )


@pytest.mark.slow
def test_what_would_stop_the_run_is_found_before_its_warm_start(run, place):
    warm = {"model.generator": "warm-start", "model.warm_start_steps": 2}
    (place / "foreign").mkdir()
    (place / "foreign" / "thesis.txt").write_text("mine", "utf-8")
    (place / "tuned").mkdir()
    (place / "tuned" / "config.yaml").write_text("models: [general]\n", "utf-8")
    for name, more, said in (
        ("foreign", {}, "run.dir foreign is not empty and not a run of ours"),
        ("tuned", {}, "run.dir tuned holds fine-tunings; choose another --run.dir"),
        ("nowhere", {"run.resume": "nothing-here"}, "run.resume nothing-here is not a whole checkpoint"),
        (
            "long",
            {"train.steps": None, "train.epochs": 0.01, "optim.warmup_steps": 500},
            "optim.warmup_steps 500 is more than",
        ),
    ):
        code, _, err = run(name, **warm | more)
        assert code == 2 and said in err
        assert not (place / name / "warm-start").exists()

    code, out, err = run("begun", **warm, tracking__samples="none")
    assert code == 0, out + err
    shutil.copytree(place / "begun" / "warm-start", place / "other" / "warm-start")
    code, _, err = run("other", **warm | {"model.warm_start_steps": 3})
    assert code == 2 and "other/warm-start " in err
    assert "model.warm_start_steps: 2 -> 3" in err
    # what concerns the pair alone may still be changed
    code, out, err = run("other", **warm, objective__discriminator_weight=20, tracking__samples="none")
    assert code == 0 and "other/warm-start, from step" not in out, out + err


@pytest.mark.slow
def test_the_baseline_of_masked_language_modelling(run, place, evaluate):
    """From the discriminator's weights and from scratch; no figure of a discriminator anywhere, and an encoder to load."""
    one = {"objective.kind": "mlm", "model.generator": None}
    scratch = {"model.discriminator": None, "model.size": "tiny", "tokenizer.train_vocab_size": 1000}
    for name, more, told in (
        ("mlm", {}, "than with an untrained LM head"),
        ("mlm-scratch", scratch, "held-out text than untrained"),
    ):
        code, out, err = run(name, **one | more)
        assert code == 0, out + err
        assert told in out and "AUC" not in out and "on the domain's text" not in out
        records = run_folder.read_jsonl(place / name / run_folder.METRICS)
        figures = {figure for record in records for figure in record}
        assert {"train/generator_loss", "eval/generator_accuracy", "train/flops", "train/tokens"} <= figures
        assert not [figure for figure in figures if "discriminator" in figure or "auc" in figure or "_own" in figure]
        page = (place / name / "report.html").read_text("utf-8")
        assert ">generator loss<" in page and ">discriminator loss<" not in page and "discriminator's" not in out
        encoder = AutoModel.from_pretrained(place / name / "encoder")
        assert type(encoder).__name__ == "ElectraModel" and encoder.config.hidden_size == 128
        assert not (place / name / "discriminator").exists()
        samples = run_folder.read_jsonl(place / name / run_folder.SAMPLES)
        assert samples and all(sample["probability"] == [] for sample in samples)
    start_, end = (records[i]["eval/generator_loss"] for i in (0, -1))
    assert end < start_
    both = [load(place / name / "config.yaml") for name in ("mlm", "mlm-scratch")]
    assert [config.eval.metric for config in both] == ["generator_loss"] * 2
    code, _, err = evaluate("--run", "mlm", "--held_out")
    assert code == 2 and "there is no pair to judge" in err


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(deepspeed_version() is None, reason="DeepSpeed is not installed")
def test_a_warm_start_and_what_follows_under_zero(place):
    """One after the other under one engine, on two processes: the same run as on one."""
    warm = {"model.generator": "warm-start", "model.warm_start_steps": 3, "model.dropout": 0}
    launch = ["--config_file", ROOT / "accelerate_configs" / "zero2.yaml", "--num_processes", 2]
    alone, shared = (
        options("text.txt", f"warm-{name}", **SHORT | PAIR | warm | {"tracking.samples": "none"})
        for name in ("one", "two")
    )
    environment = {"WANDB_MODE": "disabled", "CUDA_VISIBLE_DEVICES": ""}
    process = start(shared, place, [*launch, "--main_process_port", 0], **environment)
    done = run_in_process("pretrain.py", *alone, cwd=place, **environment)
    code, out, err = finish(process, 600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert code == 0 and "ZeRO-2, 2 processes" in out, out + err
    for part in (".", "warm-start"):
        one, two = (
            [
                record["train/loss"]
                for record in run_folder.read_jsonl(place / f"warm-{name}" / part / run_folder.METRICS)
                if "train/loss" in record
            ]
            for name in ("one", "two")
        )
        assert one == pytest.approx(two, rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(deepspeed_version() is None, reason="DeepSpeed is not installed")
def test_a_given_pair_is_adapted_under_zero3_as_alone(place, run):
    """Where transformers knows of ZeRO-3, it shares out a checkpoint's weights as it reads them, and nothing is trained."""
    code, out, err = run("alone", tracking__samples="none")
    assert code == 0, out + err
    launch = [
        "--config_file",
        ROOT / "accelerate_configs/zero3.yaml",
        "--num_processes",
        "2",
        "--main_process_port",
        "0",
    ]
    arguments = options("text.txt", "zero3", **SHORT | PAIR | {"tracking.samples": "none"})
    code, out, err = finish(start(arguments, place, launch, WANDB_MODE="disabled"), timeout=500)
    assert code == 0, out + err
    alone, shared = ({r["step"]: r for r in metrics(place / name) if "eval/auc" in r} for name in ("alone", "zero3"))
    assert list(alone) == list(shared) == [0, 3, 6]
    for name in ("eval/generator_loss", "eval/discriminator_loss", "eval/auc"):
        assert shared[6][name] == pytest.approx(alone[6][name], rel=1e-3), name
