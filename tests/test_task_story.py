"""The story of an adaptation with figures of tasks: pre-training, fine-tuning and the story as a user runs them."""

import json

from tests.finetuning.small import rows, write_jsonl
from tests.pretraining_runs import run_here, run_short, write_corpus

SHORT = {
    "train__steps": 4,
    "checkpoint__every": 2,
    "eval__every": 2,
    "eval__batches": 1,
    "tracking__samples": "none",
    "tokenizer__train_vocab_size": 400,
    "optim__warmup_steps": 0,
}


def test_the_story_speaks_of_tasks(tmp_path, monkeypatch, capfd):
    """Of a run from scratch: what pre-training did to a task, in the terminal, as json and in an export's card."""
    write_corpus(tmp_path / "text.txt", most=300)
    code, out, err = run_short(SHORT, tmp_path, monkeypatch, capfd)("run")
    assert code == 0, out + err

    def export_here(*words):
        return run_here(words, tmp_path, monkeypatch, capfd, "export.py")

    write_jsonl(tmp_path / "task.jsonl", rows(60))
    words = ["--models", "untrained:run/discriminator", "run/discriminator", "--task.kind=classification"]
    words += ["--task.train_file=task.jsonl", "--task.dev_fraction=0.3", "--task.max_length=32", "--train.epochs=1"]
    words += ["--run.seeds", "1", "2", "--run.dir=tasks", "--tracking.trackers"]
    code, _, err = run_here(words, tmp_path, monkeypatch, capfd, "finetune.py")
    assert code == 0, err
    models = json.loads((tmp_path / "tasks" / "results.json").read_text("utf-8"))["tasks"]["task"]["models"]
    difference = models["run"]["summary"]["dev"]["accuracy"]["difference"]
    told = run_here(["run", "--tasks", "tasks", "--json", "s.json"], tmp_path, monkeypatch, capfd, "adaptation.py")
    assert told[0] == 0 and "run: fine-tuned, it is " in told[1], told
    [task] = json.loads((tmp_path / "s.json").read_text("utf-8"))[0]["tasks"]
    assert task["difference"] == difference and f"({difference['mean']:+.4f}, 95% interval" in told[1]

    code, _, err = export_here("run", "--to", "with tasks", "--tasks", "tasks")
    assert code == 0, err
    card, other = (
        (tmp_path / "with tasks" / name / "README.md").read_text("utf-8") for name in ("discriminator", "generator")
    )
    assert f"| task | accuracy, dev | {task['before']:.4f} | {task['after']:.4f} |" in card
    assert "Fine-tuned, it is " in card and "| task |" not in other
    code, _, err = export_here("run/checkpoints/step-00000002", "--to", "step 2", "--tasks", "tasks")
    assert code == 2 and "of other weights" in err, "step 4 was fine-tuned"
    assert list((tmp_path / "step 2").iterdir()) == []
    code, _, err = export_here("run", "--to", "none", "--tasks", "run")
    assert code == 2 and "run holds no figures of tasks" in err and not (tmp_path / "none").exists()
