"""Nothing that a run writes has a key, a token or the name of the user in it."""

import os
import subprocess
import sys

from tests.helpers import ROOT
from tests.pretraining_runs import options, write_corpus

PLANTED = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_plantedplantedplantedplanted",
    "AWS_SECRET_ACCESS_KEY": "plantedsecretofaws",
    "DATABASE_PASSWORD": "plantedpassword",
    "ACCELERATE_TOKEN": "plantedtokenofalaunch",
    "USER": "planteduser",
    "LOGNAME": "planteduser",
    "USERNAME": "planteduser",
}


def test_planted_secrets_are_in_no_file_of_a_run(tmp_path):
    """With all that writes: W&B's own files, TensorBoard's, prepared text, report, cards, and the record of a failure."""
    write_corpus(tmp_path / "text.txt", most=300)
    chosen = dict(
        train__steps=2, train__batch_tokens=512, optim__warmup_steps=1, eval__every=2, eval__batches=1, checkpoint__every=1,
        tracking__mode="offline",
    )  # fmt: skip
    words = [sys.executable, str(ROOT / "scripts" / "pretrain.py"), *options("text.txt", "run", **chosen)]
    words += ["--tracking.trackers", "wandb", "tensorboard"]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env={**os.environ, **PLANTED, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    names = {path.name for path in written}
    assert {"config.yaml", "environment.json", "report.html", "README.md", "manifest.json"} <= names
    assert any(name.endswith(".wandb") for name in names) and any("tfevents" in name for name in names)
    written |= {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    found = [
        f"{variable} in {path}"
        for variable, secret in PLANTED.items()
        for path, content in written.items()
        if secret.encode() in content
    ]
    assert not found
