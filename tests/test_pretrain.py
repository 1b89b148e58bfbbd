"""The main job as a user runs it: real text, real processes, a real kill. Few launches, each of which shows many things."""

import json
import signal
import subprocess
import sys
import time

import pytest
import yaml

from electra_accel.runs import checkpoint, run_folder
from tests.helpers import ROOT, run_in_process
from tests.pretraining_runs import (
    STEPS,
    finish,
    metrics,
    options,
    start,
    wandb_rows,
    wandb_segments,
    wandb_summary,
    write_corpus,
)

LOAD = """
import sys, json
from transformers import AutoModel, AutoTokenizer, ElectraForMaskedLM, ElectraForPreTraining
found = {}
for folder, kind in ((sys.argv[1] + "/discriminator", ElectraForPreTraining), (sys.argv[1] + "/generator", ElectraForMaskedLM)):
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    tokens = AutoTokenizer.from_pretrained(folder)("The import system of Python.", return_tensors="pt")
    found[folder] = {k: sorted(v) for k, v in info.items() if v}
    assert model(**tokens).logits.isfinite().all()
    assert AutoModel.from_pretrained(folder).config.attention_probs_dropout_prob == 0.1
assert "electra_accel" not in sys.modules
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with a corpus; the text is prepared by the first run and found again by the others."""
    folder = tmp_path_factory.mktemp("pretrain")
    write_corpus(folder / "reference.txt")
    return folder


@pytest.fixture(scope="module")
def undisturbed(place):
    """One run from start to end: (run folder, what it printed)."""
    run = place / "undisturbed"
    code, out, err = finish(start(options("reference.txt", run), place))
    assert code == 0, out + err
    return run, out


def test_a_run_leaves_everything_a_person_needs(undisturbed, place):
    run, out = undisturbed
    status = run_folder.read_status(run)
    assert (status["state"], status["step"], status["exit_code"]) == ("done", STEPS, 0)
    assert [step for step, _ in checkpoint.existing(run / "checkpoints")] == [15, 20]
    assert json.loads((run / "checkpoints/step-00000020/manifest.json").read_text())["optimizer"] == "Muon"
    assert [record["step"] for record in metrics(run) if "train/loss" in record] == list(range(1, STEPS + 1))
    assert [record["step"] for record in metrics(run) if "eval/auc" in record] == [0, 10, 20]
    assert {sample["step"] for sample in run_folder.read_jsonl(run / run_folder.SAMPLES)} == {0, 10, 20}
    assert yaml.safe_load((run / run_folder.CONFIG).read_text())["optim"]["learning_rate"] == 1e-3
    assert json.loads((run / run_folder.ENVIRONMENT).read_text())["versions"]["torch"]
    for words in ("engine ", "data ", "plan ", "step ", "records ", "W&B offline", "held-out text", "before", "next "):
        assert words in out
    assert f"{run}/discriminator" in out
    assert f"watch     {run}/report.html" in out and f"          {run}/report.html" in out
    assert "discriminator ROC-AUC" in (run / "report.html").read_text()
    assert not list((place / "prepared").glob("*.lock*")), "the preparation leaves no lock behind"


def test_the_loss_falls_and_the_counts_are_those_of_the_plan(undisturbed):
    run, _ = undisturbed
    train = [record for record in metrics(run) if "train/loss" in record]
    assert train[-1]["train/generator_loss"] < train[0]["train/generator_loss"] - 0.3
    for record in train:
        assert 0 < record["train/replaced_fraction"] < 0.2
        assert record["train/loss"] == pytest.approx(
            record["train/generator_loss"]
            + 10 * record["train/discriminator_loss"]
            + 10 * record["train/corrective_loss"]
        )
    tokens = [record["train/tokens"] for record in train]
    assert all(0.7 * 1024 < later - earlier <= 1024 for earlier, later in zip(tokens, tokens[1:]))


def test_wandb_holds_what_metrics_jsonl_holds(undisturbed):
    run, _ = undisturbed
    (records,) = wandb_segments(run)
    rows = wandb_rows(records)
    written = {(r["step"], "eval/auc" in r): r for r in metrics(run)}
    logged = {(row["train/step"], "eval/auc" in row): row for row in rows if "samples/reconstructions._type" not in row}
    assert set(logged) == set(written)
    for which, row in logged.items():
        for name, value in written[which].items():
            if name not in ("step", "eval/calibration") and value is not None:
                assert row[name] == pytest.approx(value, rel=1e-9), name
        assert row["train/tokens"] == written[which]["train/tokens"], "every row can be drawn over tokens too"
        assert ("eval/calibration" in written[which]) == (row.get("eval/calibration._type") == "plotly-file")
    axes = [record["metric"] for record in records if record["type"] == "metric"]
    assert any(axis.get("glob_name") == "*" and axis.get("step_metric") == "train/step" for axis in axes)
    held_out = [record for record in metrics(run) if "eval/auc" in record]
    summary = wandb_summary(run)
    assert float(summary["eval/auc.max"]) == pytest.approx(max(record["eval/auc"] for record in held_out))
    for name in ("eval/generator_loss", "eval/discriminator_loss"):
        assert float(summary[f"{name}.min"]) == pytest.approx(min(record[name] for record in held_out))
    for when, record in (("before", held_out[0]), ("after", held_out[-1])):
        assert float(summary[f"story/domain/auc_{when}"]) == pytest.approx(record["eval/auc"])


def test_wandb_knows_what_the_run_is(undisturbed):
    run, _ = undisturbed
    (records,) = wandb_segments(run)
    started = next(record["run"] for record in records if record["type"] == "run")
    assert started["run_id"] == (run / run_folder.RUN_ID).read_text().strip()
    assert started["display_name"] == run.name and started["job_type"] == "pre-training"
    environment = json.loads((run / run_folder.ENVIRONMENT).read_text())
    assert {"tiny", "single process", environment["commit"]} <= {*started["tags"], None}
    config = next(record for record in records if record["type"] == "config")["config"]["update"]
    assert config["objective.discriminator_weight"] == 10
    assert config["environment.versions.torch"] == environment["versions"]["torch"]
    held_out = json.loads((run / "held_out" / "held_out.json").read_text())
    assert config["held_out.corruption"] == held_out["corruption"]
    assert 0 < held_out["replaced"] <= held_out["selected"] < held_out["judged"] < held_out["tokens"]


def test_reconstructions_are_stored_once_and_grow_linearly(undisturbed):
    """The same sentences each time, then random ones; a table and a page of its own for each evaluation."""
    run, _ = undisturbed
    (records,) = wandb_segments(run)
    rows = [row for row in wandb_rows(records) if row.get("samples/reconstructions._type") == "table-file"]
    assert [row["train/step"] for row in rows] == [0, 10, 20]
    (media,) = run.glob("wandb/offline-run-*/files/media")
    for kind, key in (("table", "reconstructions"), ("html", "highlighted")):
        files = {path.relative_to(media.parent).as_posix() for path in media.glob(f"{kind}/samples/*")}
        assert files == {row[f"samples/{key}.path"] for row in rows}, "what is stored is what is referred to"
        sizes = [(media.parent / row[f"samples/{key}.path"]).stat().st_size for row in rows]
        assert sum(sizes) < 1.5 * len(sizes) * sizes[0], f"bytes grow faster than evaluations: {sizes}"
    tables = [json.loads((media.parent / row["samples/reconstructions.path"]).read_text()) for row in rows]
    step, example, original, masked, generated, best, verdict, probabilities = range(8)
    fixed = [[line[: masked + 1] for line in table["data"][:3]] for table in tables]
    assert [[line[1:] for line in lines] for lines in fixed] == [[line[1:] for line in fixed[0]]] * 3
    assert any("[MASK]" in line[masked] for line in tables[0]["data"])
    chosen = [[line[example] for line in table["data"][3:]] for table in tables]
    assert all(len(numbers) == 2 for numbers in chosen) and len({*map(tuple, chosen)}) > 1
    samples = run_folder.read_jsonl(run / run_folder.SAMPLES)
    assert [s["example"] for s in samples] == [line[example] for table in tables for line in table["data"]]
    assert [s["output"] for s in samples] == [line[generated] for table in tables for line in table["data"]]
    assert [s["fixed"] for s in samples] == [True, True, True, False, False] * 3
    line, sample = tables[-1]["data"][0], samples[-5]
    assert len(line[probabilities].split("  ")) == len(sample["tokens"]) and "caught" in line[verdict]
    assert line[best].count("[") >= len(sample["best"]) > 0, "in brackets, as brackets of the text are"


def test_exports_load_in_stock_transformers_without_our_package(undisturbed, place):
    run, _ = undisturbed
    loaded = subprocess.run(
        [sys.executable, "-P", "-c", LOAD, str(run)], cwd=place, capture_output=True, text=True, timeout=120
    )
    assert loaded.returncode == 0, loaded.stderr
    assert all(not info for info in json.loads(loaded.stdout).values()), "nothing missing, nothing unexpected"
    for name in ("discriminator", "generator"):
        assert (run / name / "README.md").read_text().startswith("---")


def test_a_killed_run_goes_on_to_the_very_same_weights(undisturbed, place):
    """Dropout is on. Kill without warning after the first checkpoint, damage the newest one, start the command again."""
    whole, _ = undisturbed
    run = place / "killed"
    process = start(options("reference.txt", run), place)
    deadline = time.monotonic() + 150
    while len(metrics(run)) < 14 and time.monotonic() < deadline:  # 12 steps and the evaluation before the first
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)  # W&B writes in a process of its own: let it catch up, then kill
    while not (held := wandb_segments(run)) or max(row["train/step"] for row in wandb_rows(held[0])) < 10:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    process.kill()
    process.communicate(timeout=30)
    assert run_folder.read_status(run)["state"] == "running"
    found = checkpoint.existing(run / "checkpoints")
    assert len(found) == 2 and found[-1][0] < STEPS, "killed too early or too late for this test"
    weights = found[-1][1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])

    code, out, err = finish(start(options("reference.txt", run), place))
    assert code == 0, out + err
    assert str(found[-1][1]) in out and "damaged" in out
    for name in ("discriminator/model.safetensors", "generator/model.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    assert metrics(run) == metrics(whole)
    assert run_folder.read_jsonl(run / run_folder.SAMPLES) == run_folder.read_jsonl(whole / run_folder.SAMPLES)
    assert [step for step, _ in checkpoint.existing(run / "checkpoints")] == [15, 20]
    segments = wandb_segments(run)
    steps = [{row["train/step"] for row in wandb_rows(records)} for records in segments]
    assert len(steps) == 2, out
    assert set.union(*steps) == set(range(STEPS + 1)), "no step is missing in W&B's offline segments"
    ids = {next(record["run"]["run_id"] for record in records if record["type"] == "run") for records in segments}
    assert len(ids) == 1, "both segments are one run"
    first, second = ({r["train/step"]: r for r in wandb_rows(records) if "train/loss" in r} for records in segments)
    repeated = first.keys() & second.keys()
    assert repeated
    for step in repeated:
        losses = {
            name: value for name, value in first[step].items() if name.startswith("train/") and "hours" not in name
        }
        assert losses == {name: second[step][name] for name in losses}, "what is logged twice is the same"


def test_two_processes_train_the_same_run(undisturbed, place):
    """DDP on two CPU processes with two micro-batches each, against one with four: order and masks are the same integers,
    losses agree up to rounding. Then one process goes on with what two have saved."""
    whole, _ = undisturbed
    run = place / "two"
    config_file = ROOT / "accelerate_configs" / "ddp.yaml"
    launch = ["--config_file", config_file, "--num_processes", 2, "--main_process_port", 0]
    code, out, err = finish(start(options("reference.txt", run), place, launch))
    assert code == 0, out + err
    assert "DDP, 2 processes" in out
    assert out.count("trained on ") == 1, "only the first process speaks"
    exact = ("train/tokens", "train/epoch", "train/learning_rate", "train/step", "step")
    for mine, single in zip(metrics(run), metrics(whole), strict=True):
        assert {name: mine.get(name) for name in exact} == {name: single.get(name) for name in exact}
    first, single = (next(r for r in metrics(folder) if "train/loss" in r) for folder in (run, whole))
    for name in ("train/loss", "train/generator_loss", "train/discriminator_loss", "train/gradient_norm"):
        assert first[name] == pytest.approx(single[name], rel=1e-5), name
    # Dropout follows the number of the global micro-batch, so the runs stay together until a sampled token flips within
    # rounding; twenty steps are too few for that to show.
    last, single = (metrics(folder)[-1] for folder in (run, whole))
    assert last["eval/generator_loss"] == pytest.approx(single["eval/generator_loss"], rel=1e-4)
    assert last["eval/auc"] == pytest.approx(single["eval/auc"], rel=1e-3)

    done = run_in_process("pretrain.py", *options("reference.txt", run, train__steps=STEPS + 2), cwd=place)
    assert done.returncode == 0 and f"from step {STEPS}" in done.stdout, done.stdout + done.stderr
    assert [record["step"] for record in metrics(run) if "train/loss" in record] == list(range(1, STEPS + 3))


def test_a_finished_run_says_so_and_another_configuration_is_refused(undisturbed, place):
    run, _ = undisturbed
    before = {path: path.read_bytes() for path in run.rglob("*.json*")}

    def again(**changed) -> tuple[int, str, str]:
        done = run_in_process("pretrain.py", *options("reference.txt", run, **changed), cwd=place)
        return done.returncode, done.stdout, done.stderr

    code, out, err = again()
    assert code == 0 and "is finished" in out, out + err
    code, out, err = again(objective__mask_prob=0.25, optim__learning_rate=5e-4)
    assert code == 2
    assert err.count("\n") == 1 and err.startswith("error: ")
    assert "objective.mask_prob: 0.15 -> 0.25" in err and "optim.learning_rate: 0.001 -> 0.0005" in err
    with open(place / "reference.txt", "a") as file:  # the same name, other text
        file.write("\nOne more paragraph, which the run was not started with.\n")
    code, out, err = again(train__steps=STEPS + 5)
    assert code == 2 and "the training text" in err, out + err
    assert {path: path.read_bytes() for path in run.rglob("*.json*")} == before
