"""scripts/check_cluster.py: who is called odd, and real processes that agree, differ, or never answer."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from electra_accel.data.prepare import Prepared, prepare
from electra_accel.text.corpus import Corpus
from tests.helpers import ROOT, run_script
from tests.pretraining_runs import finish, write_corpus
from tests.processes import popen

SCRIPT = ROOT / "scripts" / "check_cluster.py"
spec = importlib.util.spec_from_file_location("check_cluster", SCRIPT)
check_cluster = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_cluster)


def processes(hosts: int, each: int, **odd: dict[str, str]) -> list:
    """Facts of ``each`` processes on every host; ``odd`` maps h<host> or r<rank> to values that differ there."""
    found = []
    for rank in range(hosts * each):
        host = rank // each
        values = {"torch": "2.13.0", "driver": "570.1"} | odd.get(f"h{host}", {}) | odd.get(f"r{rank}", {})
        found.append(check_cluster.Facts(rank, f"node{host}", "H100", values))
    return found


def test_equal_processes_differ_in_nothing():
    assert check_cluster.differences(processes(4, 8)) == []


def test_the_odd_host_is_named_and_the_majority_only_by_example():
    (line,) = check_cluster.differences(processes(8, 8, h5={"torch": "2.12.0"}))
    assert line.startswith("torch on node5: 2.12.0, ") and line.endswith("node0): 2.13.0")
    lines = check_cluster.differences(
        processes(8, 1, h0={"driver": "550.2"}, h3={"torch": "2.12.0", "driver": "535.0"})
    )
    assert lines == [
        "torch on node3: 2.12.0, on all others (such as node0): 2.13.0",
        "driver on node0: 550.2, on node3: 535.0, on all others (such as node1): 570.1",
    ]


def test_of_two_hosts_nobody_can_say_which_is_odd():
    (line,) = check_cluster.differences(processes(2, 2, h1={"torch": "2.12.0"}))
    assert line == "torch on node0: 2.13.0, on node1: 2.12.0"


def test_ranks_are_named_where_one_host_disagrees_with_itself():
    (line,) = check_cluster.differences(processes(2, 4, r6={"driver": "550.2"}))
    assert line == "driver on node1 rank 6: 550.2, on all others (such as node0): 570.1"


def test_what_only_one_host_has_is_missing_on_the_others():
    (line,) = check_cluster.differences(processes(3, 1, h2={"ACCELERATE_USE_CPU": "true"}))
    assert line == "ACCELERATE_USE_CPU on node2: true, on all others (such as node0): missing"


def test_what_cannot_be_used_comes_first_and_is_told_although_it_is_so_everywhere():
    broken = {"prepared data": "cannot be used: no such folder"}
    (line,) = check_cluster.differences(processes(2, 2, h0=broken, h1=broken))
    assert line == "prepared data on node0 and node1: cannot be used: no such folder"
    whole = {"prepared data": "abcd"}
    (line,) = check_cluster.differences(processes(3, 1, h0=broken, h1=whole, h2=broken))
    assert line == "prepared data on node0 and node2: cannot be used: no such folder, on node1: abcd"


def test_bandwidths_are_those_of_nccl_tests():
    """A ring sends 2 (n - 1) / n of the bytes over each link: 1 GB in 10 ms on 8 processes is 100 and 175 GB/s."""
    assert check_cluster.bandwidths(1e9, 0.01, 8) == pytest.approx((100, 175))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders a and b, two working folders; ``data`` in a is prepared, b has none."""
    folder = tmp_path_factory.mktemp("cluster")
    write_corpus(folder / "text.txt", most=60)
    settings = dict(train_vocab_size=300, max_length=64, eval_fraction=0.05, join_lines=False, log=lambda line: None)
    made = prepare(folder, Corpus(files=(str(folder / "text.txt"),)), {}, tokenizer=None, **settings)
    for name in "ab":
        (folder / name).mkdir()
    made.rename(folder / "a" / "data")
    return folder


def start(cwd: Path, rank: int, port: int, *arguments: str) -> subprocess.Popen[str]:
    """One process of two as torchrun starts it, without a launcher above it that would hide its exit code."""
    launch = {"RANK": rank, "LOCAL_RANK": 0, "GROUP_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 1}
    launch |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": 1}
    return popen(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=cwd,
        env=os.environ | {name: str(value) for name, value in launch.items()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.slow
def test_two_processes_that_agree_get_a_table(place):
    launch = ["-m", "accelerate.commands.launch", "--config_file", ROOT / "accelerate_configs" / "ddp.yaml"]
    launch += ["--num_processes", "2", "--main_process_port", "0"]
    data = place / "a" / "data"
    done = run_script(*launch, SCRIPT, "--prepared", data, timeout=150, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "backend gloo" in done.stdout and f"{os.uname().nodename} (machine 0): ranks 0 1: CPU" in done.stdout
    assert f"prepared data {Prepared(data).fingerprint}" in done.stdout
    rows = [list(map(float, row.split())) for row in re.findall(r"^ +([\d.]+(?: +[\d.]+){3})$", done.stdout, re.M)]
    assert [megabytes for megabytes, *_ in rows] == list(check_cluster.SIZES["cpu"])
    for megabytes, milliseconds, algorithm, bus in rows:
        assert (
            bus == algorithm == pytest.approx(megabytes / milliseconds, rel=0.1, abs=0.001)
        )  # of two, 2 (n - 1) / n is 1
    assert done.stdout.endswith("all 2 processes agree\n")


@pytest.mark.slow
def test_a_host_without_the_data_is_named_and_both_leave_with_2(place):
    port = free_port()
    both = [start(place / name, rank, port, "--prepared", "data") for rank, name in enumerate("ab")]
    for code, out, err in map(finish, both):
        assert code == 2, out + err
        (line,) = (line for line in err.splitlines() if line.startswith("error: "))
        assert f"prepared data on {os.uname().nodename} (machine 1): cannot be used: data: not a folder" in line
        assert "Traceback" not in err and "all-reduce" not in out


def test_where_nobody_else_comes_it_gives_up_in_one_line(place):
    code, out, err = finish(start(place, 0, free_port(), "--timeout", "3"), timeout=100)
    assert code == 2, out + err
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert f"{os.uname().nodename} (machine 0): no answer for 3 s while the processes find each other" in line
    assert "Traceback" not in err
