"""Chooses the engine that ``accelerate launch`` asks for. A new engine is a file beside this one and a name in ``ENGINES``."""

import os
from collections.abc import Callable
from pathlib import Path

import torch

from electra_accel.cli import at_good_end
from electra_accel.engines import launch_environment
from electra_accel.engines.deepspeed import DeepSpeed
from electra_accel.engines.engine import Engine
from electra_accel.engines.fsdp2 import Fsdp2
from electra_accel.engines.hardware import choose_precision, unusable_gpu, wants_cpu
from electra_accel.engines.memory import keep_large_blocks
from electra_accel.engines.plain import Plain
from electra_accel.engines.restarts import leave_the_dead
from electra_accel.errors import UserError

ENGINES = (DeepSpeed, Fsdp2)  # by their variables; where none is set: Plain


def launched() -> type[Engine]:
    """The engine that ``accelerate launch`` asks for. UserError where the environment would change the run's numbers."""
    found = next((each for each in ENGINES if launch_environment.value(each.launched_by) == "true"), Plain)
    launch_environment.require_neutral(found.neutral)
    return found


def open_engine(*, precision: str, cpu: bool, trackers: list[str], folder: Path, optimizer: str = "adamw") -> Engine:
    """Called once on every process; arguments as of ``Engine``, with ``train.precision`` and ``optim.kind``. A script
    that ends well or is asked to stop leaves it by itself, see :meth:`Engine.leave`.

    Raises:
        UserError: precision and launcher disagree; a GPU is present that torch cannot use; the launch file asks for an
            engine that this machine or this optimizer cannot have; it, or the environment, would change the run's numbers.
    """
    engine, cpu = launched(), wants_cpu(cpu)
    if complaint := unusable_gpu(cpu):
        raise UserError(complaint)
    engine.require_runnable(cpu)
    cpu = cpu or not torch.cuda.is_available()
    precision = choose_precision(precision, os.environ.get("ACCELERATE_MIXED_PRECISION"), cpu)
    engine.require_optimizer(optimizer, precision)
    if cpu:
        keep_large_blocks()
    leave_the_dead()
    opened = engine(precision=precision, cpu=cpu, trackers=trackers, folder=folder)
    at_good_end.append(opened.leave)
    return opened


def planned_device(precision: str, cpu: bool, warn: Callable[[str], None], optimizer: str = "adamw") -> str:
    """ "cpu" or "cuda": where a run would compute that is only planned, on a machine that may be another one.

    ``warn`` is told what would stop a run on this machine; UserError for what would stop it on any.
    """
    engine, cpu = launched(), wants_cpu(cpu)
    precision = choose_precision(precision, os.environ.get("ACCELERATE_MIXED_PRECISION"), cpu)
    engine.require_launch_file(precision)
    engine.require_optimizer(optimizer, precision)
    device = "cuda" if torch.cuda.is_available() and not cpu else "cpu"
    if complaint := unusable_gpu(cpu):
        warn(f"a run on this machine would stop: {complaint}")
    elif precision == "fp16" and device == "cpu":
        warn("fp16 needs a GPU: a run on this machine would stop")
    return device
