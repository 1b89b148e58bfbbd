"""``make slurm-test``: scripts/slurm/pretrain.sbatch on a real two-node Slurm that is started here, on this one machine.

Two jobs with the same options share both nodes. One is left alone. The other is asked to stop twice, the first time while the
disk is so slow that saving takes longer than the 30 s that torchrun and Slurm grant a process that they have told to end. Both
must end with the same figures and the same weights. Beside them a job that fails and one that is cancelled: neither may come
back.

Needs root, Linux and apt-get; three to five minutes on two cores. LAUNCH=$PWD/accelerate_configs/zero2.yaml takes another
engine than DDP. Exit codes: 0 all is well, 1 something is not, 2 it cannot run here.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from electra_accel.cli import exit_with_one_line
from electra_accel.errors import UserError
from electra_accel.runs import run_folder
from tests.helpers import ROOT
from tests.pretraining_runs import metrics, options, write_corpus
from tests.slurm import cluster

LIMIT = 900  # seconds for all of it, on a machine that is busy with other things, too
STEPS = 150
OPTIONS = {"train__steps": STEPS, "tracking__log_every": 3, "eval__every": 50, "tracking__samples_every": 50}
OPTIONS["checkpoint__every"] = 1000  # so that what a run goes on from is what it saved when it was asked to stop
SLOW_FSYNC = 5  # seconds; a checkpoint flushes seven times, its status once more
BEGAN = time.monotonic()

# A slow disk, as far as a process can tell: every flush takes its time as long as the file exists. Python imports a module
# of this name at its start wherever it finds one.
SITECUSTOMIZE = f"""
import os, time
flush = os.fsync
def slow_flush(descriptor):
    if os.path.exists(os.environ["SLOW_DISK"]):
        time.sleep({SLOW_FSYNC})
    flush(descriptor)
os.fsync = slow_flush
"""


def main() -> int:
    if sys.argv[1:] != ["inside"]:
        os.environ["PATH"] += ":/usr/sbin:/sbin"  # where Debian has slurmctld, munged and ip
        require_slurm()
        with tempfile.TemporaryDirectory(prefix="slurm-test-", ignore_cleanup_errors=True) as folder:
            # Whatever ends this process ends unshare, and with it everything inside.
            command = ["setpriv", "--pdeathsig", "KILL", *cluster.NAMESPACES]
            command += [sys.executable, "-m", "tests.slurm.drive", "inside"]
            environment = {**os.environ, "SLURM_TEST_FOLDER": folder, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
            environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # the jobs' accelerate
            return int(subprocess.run(command, cwd=ROOT, env=environment, timeout=LIMIT + 60).returncode != 0)
    folder = Path(os.environ["SLURM_TEST_FOLDER"])
    folder.chmod(0o711)  # munge wants its socket's folder to be passable
    work = folder / "work"
    work.mkdir()
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(LIMIT)
    try:
        cluster.start(folder)
        say("two nodes are up")
        drive(work)
    except AssertionError as failure:
        for log in sorted([*work.glob("slurm-*.out"), *work.glob("slurm-*/start-*/*.log")]):
            print(f"--- {log.relative_to(work)}\n{log.read_text()[-3000:]}", file=sys.stderr)
        print(f"FAILED: {failure}", file=sys.stderr)
        return 1
    say("passed")
    return 0


def out_of_time(*_) -> None:
    raise AssertionError(f"not finished after {LIMIT} s")


def require_slurm() -> None:
    """Install what is missing.

    Raises:
        UserError: not root, no apt-get, or the system does not allow namespaces.
    """
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        raise UserError("make slurm-test starts Slurm and network namespaces: run it as root, on Linux")
    if cluster.missing():
        if not shutil.which("apt-get"):
            raise UserError(
                f"{', '.join(cluster.missing())} not found, and no apt-get to install Slurm, munge and iproute2"
            )
        print(f"installing {' '.join(cluster.PACKAGES)}", flush=True)
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        try:
            cluster.run("apt-get", "-q", "update", timeout=200, env=quiet)
            install = ["apt-get", "-q", "install", "-y", "--no-install-recommends", *cluster.PACKAGES]
            cluster.run(*install, timeout=400, env=quiet)
            assert not cluster.missing(), f"{', '.join(cluster.missing())} not found"
        except (AssertionError, subprocess.TimeoutExpired) as problem:
            raise UserError(f"Slurm could not be installed: {problem}") from problem
    try:
        cluster.run(*cluster.NAMESPACES, "ip", "link", "add", "switch0", "type", "bridge")
    except AssertionError as problem:
        raise UserError(f"this system allows no namespaces with a network bridge: {problem}") from problem


def drive(work: Path) -> None:
    """All jobs. Those that may not come back run while the disturbed one waits for its disk."""
    write_corpus(work / "text.txt", most=400)
    (work / "recipe.yaml").write_text("model:\n  size: tiny\n")
    (work / "python").mkdir()
    (work / "python" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    slow_disk = work / "slow-disk"
    calm = submit(work)
    search = os.pathsep.join(filter(None, [str(work / "python"), os.environ.get("PYTHONPATH")]))
    disturbed = submit(work, PYTHONPATH=search, SLOW_DISK=str(slow_disk))
    run = work / f"runs/recipe-{disturbed}"

    reach(work, disturbed, run, step=1)
    assert {describe(job)["JobState"] for job in (calm, disturbed)} == {"RUNNING"}, "the jobs were to share the nodes"
    say("two jobs train side by side")
    slow_disk.touch()
    signalled = time.monotonic()
    ask_to_stop(disturbed)
    failing = submit_failing(work)
    cancelled = submit(
        work, nodes=1, steps=1000 * STEPS
    )  # with few it ends by itself while the first one is waited for
    wait_for(work, disturbed, 200, "it is requeued", lambda facts: facts["Restarts"] == "1")
    slow_disk.unlink()
    saving = time.monotonic() - signalled
    first = preempted(run)
    assert saving > 30, f"saving took only {saving:.0f} s"
    say(f"asked to stop, saved step {first} within {saving:.0f} s, requeued")

    reach(work, cancelled, work / f"runs/recipe-{cancelled}", step=1)
    cluster.run("scancel", cancelled)
    for job, state in ((failing, "FAILED"), (cancelled, "CANCELLED")):
        wait_for(work, job, 200, "it ends", lambda facts: facts["JobState"] not in ("RUNNING", "COMPLETING"))
        stays(job, state)
    error = (work / f"slurm-{failing}/start-0/pretrain-node0.log").read_text()
    assert "not a run of ours" in error, error
    say("a job that fails and one that is cancelled have ended")

    reach(work, disturbed, run, step=first + 1)
    ask_to_stop(disturbed)
    wait_for(work, disturbed, 120, "it is requeued again", lambda facts: facts["Restarts"] == "2")
    say(f"asked to stop again, saved step {preempted(run)}, requeued")
    for job in (calm, disturbed):
        wait_for(work, job, 300, "it completes", lambda facts: facts["JobState"] == "COMPLETED")
    say("both jobs have completed")
    stays(failing, "FAILED")
    stays(cancelled, "CANCELLED")
    equal(work, calm, disturbed)


def equal(work: Path, calm: str, disturbed: str) -> None:
    """Both jobs ran on both nodes, and nothing in the result tells which one was stopped."""
    for job, starts in ((calm, 1), (disturbed, 3)):
        on_both_nodes(work, job, starts)
    assert not ports(work, calm) & ports(work, disturbed), "each job has a port of its own"
    runs = [work / f"runs/recipe-{job}" for job in (calm, disturbed)]
    undisturbed, found = map(metrics, runs)
    assert found[-1]["step"] == STEPS and found == undisturbed, "the figures differ"
    for network in ("generator", "discriminator"):
        weights = [(run / network / "model.safetensors").read_bytes() for run in runs]
        assert weights[0] == weights[1], f"the weights of the {network} differ"
    say(f"{len(found)} records and all weights are equal, bit for bit")


def submit_failing(work: Path) -> str:
    """A job that ends with an error, in a run folder whose status says preempted since an earlier start."""
    stale = work / "stale"
    stale.mkdir()
    run_folder.write_status(stale, "preempted", 5, "signal SIGUSR1", 75)  # and nothing else: not a run
    return submit(work, nodes=1, RUN_DIR=str(stale))


def stays(job: str, state: str) -> None:
    facts = describe(job)
    assert (facts["JobState"], facts["Restarts"]) == (state, "0"), facts


def submit(work: Path, nodes: int = 2, steps: int = STEPS, **environment: str) -> str:
    """A job that leaves room for others on its nodes; returns its number."""
    arguments = options(work / "text.txt", None, **OPTIONS | {"train__steps": steps})
    command = ["sbatch", "--parsable", f"--nodes={nodes}", "--cpus-per-task=1", ROOT / "scripts/slurm/pretrain.sbatch"]
    environment = {"CLONE": str(ROOT), "RECIPE": str(work / "recipe.yaml"), **environment}
    return cluster.run(*command, *arguments, cwd=work, env={**os.environ, **environment})


def ask_to_stop(job: str) -> None:
    """As Slurm does by itself some time before the job's time is up (--signal=B:USR1@300)."""
    cluster.run("scancel", "--signal=USR1", "--batch", job)


def describe(job: str) -> dict[str, str]:
    """What Slurm says of a job."""
    words = cluster.run("scontrol", "show", "job", "--oneliner", job).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def wait_for(work: Path, job: str, seconds: float, what: str, true: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """What Slurm says of the job, as soon as it is ``true``.

    Raises:
        AssertionError: ``seconds`` have passed, or the job has ended, which was not asked for.
    """
    found = {}

    def arrived() -> bool:
        found.update(describe(job))
        come = true(found)
        ended = found["JobState"] in ("COMPLETED", "FAILED", "TIMEOUT")
        assert come or not ended, f"job {job} ended ({found['JobState']}) while waiting until {what}"
        return come

    cluster.wait_until(arrived, seconds, f"job {job}: waited in vain until {what}", work / f"slurm-{job}.out")
    return found


def reach(work: Path, job: str, run: Path, step: int) -> None:
    """Wait until the run has logged ``step`` since the job's last start."""

    def reached(facts: dict[str, str]) -> bool:
        state = run_folder.read_status(run)["state"]
        steps = [record["step"] for record in run_folder.read_jsonl(run / run_folder.METRICS)]
        return facts["JobState"] == "RUNNING" and state == "running" and max(steps, default=0) >= step

    wait_for(work, job, 300, f"step {step} is done", reached)


def preempted(run: Path) -> int:
    """The step at which the run was asked to stop and saved."""
    status = run_folder.read_status(run)
    assert (status["state"], status["exit_code"]) == ("preempted", 75), status
    assert status["step"] < STEPS, "it was asked to stop too late"
    return status["step"]


def on_both_nodes(work: Path, job: str, starts: int) -> None:
    """Two processes, one on each node, with logs of nodes and of processes, at every start."""
    run = work / f"runs/recipe-{job}"
    assert run_folder.read_status(run)["state"] == "done"
    environment = json.loads((run / run_folder.ENVIRONMENT).read_text())
    assert (environment["world_size"], environment["host"]) == (2, "n1"), environment
    logs = work / f"slurm-{job}"
    assert sorted(path.name for path in logs.iterdir()) == [f"start-{number}" for number in range(starts)]
    for start in logs.iterdir():
        checked = (start / "check_cluster-node0.log").read_text()
        for words in ("n1 (machine 0): ranks 0", "n2 (machine 1): ranks 1", "all 2 processes agree"):
            assert words in checked, checked
        assert ", 2 processes on" in (start / "pretrain-node0.log").read_text()
        assert (start / "pretrain-node1.log").exists()
        for node in (0, 1):
            assert list(start.glob(f"pretrain-node{node}/**/stdout.log")), f"no log of the process on node {node}"


def ports(work: Path, job: str) -> set[str]:
    return set(re.findall(r"port (\d+),", (work / f"slurm-{job}.out").read_text()))


def say(text: str) -> None:
    print(f"{time.monotonic() - BEGAN:4.0f} s  {text}", flush=True)


if __name__ == "__main__":
    exit_with_one_line(main)
