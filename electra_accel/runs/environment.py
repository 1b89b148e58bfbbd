"""What a result may depend on beside the configuration: versions, commit, hardware, launch, the same data on every host."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from electra_accel.engines.engine import Engine
from electra_accel.errors import UserError

LAUNCHER = ("ACCELERATE_", "FSDP_")  # how variables begin that ``accelerate launch`` sets
SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD")  # in the name of one that is not written down
PACKAGES = ("torch", "accelerate", "transformers", "datasets", "tokenizers", "numpy", "deepspeed", "wandb")


def environment(engine: Engine) -> dict:
    """What a result may depend on beside the configuration: versions, commit, hardware, launch."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": commit(),
        "host": platform.node(),
        "engine": engine.describe(),
        "engine_kind": engine.kind,
        "world_size": engine.world_size,
        "precision": engine.precision,
        "accelerate": dict(sorted(filter(_of_launcher, os.environ.items()))),
    }


def _of_launcher(variable: tuple[str, str]) -> bool:
    name = variable[0]
    return name.startswith(LAUNCHER) and not any(word in name for word in SECRET)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """Commit of the clone that this file is in, with "-dirty" where tracked files differ from it; None outside of git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def require_equal_data(engine: Engine, fingerprint: str) -> None:
    """Processes on hosts that do not share a disk prepare the data one by one: what they made must be the same.

    Raises:
        UserError: on every process, naming the hosts.
    """
    found = engine.everywhere((platform.node(), fingerprint))
    if len({made for _, made in found}) > 1:
        hosts = ", ".join(f"{host} {made}" for host, made in sorted(set(found)))
        raise UserError(f"the prepared data differs between hosts ({hosts}): give all of them the same files")
