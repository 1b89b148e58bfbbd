"""scripts/finetune.py as a user runs it: it learns, compares, and names mistakes."""

import json
import shutil

import pytest
import wandb

from electra_accel.engines.deepspeed import deepspeed_version
from electra_accel.runs import run_folder
from tests.finetuning.small import make_encoder, rows
from tests.finetuning_runs import PREDICTIONS, SCRIPT, line, make_place, results
from tests.helpers import run_in_process, run_script, shared_data
from tests.pretraining_runs import run_here, wandb_rows, wandb_segments, wandb_summary


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("finetune"))


def test_models_are_compared(place, monkeypatch, capfd):
    """They learn a task that is easy, predictions and figures agree, and more seeds can be added."""
    models = ("first/discriminator", "untrained:first/discriminator")
    code, out, err = run_here(line("compare", models=models), place, monkeypatch, capfd, SCRIPT)
    assert (code, err) == (0, "")
    folder = place / "compare"
    entry = results(folder)["tasks"]["t"]["models"]["first"]
    found = entry["seeds"]["1"]
    assert found["test"]["accuracy"] > 0.9
    records = [json.loads(row) for row in (folder / "t" / "first" / "seed-1" / PREDICTIONS[1]).read_text().splitlines()]
    assert [record["label"] for record in records] == [row["label"] for row in rows(90, seed=90)]
    right = sum(record["label"] == record["predicted"] for record in records)
    assert found["test"]["accuracy"] == right / 90
    curve = run_folder.read_jsonl(folder / "t" / "first" / "seed-1" / run_folder.METRICS)
    dev = [record["dev/accuracy"] for record in curve if "dev/accuracy" in record]
    assert len(dev) == 8 and max(dev) == found["dev"]["accuracy"] == dev[found["best_epoch"] - 1]
    rates = {record["step"]: record["train/learning_rate"] for record in curve if "train/learning_rate" in record}
    # 80 steps of which 8 are the warmup; rates of the last step of each epoch of 10, and linearly down
    assert [rates[step] for step in range(10, 81, 10)] == pytest.approx(
        [5e-3 * (81 - step) / 73 for step in range(10, 81, 10)]
    )
    assert "| t | accuracy | untrained-first | 1 |" in (folder / "results.md").read_text()
    assert run_folder.read_status(folder)["state"] == "done"
    assert json.loads((folder / "environment.json").read_text())["world_size"] == 1

    more = line("compare", "--run.seeds", "2", models=models)
    code, out, err = run_here(more, place, monkeypatch, capfd, SCRIPT)
    assert (code, err) == (0, ""), "seeds that are given later stand in one table with those that are finished"
    entry = results(folder)["tasks"]["t"]["models"]["untrained-first"]
    assert entry["seeds"].keys() == {"1", "2"}
    assert entry["summary"]["test"]["accuracy"]["difference"]["seeds"] == 2

    assert results(folder)["finished"] == results(folder)["of"] == 4
    changed = line("compare", "--train.epochs", "9", "--run.seeds", "3", models=models)
    code, out, err = run_here(changed, place, monkeypatch, capfd, SCRIPT)
    assert code == 2 and "train.epochs 8 -> 9" in err and not (folder / "t" / "first" / "seed-3").exists()
    code, out, err = run_here(line("compare", models=models), place, monkeypatch, capfd, SCRIPT)
    assert code == 0 and "t/first/seed-1 is finished" in out and results(folder)["finished"] == 4
    before = results(folder)
    shutil.copytree(folder / "t" / "first" / "seed-1", folder / "t" / "first" / "seed-1-mine")  # a user's own copy
    code, out, err = run_here(line("compare", models=models[1:]), place, monkeypatch, capfd, SCRIPT)
    assert (code, err) == (0, "") and results(folder) == before, "models that are not named stay, in their order"
    identity = folder / "t" / "first" / "seed-1" / "identity.json"
    identity.write_text(json.dumps(json.loads(identity.read_text()) | {"train.epochs": 9}))
    code, out, err = run_here(line("compare", models=models[1:]), place, monkeypatch, capfd, SCRIPT)
    assert code == 0 and "compare also holds t/first" in out + err
    assert results(folder)["tasks"]["t"]["models"].keys() == {"untrained-first"}


@pytest.mark.parametrize(
    "kind, more, metric",
    [
        ("tagging", [], "entity_f1"),
        ("regression", ["--task.label_column=score", "--task.text_columns", "text", "text"], "spearman"),
        ("pair", ["--task.text_columns", "text", "text"], "accuracy"),
    ],
)
def test_other_kinds_learn(place, monkeypatch, capfd, kind, more, metric):
    code, _, err = run_here(line(kind, *more, kind=kind), place, monkeypatch, capfd, SCRIPT)
    assert (code, err) == (0, "")
    assert results(place / kind)["tasks"]["t"]["models"]["first"]["seeds"]["1"]["test"][metric] > 0.7


def test_micro_batches_change_no_number(place, monkeypatch, capfd):
    """Without dropout: the same batch at once, or a few examples at a time, each padded by itself."""
    curves = []
    for run, size in (("whole", 32), ("parts", 5)):
        more = ["--tracking.log_every=1", "--train.epochs=1", f"--train.micro_batch_size={size}"]
        _, out, _ = run_here(line(run, *more, models=("second/discriminator",)), place, monkeypatch, capfd, SCRIPT)
        curve = run_folder.read_jsonl(place / run / "t" / "second" / "seed-1" / run_folder.METRICS)
        curves.append([record["train/loss"] for record in curve if "train/loss" in record])
    assert len(curves[0]) == 10
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    whole_epoch = sum(loss * size for loss, size in zip(curves[1], [32] * 9 + [12], strict=True)) / 300
    assert f"epoch 1/1  loss {whole_epoch:.4f}" in out


def test_a_dry_run_reads_everything_and_writes_nothing(place, monkeypatch, capfd):
    """Of a command line, and of the config.yaml that a run wrote, which goes on as the same run."""
    models = ("first/discriminator", "untrained:second/discriminator")
    code, out, err = run_here(line("planned", "--dry_run", models=models), place, monkeypatch, capfd, SCRIPT)
    assert (code, err) == (0, "") and not (place / "planned").exists()
    assert "t: 300 train, 60 dev, 90 test rows" in out
    assert "80 steps (8 epochs of 300 rows, 32 at once) for each seed; learning rate 0.005, layer-wise decay 1" in out
    assert "t/untrained-second: " in out and "planned, new, 2 fine-tunings" in out
    weights = (place / "first" / "discriminator" / "model.safetensors").rename(place / "aside")
    code, out, err = run_here(line("planned", "--dry_run", models=models), place, monkeypatch, capfd, SCRIPT)
    weights_again = weights.rename(place / "first" / "discriminator" / "model.safetensors")
    assert code == 2 and "cannot load first/discriminator" in err and weights_again.exists()

    code, _, err = run_here(line("done", "--train.epochs=1"), place, monkeypatch, capfd, SCRIPT)
    assert (code, err) == (0, "")
    again = ["--config", "done/config.yaml"]
    code, out, err = run_here([*again, "--dry_run"], place, monkeypatch, capfd, SCRIPT)
    assert (code, err) == (0, "") and "done, 1 of 1 fine-tunings are finished" in out
    code, out, err = run_here(again, place, monkeypatch, capfd, SCRIPT)
    assert (code, err) == (0, "") and "t/first/seed-1 is finished" in out


def test_trackers_are_told_where_and_how_it_ended(place, monkeypatch, capfd):
    """The curves of dev, and at the end the figures of the best epoch, which the last values need not be."""
    monkeypatch.setenv("WANDB_RUN_ID", "one-for-all")  # of a command with one run
    words = line(
        "tracked",
        "--train.epochs=2",
        "--run.seeds",
        "1",
        "2",
        "--tracking.mode=offline",
        "--tracking.trackers",
        "wandb",
    )
    code, out, err = run_here(words, place, monkeypatch, capfd, SCRIPT)
    assert (code, err) == (0, "")
    found = results(place / "tracked")["tasks"]["t"]["models"]["first"]["seeds"]
    for seed in ("1", "2"):
        folder = place / "tracked" / "t" / "first" / f"seed-{seed}"
        assert f"t/first/seed-{seed} is recorded in metrics.jsonl, W&B offline, project electra-accel" in out
        summary = wandb_summary(folder)
        assert float(summary["final/test/accuracy"]) == pytest.approx(found[seed]["test"]["accuracy"], rel=1e-3)
        assert float(summary["final/epoch"]) == found[seed]["best_epoch"]
        [records] = wandb_segments(folder)
        assert [row["train/epoch"] for row in wandb_rows(records) if "dev/accuracy" in row] == [1, 2]
        assert (folder / run_folder.RUN_ID).read_text() != "one-for-all\n"


@pytest.mark.slow
def test_wandb_without_a_network_is_tried_once(place, monkeypatch, capfd):
    """A key is stored, and nothing is reached: all fine-tunings are recorded offline."""
    reached_not = {"API_KEY": "0" * 40, "BASE_URL": "http://127.0.0.1:9", "INIT_TIMEOUT": "2", "MODE": "online"}
    for name, value in reached_not.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    wandb.teardown()  # an earlier test's W&B keeps the timeout of 90 s that it began with
    words = line("unreached", "--train.epochs=1", "--run.seeds", "1", "2", "--tracking.trackers", "wandb")
    code, out, err = run_here(words, place, monkeypatch, capfd, SCRIPT)
    assert code == 0 and (out + err).count("W&B cannot be reached") == 1
    assert out.count("W&B offline") == 2
    assert all(wandb_summary(place / "unreached" / "t" / "first" / f"seed-{seed}") for seed in (1, 2))


def test_a_pre_training_run_is_left_alone(place, monkeypatch, capfd):
    """Also one whose checkpoints were removed to save space."""
    (place / "pretrained").mkdir()
    (place / "pretrained" / run_folder.CONFIG).write_text("train: {steps: 5}\n")
    code, _, err = run_here(line("pretrained"), place, monkeypatch, capfd, SCRIPT)
    assert code == 2 and "run.dir pretrained holds a pre-training run" in err
    assert [path.name for path in (place / "pretrained").iterdir()] == [run_folder.CONFIG]


ZERO3 = pytest.mark.skipif(deepspeed_version() is None, reason="DeepSpeed is not installed")


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "rows", "epochs"), [("ddp", 289, 8), pytest.param("zero3", 33, 2, marks=ZERO3)])
def test_two_processes_compute_the_same(place, engine, rows, epochs):
    """Under accelerate launch, without dropout; the last batch of an epoch is one that they share unevenly.

    ZeRO-3 steps its optimizer once for each part of the parameters, which must not scale their rates again and again.
    """
    files = [f"--task.{name}_file={place / name}.jsonl" for name in ("train", "dev", "test")]
    more = [
        "--tracking.log_every=1",
        f"--train.epochs={epochs}",
        f"--task.train_rows={rows}",
        "--optim.layer_decay=0.5",
    ]
    config = ["--config_file", f"accelerate_configs/{engine}.yaml", "--main_process_port", "0", "--num_processes", "2"]
    launch = ["-m", "accelerate.commands.launch", *config, *(["--cpu"] if engine == "ddp" else [])]
    curves, probabilities = [], []
    for run, alone in ((f"{engine}-1", True), (f"{engine}-2", False)):
        options = line(str(place / run), *more, *files, models=(str(place / "second" / "discriminator"),))
        if alone:
            done = run_in_process(SCRIPT, *options)
        else:
            done = run_script(*launch, f"scripts/{SCRIPT}", *options, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr[-2000:]
        folder = place / run / "t" / "second" / "seed-1"
        curves.append(run_folder.read_jsonl(folder / run_folder.METRICS))
        records = map(json.loads, (folder / PREDICTIONS[1]).read_text().splitlines())
        probabilities.append([record["probability"] for record in records])
    one, two = ([r.get("train/loss", r.get("dev/accuracy")) for r in curve] for curve in curves)
    assert len(one) == epochs * (-(-rows // 32) + 1) and one == pytest.approx(two, rel=1e-5)
    # Predictions stand in the order of the rows: the one of a wrong row differs by more than the tolerance.
    assert len(probabilities[0]) == 90 and probabilities[0] == pytest.approx(probabilities[1], abs=5e-6)
    assert engine != "ddp" or len({round(p, 4) for p in probabilities[0]}) > 45


def test_korean_sentiment(tmp_path, monkeypatch, capfd):
    """Real reviews in a real file; the tokenizer knows none of them, so only the machinery is tested."""
    file = shared_data("tasks/nsmc_sentiment_dev.tsv")
    make_encoder(tmp_path / "model")
    words = ["--models", "model", "--task.kind=classification", f"--task.train_file={file}", "--run.dir=run"]
    words += ["--task.train_rows=64", "--task.test_fraction=0.02", "--task.dev_fraction=0.02", "--train.epochs=1"]
    code, _, err = run_here(
        [*words, "--run.seeds", "1", "--tracking.trackers"],
        tmp_path,
        monkeypatch,
        capfd,
        SCRIPT,
    )
    assert (code, err) == (0, "")
    [entry] = results(tmp_path / "run")["tasks"].values()
    found = entry["models"]["model"]["seeds"]["1"]
    assert found["rows"]["train"] == 64 and 60 < found["rows"]["test"] < 140
    assert 0 <= found["test"]["accuracy"] <= 1


MISTAKES = {
    "no model": (["--models", "./nowhere"], ["models", "nowhere"]),
    "a folder that is no model": (["--models", "."], ["config.json"]),
    "no file": (["--task.train_file=none.tsv"], ["none.tsv"]),
    "wrong column": (["--task.label_column=mood"], ["train.jsonl", "line 1", "'mood'", "text, label"]),
    "wrong kind": (["--task.kind=regression"], ["'no'", "not a number"]),
    "too long": (["--task.max_length=200"], ["128 positions", "task.max_length 200"]),
    "fp16 on a CPU": (["--train.precision=fp16"], ["fp16", "GPU"]),
    "another folder": (["--run.dir=first"], ["run.dir first", "not empty"]),
    "unknown tracker": (["--tracking.trackers=paper"], ["paper"]),
    "loss that is not finite": (
        ["--optim.learning_rate=1e30"],
        ["not finite", "optim.learning_rate", "another --run.dir"],
    ),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes_are_one_line(place, monkeypatch, capfd, what):
    words, expected = MISTAKES[what]
    run = "mistake-" + what.replace(" ", "-")
    code, _, err = run_here(line(run, *words), place, monkeypatch, capfd, SCRIPT)
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert all(part in err for part in expected), err
    if what != "loss that is not finite":
        assert not (place / run).exists()
