"""FSDP2 without a GPU: raw ``fully_shard`` on gloo, because Accelerate's own FSDP path needs a GPU (that one is marked gpu)."""

import sys

import safetensors.torch

from tests.engines import fsdp2_worker
from tests.engines.saving import save_state
from tests.helpers import ROOT, run_command


def test_two_shards_train_save_and_resume_as_one_process(tmp_path):
    """Gradients, weights and what each optimizer keeps; tied weights; a vocabulary that two does not divide; a resume."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    module = ["-m", "tests.engines.fsdp2_worker", str(tmp_path), str(ROOT / "accelerate_configs" / "fsdp2.yaml")]
    done = run_command([*command, *module], ROOT, 200, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr[-4000:]
    for kind, name_of_kind in fsdp2_worker.KINDS.items():
        model, optimizer = fsdp2_worker.build(kind)
        alone, sharded = tmp_path / "alone" / kind, tmp_path / kind
        alone.mkdir(parents=True)
        for name, first in (("middle", 0), ("end", fsdp2_worker.STEPS)):
            norms = fsdp2_worker.train(model, optimizer, 0, 1, first)
            found = [float(word) for word in (sharded / name / "norms").read_text().split()]
            assert all(abs(a / b - 1) < 1e-5 for a, b in zip(found, norms, strict=True)), (kind, found, norms)
            save_state(alone, fsdp2_worker.state.Parts(model, optimizer), name_of_kind)
            # AdamW blows up the rounding of gradients of about its eps.
            assert difference(sharded / name, alone) < 2e-6, kind
        assert difference(sharded / "resumed", sharded / "end") == 0, kind


def difference(a, b) -> float:
    """Greatest absolute difference of a weight or moment."""
    greatest = 0.0
    for file in (fsdp2_worker.state.MODEL_FILE, fsdp2_worker.state.OPTIMIZER_FILE):
        mine, theirs = safetensors.torch.load_file(a / file), safetensors.torch.load_file(b / file)
        assert mine.keys() == theirs.keys() and len(mine) > 100
        greatest = max(greatest, *((mine[name] - theirs[name]).abs().max().item() for name in mine))
    return greatest
