"""Two processes that are far apart in time."""

import os
import socket
import subprocess
import sys

import pytest

from electra_accel.engines import deepspeed
from electra_accel.engines.open import open_engine
from electra_accel.errors import UserError
from tests.helpers import ROOT

PROGRAM = """
import datetime, os, time, weakref
from pathlib import Path
import torch
from electra_accel import cli
from electra_accel.engines import flat
from electra_accel.errors import Preempted, UserError
from electra_accel.engines.open import open_engine
destroy = torch.distributed.destroy_process_group
def watched():
    print("of the model is left:", prepared(), flush=True)
    destroy()
torch.distributed.destroy_process_group = watched
def main():
    global prepared
    engine = open_engine(precision="no", cpu=True, trackers=[], folder=Path("."))
    module = torch.nn.Linear(2, 2)  # with other weights in each process
    model = engine.prepare(module, torch.optim.AdamW(module.parameters()), None, max_norm=1.0)
    prepared = weakref.ref(model)
    first, second = engine.everywhere(module.weight.tolist())
    print("the first one's weights:", first == second, flush=True)
    flat.BUCKET = 3  # a message for each weight
    engine.backward(model(torch.ones(1, 2)).sum() * (engine.rank + 1))
    engine.gradients.exchange()
    print("both gradients:", module.weight.grad.tolist(), module.bias.grad.tolist(), flush=True)
    engine.gradients.clear()
    try:
        engine.gradients.exchange()
    except UserError as error:
        print(str(error)[:40], flush=True)
    torch.distributed.distributed_c10d._set_pg_timeout(datetime.timedelta(seconds=2))
    def work(seconds, problem=None):
        time.sleep(seconds[engine.rank])
        if problem and engine.rank == 1:
            raise UserError(problem)
        return engine.rank
    print(engine.on_main(lambda: work([4, 0])), flush=True)
    try:
        engine.together(lambda: work([0, 4], "no such file on this host"))
    except UserError as error:
        print(error, flush=True)
    if END == "good":
        return 0
    work([3, 0])
    Path(f"stopped-{engine.rank}").touch()
    if END == f"{engine.rank} is killed":
        os._exit(9)
    raise Preempted("it was asked to")
cli.LEAVE_TOGETHER = 6.0
cli.exit_with_one_line(main)
"""


@pytest.mark.parametrize(
    ("end", "codes"),
    [("good", (0, 0)), ("stop", (75, 75)), ("0 is killed", (9, 75)), ("1 is killed", (75, 9))],
)
def test_whoever_is_done_first_waits_longer_than_collectives_do(end: str, codes: tuple[int, int], tmp_path):
    """Here they give up after two seconds; under NCCL after ten minutes, and hosts without a shared disk prepare for hours.

    At their end, also where they were asked to stop, nobody leaves before all have come, but for a while only where one
    was killed after that. The model goes before the process group: the other way round a process hung now and then.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", f"END = {end!r}\n{PROGRAM}"],
            cwd=tmp_path,
            env={**os.environ, **place, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for code, process in reversed(list(zip(codes, processes))):
            out, err = process.communicate(timeout=100)
            assert (process.returncode, "Traceback" in err) == (code, False), err
            assert end == "good" or code == 9 or (tmp_path / "stopped-0").exists(), "the second one left first"
            said = ["the first one's weights: True", "both gradients: [[3.0, 3.0], [3.0, 3.0]] [3.0, 3.0]"]
            said += ["2 of the 2 trained weights have no gradi", "0", "no such file on this host"]
            assert out.splitlines() == said + ["of the model is left: None"] * (code != 9)
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize(
    ("launched", "variables", "part"),
    [
        ("fsdp", {"FSDP_VERSION": "2"}, "FSDP2 needs GPUs"),
        ("fsdp", {"FSDP_VERSION": "1"}, "fsdp_version to 2"),
        ("deepspeed", {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "0"}, "ZeRO stage 0"),
    ],
)
def test_launch_files_that_would_run_something_else_are_refused(launched, variables, part, monkeypatch, tmp_path):
    monkeypatch.setattr(deepspeed, "deepspeed_version", lambda: "0.19.8")
    monkeypatch.setenv(f"ACCELERATE_USE_{launched.upper()}", "true")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=part):
        open_engine(precision="no", cpu=True, trackers=[], folder=tmp_path)


def test_deepspeed_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr(deepspeed, "deepspeed_version", lambda: None)
    with pytest.raises(UserError, match="not installed: pip install"):
        open_engine(precision="no", cpu=True, trackers=[], folder=tmp_path)
