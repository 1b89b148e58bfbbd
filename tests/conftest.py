"""What every test shares: two threads at most (one where two tests run at once), no network, account or tracker by accident."""

import os
import sys

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["WANDB_MODE"] = "offline"
# The environment's own ninja first: another version of it would compile DeepSpeed's extensions again and again.
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
os.environ["WANDB_SILENT"] = "true"


# Files of more than about 40 seconds on an idle machine, the longest first.
LONGEST = (
    *("test_engines", "test_domain_adaptation", "test_gdes_engines", "test_pretrain", "test_two_hosts", "test_study"),
    *("test_from_the_tutorial", "test_preemption", "test_compare_runs", "test_endings", "test_finetune"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files and then those with slow tests come first: what is left for the end, when another process has nothing to
    do, is short.

    Tests marked ``gpu`` are skipped, with the reason, where torch sees no GPU.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (place.get(item.path.stem, len(place)), item.path not in slow))
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        import torch  # takes seconds, so only where it matters

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
