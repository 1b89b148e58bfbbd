"""What the loop does between two steps when a run goes on."""

import shutil

from electra_accel.runs import run_folder
from tests.pretraining_runs import options, run_here, write_corpus


def test_a_run_that_goes_on_at_step_0_is_not_judged_twice(tmp_path, monkeypatch, capfd):
    """Its first checkpoint is of step 0 where patience is set; a kill may come right after it."""
    write_corpus(tmp_path / "text.txt", most=300)
    line = options(
        "text.txt", "run", train__steps=2, eval__patience=3, optim__warmup_steps=1, tracking__mode="disabled"
    )
    code, _, _ = run_here([*line, "--run.deadline=0:00"], tmp_path, monkeypatch, capfd)
    assert code == 75
    shutil.rmtree(tmp_path / "run" / run_folder.CHECKPOINTS / "step-00000001")
    code, out, _ = run_here(line, tmp_path, monkeypatch, capfd)
    assert code == 0 and "from step 0" in out and "at step 0:" not in out
    metrics = run_folder.read_jsonl(tmp_path / "run" / run_folder.METRICS)
    assert [record["step"] for record in metrics if "eval/auc" in record] == [0, 2]
    shown = [record["step"] for record in run_folder.read_jsonl(tmp_path / "run" / run_folder.SAMPLES)]
    assert shown.count(0) == shown.count(2) > 0
