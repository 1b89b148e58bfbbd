"""Do the hosts of a launch agree, and how fast do they talk? Give it the launch line of the run, before the run.

    accelerate launch --config_file accelerate_configs/ddp.yaml --num_processes 2 --main_process_port 0 scripts/check_cluster.py
    accelerate launch --config_file accelerate_configs/ddp.yaml --num_machines 2 --machine_rank 0 … scripts/check_cluster.py \\
        --prepared prepared/books-0123456789abcdef

Prints machines, ranks and devices, versions, and a table of all-reduce bandwidth. Exit codes: 0 all is well; 2 something
differs, or some cannot be reached: one line names the host and what it is (``accelerate launch`` turns 2 into 1).
"""

import hashlib
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

import electra_accel
from electra_accel.cli import argument_parser, exit_with_one_line
from electra_accel.data.prepare import Prepared
from electra_accel.engines.engine import Engine
from electra_accel.engines.hardware import told_by_driver
from electra_accel.engines.open import open_engine
from electra_accel.errors import OneProcessError, UserError
from electra_accel.runs.environment import LAUNCHER, environment
from electra_accel.terminal import Terminal, quiet_libraries

SIZES = {"cuda": (1, 4, 16, 64, 256), "cpu": (0.1, 1, 4, 16)}  # megabytes
SECONDS_A_SIZE, MOST_ROUNDS = 0.5, 20
HOST = f"{platform.node()} (machine {os.environ.get('GROUP_RANK', '0')})"  # cloned machines may have one name
MISSING, UNUSABLE = "missing", "cannot be used"


class Facts(NamedTuple):
    """What one process says of itself."""

    rank: int
    host: str
    device: str
    values: dict[str, str]  # which must be equal on all processes


def differences(everybody: Sequence[Facts]) -> list[str]:
    """One line for each value that is unusable or not the same everywhere: the odd hosts first, then what the others have."""
    lines = []
    for name in dict.fromkeys(name for facts in everybody for name in facts.values):
        groups: dict[str, list[Facts]] = {}
        for facts in everybody:
            groups.setdefault(facts.values.get(name, MISSING), []).append(facts)
        *odd, usual = sorted(groups, key=lambda value: (not value.startswith(UNUSABLE), len(groups[value])))
        if not odd and not usual.startswith(UNUSABLE):
            continue
        hosts = {value: _hosts(groups[value], everybody) for value in (*odd, usual)}
        if odd and all(len(groups[value]) < len(groups[usual]) for value in odd):  # a majority is not listed
            hosts[usual] = f"all others (such as {groups[usual][0].host})"
        lines.append(name + ",".join(f" on {found}: {value}" for value, found in hosts.items()))
    return lines


def _hosts(group: Sequence[Facts], everybody: Sequence[Facts]) -> str:
    """The hosts of a group, with rank numbers where other processes of the same host are not in it."""
    named = []
    for host in dict.fromkeys(facts.host for facts in group):
        ranks = [facts.rank for facts in group if facts.host == host]
        partly = len(ranks) < sum(facts.host == host for facts in everybody)
        named.append(f"{host} rank {' '.join(map(str, ranks))}" if partly else host)
    return " and ".join(named)


def bandwidths(size: float, seconds: float, world_size: int) -> tuple[float, float]:
    """GB/s of an all-reduce of ``size`` bytes: the algorithm's (bytes by time), and the bus' (what each link carries)."""
    algorithm = size / seconds / 1e9
    return algorithm, algorithm * 2 * (world_size - 1) / world_size


def gather_facts(engine: Engine, prepared: Path | None) -> list[Facts]:
    """What every process says of itself, in rank order, on every process."""
    known = environment(engine)
    values = {"python": known["python"]} | known["versions"]
    del values["wandb"]  # only the first process uses it
    if engine.device.type == "cuda":
        values |= {"CUDA": torch.version.cuda, "NCCL": ".".join(map(str, torch.cuda.nccl.version()))}
        values["driver"] = " ".join(told_by_driver("driver_version"))
    # The digest too: two changed trees of one commit are both called dirty, and a copy without .git has no commit.
    source = b"".join(path.read_bytes() for path in sorted(Path(electra_accel.__file__).parent.rglob("*.py")))
    values["electra_accel code"] = hashlib.blake2b(source, digest_size=6).hexdigest()
    values["electra_accel commit"] = known["commit"]
    values |= known["accelerate"]  # what each host's launcher was told
    if prepared:
        try:
            values["prepared data"] = Prepared(prepared).fingerprint
        except UserError as error:
            values["prepared data"] = f"{UNUSABLE}: {error}"
    values = {name: value or MISSING for name, value in values.items()}
    return engine.everywhere(Facts(engine.rank, HOST, engine.card or "CPU", values))


def measure(engine: Engine, size: int) -> float:
    """Seconds of one all-reduce of ``size`` bytes on the slowest process; UserError where a sum is wrong."""
    data = torch.full((size // 4,), engine.rank + 1.0, device=engine.device)
    _seconds(data, 1)  # connects, and gives a sum that can be checked
    right = bool((data == engine.world_size * (engine.world_size + 1) / 2).all())
    wrong = sorted({host for host, good in engine.everywhere((HOST, right)) if not good})
    if wrong:
        raise UserError(f"an all-reduce of {size / 1e6:g} MB gave wrong sums on {' and '.join(wrong)}; check the links")
    data.zero_()
    rounds = max(2, min(MOST_ROUNDS, int(SECONDS_A_SIZE / max(engine.everywhere(_seconds(data, 1))))))
    return max(engine.everywhere(_seconds(data, rounds))) / rounds


def _seconds(data: torch.Tensor, rounds: int) -> float:
    start = time.perf_counter()
    for _ in range(rounds):
        torch.distributed.all_reduce(data)
    if data.is_cuda:
        torch.cuda.synchronize(data.device)
    return time.perf_counter() - start


@contextmanager
def patience(seconds: float, doing: str) -> Iterator[None]:
    """Leave with one line where the other processes are gone or silent for ``seconds``: libraries wait for many minutes."""
    remedy = "look at the log of each host; is one down, behind a firewall, or on another network interface?"

    def give_up() -> None:  # the main thread hangs in a collective that nothing can interrupt
        if os.environ.get("LOCAL_RANK", "0") == "0":
            line = f"error: {HOST}: no answer for {seconds:g} s while {doing}; {remedy}"
            print(line, file=sys.stderr, flush=True)
        os._exit(2)

    (timer := threading.Timer(seconds, give_up)).start()
    try:
        yield
    except UserError as error:
        raise UserError(f"{HOST}: {error}") from error
    except RuntimeError as error:  # what torch.distributed raises when a peer cannot be reached or leaves
        raise OneProcessError(f"{HOST}: failed while {doing}: {str(error)[:300]}; {remedy}") from error
    finally:
        timer.cancel()


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--prepared", type=Path, metavar="FOLDER", help="prepared data that every host must have")
    parser.add_argument("--timeout", type=float, default=180, metavar="SECONDS", help="for the others to answer [180]")
    asked = parser.parse_args()
    quiet_libraries()
    with patience(asked.timeout, "the processes find each other"):
        engine = open_engine(precision="auto", cpu=False, trackers=[], folder=Path())
    with patience(asked.timeout, "gathering what each process has"):
        everybody = gather_facts(engine, asked.prepared)
    say = Terminal(speaks=engine.is_main).line
    say(f"{engine.describe()}, backend {engine.accelerator.state.backend}")
    for host in dict.fromkeys(facts.host for facts in everybody):
        here = [facts for facts in everybody if facts.host == host]
        say(f"  {host}: ranks {' '.join(str(f.rank) for f in here)}: {', '.join(sorted({f.device for f in here}))}")
    versions = (f"{name} {value}" for name, value in everybody[0].values.items() if not name.startswith(LAUNCHER))
    say(f"  rank 0 has {', '.join(versions)}")
    if len({facts.device for facts in everybody}) > 1:
        say("  warning: the devices differ; the slowest sets the pace of every step")
    if problems := differences(everybody):
        raise UserError("; ".join(problems))
    if engine.world_size == 1:
        return say("one process: there is nothing to compare, and no all-reduce to measure")
    say("all-reduce         MB         ms   algorithm GB/s   bus GB/s")
    for megabytes in SIZES[engine.device.type]:
        with patience(asked.timeout, f"summing {megabytes:g} MB over all processes"):
            seconds = measure(engine, int(megabytes * 1e6))
        algorithm, bus = bandwidths(megabytes * 1e6, seconds, engine.world_size)
        say(f"{megabytes:21g} {seconds * 1e3:10.2f} {algorithm:16.3f} {bus:10.3f}")
    say(f"all {engine.world_size} processes agree")
    with patience(asked.timeout, "the processes take leave of each other"):
        engine.leave()


if __name__ == "__main__":
    exit_with_one_line(main)
