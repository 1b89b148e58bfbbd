"""A two-node Slurm of Debian packages on this machine: each node has its own network stack, address and host name.

It must be started inside namespaces of its own (:data:`NAMESPACES`): nothing outside sees its network, and all of its
processes end with the first one, however that ends.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("slurm-wlm", "munge", "iproute2")
PROGRAMS = ("slurmctld", "slurmd", "munged", "ip")
NAMESPACES = ("unshare", "--net", "--uts", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child")
NODES = {"n1": "10.99.0.1", "n2": "10.99.0.2"}
CONTROLLER = "10.99.0.254"

# A requeued job waits until its credential has expired: 5 s here, 2 minutes by default. CPUS are more than the machine has,
# so that two jobs fit on one node.
CONFIGURATION = """
ClusterName=test
SlurmctldHost=controller({controller})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=2
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
MinJobAge=3600
PartitionName=main Nodes=ALL Default=YES
"""


def missing() -> list[str]:
    """Programs that the packages bring and this machine lacks."""
    return [name for name in PROGRAMS if not shutil.which(name)]


def run(*command: object, timeout: float = 30, **options) -> str:
    """Standard output of a command that must succeed.

    Raises:
        AssertionError: it failed; the text has what it printed.
    """
    done = subprocess.run(
        list(map(str, command)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        **options,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}"
    return done.stdout.strip()


def start(folder: Path) -> None:
    """Start munge, the controller and both nodes, with all they write in ``folder``, and wait until the nodes are idle.

    Raises:
        AssertionError: something did not come up; the text has the end of its log.
    """
    text = CONFIGURATION.format(folder=folder, controller=CONTROLLER)
    text += "".join(f"NodeName={name} NodeAddr={address} CPUs=8 State=UNKNOWN\n" for name, address in NODES.items())
    (folder / "slurm.conf").write_text(text)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")

    hosts = {"localhost": "127.0.0.1", "controller": CONTROLLER, **NODES}
    (folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in hosts.items()))
    run("mount", "--bind", folder / "hosts", "/etc/hosts")
    socket.sethostname("controller")
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "switch0", "type", "bridge")
    run("ip", "address", "add", f"{CONTROLLER}/24", "dev", "switch0")
    run("ip", "link", "set", "switch0", "up")

    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    files = {"--key-file": "key", "--socket": "socket", "--pid-file": "pid", "--log-file": "log", "--seed-file": "seed"}
    places = [f"{option}={folder}/munge.{name}" for option, name in files.items()]
    _daemon(folder / "munged.out", "munged", "--foreground", "--force", *places)
    wait_until(lambda: (folder / "munge.socket").exists(), 10, "munged does not start", folder / "munged.out")
    _daemon(folder / "slurmctld.out", "slurmctld", "-D")
    for number, name in enumerate(NODES):
        _start_node(folder, name, f"port{number}")
    wait_until(lambda: run("sinfo", "-h", "-o", "%D %t") == "2 idle", 30, "no idle nodes", folder / "slurmctld.log")


def _start_node(folder: Path, name: str, port: str) -> None:
    """slurmd on a host of its own, plugged into the switch."""
    network = f"ip address add {NODES[name]}/24 dev eth0 && ip link set eth0 up && ip link set lo up"
    script = f"hostname {name} && echo here && read plugged && {network} && exec slurmd -D -N {name}"
    with open(folder / f"{name}.out", "w") as out:
        command = ["unshare", "--net", "--uts", "sh", "-c", script]
        host = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, text=True)
    wait_until(lambda: "here" in (folder / f"{name}.out").read_text(), 10, f"no host {name}", folder / f"{name}.out")
    run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.pid)
    run("ip", "link", "set", port, "master", "switch0", "up")
    host.stdin.write("plugged\n")
    host.stdin.flush()


def _daemon(log: Path, *command: str) -> None:
    with open(log, "w") as out:
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def wait_until(true: Callable[[], bool], seconds: float, complaint: str, log: Path) -> None:
    """Ask every half second.

    Raises:
        AssertionError: ``complaint`` and the end of ``log``, after so many seconds in vain.
    """
    end = time.monotonic() + seconds
    while not true():
        tail = log.read_text()[-4000:] if log.exists() else "(no log)"
        assert time.monotonic() < end, f"{complaint} ({seconds} s)\n{log}:\n{tail}"
        time.sleep(0.5)
