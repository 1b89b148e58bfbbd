"""What ``torchrun --max-restarts`` and ``accelerate launch --max_restarts`` leave to a process that they have started again."""

import importlib
import os

from torch.distributed import PrefixStore

RESTARTS, HOSTS = "TORCHELASTIC_RESTART_COUNT", "GROUP_WORLD_SIZE"


def leave_the_dead() -> None:
    """Have processes meet under names of their own where the launcher started them again.

    The launcher on one host keeps its store over restarts, with the addresses of processes that are dead. Whoever reads one
    before the new process has written its own cannot connect, and the job fails (pytorch/pytorch issue 135712, which was
    mended for ``--rdzv_backend c10d`` alone). Several hosts may have counted different numbers of restarts, so nothing is
    changed there: they need that backend.
    """
    number = os.environ.get(RESTARTS, "0")
    if number == "0" or os.environ.get(HOSTS) != "1":
        return
    rendezvous = importlib.import_module("torch.distributed.rendezvous")  # by its name it is a function
    if make := getattr(rendezvous, "_create_c10d_store", None):  # private
        rendezvous._create_c10d_store = lambda *given, **named: PrefixStore(f"start {number}", make(*given, **named))
