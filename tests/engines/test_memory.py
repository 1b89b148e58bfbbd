"""What glibc does with freed memory decides part of the time of a training step on a CPU. Tried in processes of their own."""

import os
import platform
import subprocess
import sys

import pytest

from electra_accel.engines.memory import VARIABLES

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
# Page faults of the second time that the same blocks are used: some of 16 MiB, and one that is over glibc's largest threshold.
AGAIN = """
import resource
import numpy as np
from electra_accel.engines.memory import keep_large_blocks

def use():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones(2**24, np.uint8) for _ in range(4)] + [np.ones(2**26, np.uint8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

told = keep_large_blocks()
print(told, use(), use())
"""


def again(**variables: str) -> tuple[str, int, int]:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
    run = subprocess.run([sys.executable, "-c", AGAIN], env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    told, first, second = run.stdout.split()
    return told, int(first), int(second)


def test_freed_blocks_are_used_again():
    told, first, second = again()
    assert told == "True" and second < 0.02 * first


@pytest.mark.parametrize("name", VARIABLES)
def test_who_sets_glibc_s_own_variables_has_chosen(name):
    told, first, second = again(**{name: "131072"})
    assert told == "False" and second > 0.5 * first
