"""Memory that a process keeps from one training step to the next."""

import ctypes
import os

VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")  # glibc's own; who sets one has chosen
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_MOST = 2**31 - 1  # bytes; what mallopt can be told


def keep_large_blocks() -> bool:
    """Tells glibc to keep large blocks that are freed.

    By default glibc gives every block from 128 KiB to 32 MiB on back to the system when it is freed, and the system hands out
    the next one page by page, each filled with zeros. A training step on a CPU frees all its activations, so without this
    a seventh of the processor time of a short run of size tiny goes there (docs/benchmarks.md).

    Returns:
        Whether it was told: not where one of ``VARIABLES`` is set, or where the C library is another one.
    """
    if any(name in os.environ for name in VARIABLES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, _MOST)) and bool(mallopt(_TRIM_THRESHOLD, _MOST))
