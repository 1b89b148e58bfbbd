"""Opens the engine that ``accelerate launch`` asks for. A new engine is a file beside this one and a line in ``ENGINES``."""

import os
from pathlib import Path

import torch

from electra_accel.engines import launch_environment
from electra_accel.engines.deepspeed import DeepSpeed
from electra_accel.engines.engine import Engine
from electra_accel.engines.fsdp2 import Fsdp2
from electra_accel.engines.hardware import choose_precision, unusable_gpu, wants_cpu
from electra_accel.engines.plain import Plain
from electra_accel.errors import UserError

ENGINES = {"plain": Plain, "deepspeed": DeepSpeed, "fsdp": Fsdp2}  # by launch_environment.launched_engine


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
    engine = ENGINES[launch_environment.launched_engine()]
    launch_environment.require_neutral()
    cpu = wants_cpu(cpu)
    if complaint := unusable_gpu(cpu):
        raise UserError(complaint)
    engine.require_runnable(cpu)
    cpu = cpu or not torch.cuda.is_available()
    precision = choose_precision(precision, os.environ.get("ACCELERATE_MIXED_PRECISION"), cpu)
    return engine(precision=precision, cpu=cpu, trackers=trackers, folder=folder)
