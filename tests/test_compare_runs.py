"""compare_runs.py on four real runs (two settings, two seeds each), and the page that it makes in a real browser."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from electra_accel.errors import UserError
from electra_accel.reports.sources import read_experiments
from electra_accel.runs import run_folder
from tests.browser import DESKTOP, PHONE, headless
from tests.helpers import run_in_process, run_script
from tests.pretraining_runs import options, run_here, write_corpus

STEPS = 10
RUNS = {f"mask{mask_prob}-seed{seed}": (mask_prob, seed) for mask_prob in (15, 40) for seed in (1, 2)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with runs/<name> for each of RUNS; the first one was recorded by W&B too, offline."""
    place = tmp_path_factory.mktemp("compare")
    write_corpus(place / "text.txt", most=400)
    for number, (name, (mask_prob, seed)) in enumerate(RUNS.items()):
        changed = {
            "objective__mask_prob": mask_prob / 100,
            "run__seed": seed,
            "train__steps": STEPS,
            "eval__every": 5,
            "checkpoint__every": 100,
        }
        arguments = options("text.txt", Path("runs") / name, tracking__samples="none", **changed)
        mode = "disabled" if number else "offline"
        done = run_in_process("pretrain.py", *arguments, cwd=place, WANDB_MODE=mode)
        assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture
def copies(place, tmp_path):
    """Copies of the four runs (without weights) that a test may change: ``{name: folder}``."""
    for name in RUNS:
        kept = shutil.ignore_patterns("checkpoints", "generator", "discriminator", "wandb", "report.html")
        shutil.copytree(place / "runs" / name, tmp_path / name, ignore=kept)
    return {name: tmp_path / name for name in RUNS}


def compare(out: Path, *arguments):
    """Output of the script on stdout, which must end well, and the rows of comparison.csv."""
    done = run_in_process("compare_runs.py", *arguments, "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(out / "comparison.csv", encoding="utf-8", newline="") as file:
        return done.stdout + done.stderr, list(csv.DictReader(file))


def number(cell: str) -> float | str:
    """W&B writes 0.0 as 0."""
    try:
        return float(cell)
    except ValueError:
        return cell


def last_evaluation(run: Path) -> dict:
    return [record for record in run_folder.read_jsonl(run / run_folder.METRICS) if "eval/auc" in record][-1]


def markdown_tables(text: str) -> dict[str, list[dict]]:
    """Rows of each table by its heading."""
    tables = {}
    for part in text.split("\n## ")[1:]:
        lines = [line[2:-2].split(" | ") for line in part.splitlines() if line.startswith("| ")]
        if lines:
            tables[part.partition("\n")[0]] = [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
    return tables


def test_real_runs_are_grouped_by_seed_and_judged(place, tmp_path):
    printed, rows = compare(tmp_path / "out", *(place / "runs" / name for name in RUNS))
    assert "4 runs in 2 groups" in printed and "not comparable" not in printed, printed
    assert [row["group"] for row in rows] == ["mask_prob 0.15"] * 2 + ["mask_prob 0.4"] * 2
    for row in rows:
        record = last_evaluation(place / "runs" / row["run"])
        assert float(row["final/discriminator_loss"]) == record["eval/discriminator_loss"]
        assert float(row["final/discriminator_loss_se"]) == record["eval/discriminator_loss_se"]
        assert (int(row["final/step"]), int(row["train/tokens"])) == (STEPS, record["train/tokens"])
        assert float(row["train/flops"]) == record["train/flops"] and float(row["speed/tokens_per_second"]) > 0
    assert set(rows[0]) & {"run.seed", "objective.mask_prob", "run.dir"} == {"run.seed", "objective.mask_prob"}
    assert "note: The runs were trained on different" in printed
    assert "note: So the primary figure is ROC-AUC" in printed and "\nROC-AUC, mask_prob 0.4: " in printed
    lines = [line.split() for line in printed.splitlines() if line.startswith("mask")]
    assert [line[0] for line in lines] == [*RUNS, *RUNS], "a line of figures and one of settings for each run"
    assert lines[0][1] == f"{float(rows[0]['final/generator_loss']):.4f}" and lines[4][1:3] == ["1", "0.15"]
    tables = markdown_tables((tmp_path / "out" / "comparison.md").read_text("utf-8"))
    verdicts = tables["Compared with mask\\_prob 0.15"]
    assert verdicts[0]["figure"] == "ROC-AUC" and "95% interval" in verdicts[0]["verdict"]
    (loss,) = [row["verdict"] for row in verdicts if row["figure"] == "discriminator loss"]
    assert loss.startswith(("+", "−")) and "does not say which is better" in loss
    assert [row["run"] for row in tables["Settings, speed and cost"]] == list(RUNS)
    groups = tables["Groups: mean ± standard deviation over seeds"]
    mean = sum(float(row["final/generator_loss"]) for row in rows[:2]) / 2
    assert groups[0]["generator loss"].startswith(f"{mean:.4f} ± ") and groups[0]["seeds"] == "2"


def test_an_offline_wandb_folder_says_the_same_as_the_run_folder(place, tmp_path):
    name = next(iter(RUNS))
    _, rows = compare(tmp_path / "out", place / "runs" / name, f"{place}/runs/{name}/wandb/offline-run-*")
    folder, wandb = rows
    assert {key for key in folder if number(folder[key]) != number(wandb[key])} == {"run", "source"}
    assert float(wandb["final/auc"]) == last_evaluation(place / "runs" / name)["eval/auc"]


def test_runs_that_cannot_be_compared_are_flagged(copies, tmp_path):
    """In one line each, and their figures appear nowhere."""
    first, same, corrupt, foreign = copies.values()
    for folder, changed in ((corrupt, {"corruption": "other"}), (foreign, {"tokenizer": "other"})):
        path = folder / "held_out" / "held_out.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    status = json.loads((same / "status.json").read_text())
    (same / "status.json").write_text(json.dumps(status | {"state": "running", "step": 7}))
    printed, rows = compare(tmp_path / "out", *copies.values())
    notes = [line for line in printed.splitlines() if line.startswith("note: ")]
    (flag,) = [note for note in notes if corrupt.name in note]
    assert "another corruption" in flag and "the generator's figures compare" in flag and "--rescore" in flag
    (flag,) = [note for note in notes if foreign.name in note]
    assert "another tokenizer" in flag and "none of the held-out figures" in flag
    (flag,) = [note for note in notes if same.name in note]
    assert f"not finished (running at step {STEPS})" in flag
    shown = {row["run"]: (row["final/generator_loss"] != "", row["final/auc"] != "") for row in rows}
    assert list(shown.values()) == [(True, True), (True, True), (True, False), (False, False)]
    tables = markdown_tables((tmp_path / "out" / "comparison.md").read_text("utf-8"))
    row = next(row for heading, rows in tables.items() if heading.startswith("Runs") for row in rows[-1:])
    assert (row["ROC-AUC"], row["best ROC-AUC"]) == ("not comparable", "not comparable")


def test_a_run_without_figures_is_a_row(copies, tmp_path):
    """As older folders are, and those that have just begun."""
    first, second, bare, older = copies.values()
    for name in (run_folder.METRICS, run_folder.ENVIRONMENT, "status.json"):
        (bare / name).unlink()
    (older / "held_out" / "held_out.json").unlink()
    printed, rows = compare(tmp_path / "out", first, second, bare, older)
    assert f"{bare.name} has no held-out figures" in printed
    assert f"{older.name}: no record of its held-out set" in printed
    assert [row["state"] for row in rows] == ["done", "done", "new at step 0", "done"]


def test_rescoring_puts_all_runs_on_one_corruption(place, tmp_path):
    """Two runs, one of which says that it was judged on another corruption; the first one's is that of its own training."""
    first, other = place / "runs" / "mask15-seed1", tmp_path / "other"
    shutil.copytree(place / "runs" / "mask40-seed1", other)
    path = other / "held_out" / "held_out.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"corruption": "other"}))
    command = ["compare_runs.py", first, other, "--out", tmp_path / "out", "--rescore"]
    refused = run_in_process(*command, "nowhere.txt", cwd=place)
    assert refused.returncode == 2 and "cannot be scored again" in refused.stderr and "nowhere.txt" in refused.stderr
    done = run_in_process(*command, cwd=place)
    assert done.returncode == 0 and "another corruption" not in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("\nunknown tokens: ") == 2
    with open(tmp_path / "out" / "comparison.csv", encoding="utf-8", newline="") as file:
        ours, theirs = csv.DictReader(file)
    assert ours["corruption"] == theirs["corruption"] != "other"
    for row, run in ((ours, first), (theirs, other)):
        assert float(row["final/auc"]) == pytest.approx(last_evaluation(run)["eval/auc"], abs=1e-6)
        assert int(row["final/step"]) == STEPS
    assert ours["best/auc"] and not theirs["best/auc"], "what was not scored again is still not comparable"


def test_one_network_beside_a_pair(place, tmp_path, monkeypatch, capfd):
    """The baseline of masked language modelling: the generator's figures compare, nothing else is asked of it."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    same = {"train__steps": STEPS, "eval__every": 5, "checkpoint__every": 100, "tracking__samples": "none"}
    alone = options("text.txt", Path("alone") / "mlm", objective__kind="mlm", model__generator_width=None, **same)
    code, out, err = run_here(alone, place, monkeypatch, capfd)
    assert code == 0, out + err
    pair, mlm = place / "runs" / "mask15-seed1", place / "alone" / "mlm"
    command = [pair, mlm, "--out", tmp_path / "out"]
    for rescored in ([], ["--rescore"]):
        code, out, err = run_here([*command, *rescored], place, monkeypatch, capfd, "compare_runs.py")
        assert code == 0 and "has no held-out figures" not in out, out + err
        assert ("mlm trained one network (objective.kind mlm)" in err) == bool(rescored)
        with open(tmp_path / "out" / "comparison.csv", encoding="utf-8", newline="") as file:
            ours, theirs = csv.DictReader(file)
        known = [
            record for record in run_folder.read_jsonl(mlm / run_folder.METRICS) if "eval/generator_loss" in record
        ]
        assert float(theirs["final/generator_loss"]) == known[-1]["eval/generator_loss"]
        assert ours["final/auc"] and not theirs["final/auc"]
        table = markdown_tables((tmp_path / "out" / "comparison.md").read_text("utf-8"))
        (verdicts,) = [rows for heading, rows in table.items() if heading.startswith("Compared with")]
        said = {row["figure"]: row["verdict"] for row in verdicts}
        assert said["ROC-AUC"].endswith("has no discriminator") and "not comparable" not in said["generator loss"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "at least two runs"),
        (["nowhere"], "nowhere: nothing matches"),
        (["docs/*"], "docs/*: no run folder matches"),
        (["docs", "tests"], "docs is no run folder"),
        (["wandb:project"], "wandb:entity/project"),
        (["a", "b", "--reference_generator", "g"], "--reference_generator goes with --rescore"),
        (["a", "--every", "3"], "--every"),
    ],
)
def test_what_is_no_run_is_one_line(arguments, said):
    done = run_in_process("compare_runs.py", *arguments)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_wandbs_server_without_an_account_is_one_line(tmp_path):
    """No key anywhere: W&B says so before it asks the network."""
    nobody = {
        "HOME": str(tmp_path),
        "NETRC": str(tmp_path / "none"),
        "WANDB_API_KEY": "",
        "WANDB_CONFIG_DIR": str(tmp_path),
    }
    done = run_script("scripts/compare_runs.py", "wandb:nobody/nothing", **nobody)
    assert done.returncode == 2 and "wandb:nobody/nothing " in done.stderr, done.stderr
    assert "API key" in done.stderr and done.stderr.count("\n") == 1


def test_damaged_and_lonely_runs_are_one_line(place, copies, tmp_path):
    first, second, *_ = copies.values()
    for arguments, said in (
        ([place / "runs"], f"give the runs in it: '{place / 'runs'}/*'"),
        ([first, first], "is one run: give at least two"),
        ([first, second, "--out", first / "status.json"], "choose another"),
    ):
        done = run_in_process("compare_runs.py", *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1) and said in done.stderr, done.stderr
    (second / run_folder.METRICS).write_text('{"step": 1}\nnot json\n')
    done = run_in_process("compare_runs.py", first, second, "--out", tmp_path / "out")
    assert done.returncode == 2 and f"{second / run_folder.METRICS} is damaged" in done.stderr
    log = second / "run-x.wandb"
    (second / run_folder.CONFIG).unlink()
    log.write_bytes(b"no log")
    done = run_in_process("compare_runs.py", first, second, "--out", tmp_path / "out")
    assert done.returncode == 2 and f"{log} is no whole W&B log" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("environment.json", "[]"),
        ("held_out/held_out.json", "7"),
        ("status.json", "[]"),
        ("metrics.jsonl", "7\n"),
        ("config.yaml", "- a\n- b\n"),
        ("config.yaml", "eval: {metric: f1}\n"),
    ],
)
def test_a_damaged_file_is_named(copies, tmp_path, name, content):
    """JSON and YAML that are whole, and hold something else than they should."""
    first, second, *_ = copies.values()
    (second / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(f"{second / name} is damaged")):
        read_experiments([str(first), str(second)], warn=print)


def test_the_page_works_from_a_copied_folder(copies, tmp_path):
    """In Chromium: no error, no request, no overflow; the x-axis changes; what users wrote is text."""
    hostile = "<script>alert(1)</script></script><b>x [red]y"
    first, second, third, fourth = copies.values()
    config = (second / run_folder.CONFIG).read_text()
    (second / run_folder.CONFIG).write_text(config.replace("text_column: text", f"text_column: '{hostile}'"))
    named = third.with_name("<img src=x onerror=alert(1)>")
    third.rename(named)
    printed, _ = compare(tmp_path / "out", first, second, named, fourth)
    assert hostile in printed
    copied = tmp_path / "elsewhere"
    shutil.move(tmp_path / "out", copied)
    with headless() as browser:
        for width in (PHONE, DESKTOP):
            browser.open(copied / "comparison.html", width=width, dark=width == PHONE)
            assert (browser.errors(), browser.requests(), browser.overflow()) == ([], [], 0)
            seen = browser.run("document.body.innerText")
            assert hostile in seen and named.name in seen
            assert browser.run("document.querySelectorAll('main b, main img').length") == 0
        ends = (
            "[...document.querySelectorAll('.pane:not([hidden]) .js-plotly-plot')].map(p => Math.max(...p.data[0].x))"
        )
        by_step = browser.run(ends)
        browser.driver.find_element("xpath", "//label[normalize-space(.)='tokens']/input").click()
        by_tokens = browser.run(ends)
        assert by_step[-1] == STEPS and by_tokens[-1] == last_evaluation(first)["train/tokens"]
