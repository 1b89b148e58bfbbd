"""One run over two network hosts equals the run on one: hosts are network namespaces with a cable (a veth pair) between them.

Each host has a name, a network, a working folder and prepared data of its own; they share the run folder, as hosts of a
cluster share a file system.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from electra_accel.data.prepare import prepare
from electra_accel.runs import run_folder
from electra_accel.text.corpus import Corpus
from tests.helpers import ROOT
from tests.pretraining_runs import finish, metrics, options, start, write_corpus

HOSTS = ("a", "b")
ADDRESSES = {"a": "10.77.41.1", "b": "10.77.41.2"}  # seen by nobody outside of the two namespaces
PORT = 29500  # free, because the namespaces are new
STEPS = 6
CPU = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


class TwoHosts:
    """Two namespaces joined by a cable; ``run`` starts one ``accelerate launch`` on each."""

    def __init__(self) -> None:
        self.names = {host: f"electra-{os.getpid()}-{host}" for host in HOSTS}
        self.cards = {host: f"ve{os.getpid() % 10**7}{host}" for host in HOSTS}  # at most 15 characters

    def connect(self) -> None:
        for name in self.names.values():
            _ip("netns", "add", name)
        (one, other), (card, other_card) = self.names.values(), self.cards.values()
        _ip("link", "add", card, "netns", one, "type", "veth", "peer", "name", other_card, "netns", other)
        for host, name in self.names.items():
            _ip("-n", name, "address", "add", f"{ADDRESSES[host]}/24", "dev", self.cards[host])
            for card in ("lo", self.cards[host]):
                _ip("-n", name, "link", "set", card, "up")

    def disconnect(self) -> None:
        """Nothing stays: neither a process in the namespaces nor they themselves (and with them the cable)."""
        for name in self.names.values():
            found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, timeout=30)
            for process in found.stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, timeout=30)

    def run(self, place: Path, config: str, script: str, *arguments: object) -> list[tuple[int, str, str]]:
        """Exit code, stdout and stderr on each host of one script that runs as two processes."""
        running = []
        for rank, (host, name) in enumerate(self.names.items()):
            launch = ["--config_file", ROOT / "accelerate_configs" / f"{config}.yaml", "--num_processes", 2]
            launch += ["--num_machines", 2, "--machine_rank", rank]
            launch += ["--main_process_ip", ADDRESSES["a"], "--main_process_port", PORT]
            named = ["unshare", "--uts", "sh", "-c", f'hostname host-{host}; exec "$@"', "sh"]
            command = ["ip", "netns", "exec", name, *named, sys.executable, "-m", "accelerate.commands.launch"]
            running.append(
                subprocess.Popen(
                    list(map(str, [*command, *launch, ROOT / "scripts" / script, *arguments])),
                    cwd=place / host,
                    env=os.environ | CPU | {"GLOO_SOCKET_IFNAME": self.cards[host]},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return [finish(process, timeout=280) for process in running]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30, check=True)


@pytest.fixture(scope="module")
def two_hosts() -> Iterator[TwoHosts]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if missing := [tool for tool in ("ip", "unshare", "hostname") if not shutil.which(tool)]:
        pytest.skip(f"needs {' and '.join(missing)} (packages iproute2, util-linux, hostname)")
    hosts = TwoHosts()
    try:
        try:
            hosts.connect()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this machine allows no network namespaces: {error.stderr.strip()}")
        yield hosts
    finally:
        hosts.disconnect()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Working folders ``one`` (the run on one machine), ``a`` and ``b``, each with a copy of the text."""
    folder = tmp_path_factory.mktemp("two-hosts")
    for name in ("one", *HOSTS):
        (folder / name).mkdir()
        write_corpus(folder / name / "reference.txt", most=400)
    return folder


def arguments(run: Path) -> list[str]:
    changed = dict(train__steps=STEPS, optim__warmup_steps=2, checkpoint__every=STEPS)
    changed |= dict(tokenizer__train_vocab_size=600, eval__every=3, eval__batches=1)
    return options(Path("reference.txt"), run, **changed)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("config", "engine"), [("ddp", "DDP"), ("zero2", "DeepSpeed ZeRO-2")])
def test_two_hosts_train_as_one_machine_does(two_hosts, place, config, engine):
    launch = ["--config_file", ROOT / "accelerate_configs" / f"{config}.yaml", "--main_process_port", 0]
    one, two = place / f"run-one-{config}", place / f"run-two-{config}"
    code, out, err = finish(start(arguments(one), place / "one", [*launch, "--num_processes", 2], **CPU), timeout=280)
    assert code == 0, out + err
    (code, out, err), (other_code, other_out, other_err) = two_hosts.run(place, config, "pretrain.py", *arguments(two))
    assert (code, other_code) == (0, 0), out + err + other_out + other_err
    expected, found = metrics(one), metrics(two)
    assert [record["step"] for record in found if "train/loss" in record] == list(range(1, STEPS + 1))
    assert any("eval/auc" in record for record in found)
    assert found == expected, "the same processes give the same bits, wherever they are"
    assert run_folder.read_status(two)["state"] == "done"
    environment = json.loads((two / run_folder.ENVIRONMENT).read_text())
    assert environment["world_size"] == 2 and environment["engine"].startswith(engine)
    for host in HOSTS:
        assert list((place / host / "prepared").glob("reference-*/manifest.json")), "each host prepared its own data"


@pytest.mark.slow
def test_check_cluster_sees_both_hosts_and_their_equal_data(two_hosts, place):
    settings = dict(train_vocab_size=300, max_length=64, eval_fraction=0.05, join_lines=False, log=lambda line: None)
    text = Corpus(files=(str(place / "one" / "reference.txt"),))
    made = prepare(place / "made", text, {}, tokenizer=None, **settings)
    for host in HOSTS:
        shutil.copytree(made, place / host / "checked")
    (code, out, err), (other_code, other_out, other_err) = two_hosts.run(
        place, "ddp", "check_cluster.py", "--prepared", "checked", "--timeout", 120
    )
    assert (code, other_code) == (0, 0), out + err + other_out + other_err
    for words in ("host-a (machine 0): ranks 0: CPU", "host-b (machine 1): ranks 1: CPU", "all 2 processes agree"):
        assert words in out, out
    assert other_out == "", "one process speaks for all"
