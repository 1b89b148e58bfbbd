"""Opens the engine that ``accelerate launch`` asks for. A new engine is a file beside this one and a line in ``ENGINES``."""

import os
from pathlib import Path

import torch

from electra_accel.engines import launch_environment
from electra_accel.engines.deepspeed import DeepSpeed
from electra_accel.engines.engine import Engine
from electra_accel.engines.fsdp2 import Fsdp2
from electra_accel.engines.hardware import choose_precision, unusable_gpu, wants_cpu
from electra_accel.engines.launch_environment import OFF, value_of
from electra_accel.engines.plain import Plain
from electra_accel.errors import UserError

ENGINES = {"DEEPSPEED": DeepSpeed, "FSDP": Fsdp2}  # by the variable ACCELERATE_USE_… that asks for it; else Plain


def launched_engine() -> type[Engine]:
    return next((engine for name, engine in ENGINES.items() if value_of(f"ACCELERATE_USE_{name}") == "true"), Plain)


def require_neutral() -> None:
    """Raises UserError where a variable of the environment would change a run's numbers."""
    # Accelerate takes "1" for no: the run would be another than the one asked for.
    switches = {f"ACCELERATE_USE_{name}": ((*OFF, "true"), "", "only true turns it on") for name in ENGINES}
    launch_environment.require_neutral(launch_environment.ALWAYS | switches | launched_engine().variables)


def open_engine(*, precision: str, cpu: bool, trackers: list[str], folder: Path) -> Engine:
    """Called once on every process.

    Args:
        precision: train.precision.
        cpu: use the CPU although a GPU is there.
        trackers: names for Accelerate's ``log_with``; those that write files do so in ``folder``.

    Raises:
        UserError: precision and launcher disagree; a GPU is present that torch cannot use; the launch file asks for an
            engine that this machine cannot run; it, or the environment, would change the run's numbers.
    """
    require_neutral()
    engine, cpu = launched_engine(), wants_cpu(cpu)
    if complaint := unusable_gpu(cpu):
        raise UserError(complaint)
    engine.require_runnable(cpu)
    cpu = cpu or not torch.cuda.is_available()
    precision = choose_precision(precision, os.environ.get("ACCELERATE_MIXED_PRECISION"), cpu)
    return engine(precision=precision, cpu=cpu, trackers=trackers, folder=folder)
