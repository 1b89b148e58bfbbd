"""A script inside the tests' process says and returns what it does in a process of its own, and leaves nothing behind."""

import os
import sys

import pytest
import torch
from accelerate.state import AcceleratorState

from tests.helpers import run_in_process, run_script


@pytest.mark.parametrize("line", [["compare_runs.py"], ["pretrain.py", "--help"], ["pretrain.py", "--train.stepz=5"]])
def test_the_same_as_in_a_process(tmp_path, capfd, line):
    script, *arguments = line
    before = dict(os.environ), os.getcwd(), sys.argv, sys.stdout, sys.stderr
    random = torch.get_rng_state()
    here = run_in_process(script, *arguments, cwd=tmp_path, NAME="value")
    assert (dict(os.environ), os.getcwd(), sys.argv, sys.stdout, sys.stderr) == before
    assert torch.equal(torch.get_rng_state(), random) and not AcceleratorState._shared_state
    print("captured again")
    assert capfd.readouterr() == ("captured again\n", "")
    there = run_script(f"scripts/{script}", *arguments)
    assert (here.returncode, here.stdout, here.stderr) == (there.returncode, there.stdout, there.stderr)
