"""What this machine has to train on, and the precision that it trains in."""

import os
import resource
import subprocess

import torch

from electra_accel.errors import UserError


def told_by_driver(*facts: str) -> list[str]:
    """``name`` or ``driver_version`` of the first NVIDIA card; [] where nvidia-smi cannot tell."""
    query = ["nvidia-smi", f"--query-gpu={','.join(facts)}", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, encoding="utf-8", errors="replace", timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    said = found.stdout.strip() if found.returncode == 0 else ""
    return [part.strip() for part in said.splitlines()[0].split(",")] if said else []


def unusable_gpu(cpu_requested: bool) -> str | None:
    """Why a GPU that this machine has cannot be used by this torch, or None where there is nothing to complain about.

    A run that silently falls back to the CPU wastes days, so the caller stops with this line. Who hides the GPUs (a
    CUDA_VISIBLE_DEVICES that starts with nothing, -1 or NoDevFiles, which Slurm sets) has chosen the CPU as with --cpu.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = visible is not None and visible.split(",")[0].strip() in ("", "-1", "NoDevFiles")
    if cpu_requested or hidden or torch.cuda.is_available():
        return None
    if len(told := told_by_driver("name", "driver_version")) < 2:
        return None  # no driver tools, so no NVIDIA GPU that anybody set up
    name, driver = told[:2]
    if torch.version.cuda is None:
        remedy = "this torch is a CPU build: install a CUDA build of the same version"
    else:
        remedy = f"torch was built for CUDA {torch.version.cuda}: update the driver or install one for an older CUDA"
        if visible is not None:
            remedy += f"; or CUDA_VISIBLE_DEVICES={visible} names none of its GPUs"
    return f"{name} is present (driver {driver}) but torch {torch.__version__} cannot use it; {remedy}, or pass --cpu"


def wants_cpu(asked: bool) -> bool:
    """Whether ``--cpu`` (``asked``) or the launcher's configuration chooses the CPU."""
    return asked or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")


def choose_precision(wanted: str, launcher: str | None, cpu: bool) -> str:
    """Mixed precision of the run, "no", "bf16" or "fp16". UserError: fp16 on a CPU, or ``wanted`` and ``launcher`` disagree.

    Args:
        wanted: train.precision: auto, no, bf16, fp16. auto is the launcher's, else bf16 on a GPU that has it, else no.
        launcher: what ``accelerate launch`` says; its "no" is also what it says when it was told nothing.
    """
    launcher = None if launcher in (None, "", "no") else launcher
    if launcher and wanted not in ("auto", launcher):
        raise UserError(
            f"train.precision is {wanted} but accelerate launch says mixed_precision {launcher}: make them agree, "
            "or leave one out"
        )
    if wanted == "auto":
        has_bf16 = not cpu and torch.cuda.is_bf16_supported(including_emulation=False)
        wanted = launcher or ("bf16" if has_bf16 else "no")
    if wanted not in ("no", "bf16", "fp16"):
        raise UserError(f"mixed_precision {wanted} of accelerate launch is not supported; choose no, bf16 or fp16")
    if wanted == "fp16" and cpu:
        raise UserError("fp16 needs a GPU (a CPU would silently compute in fp32); set train.precision to bf16 or no")
    return wanted


def peak_memory(device: torch.device) -> int:
    """Most bytes that this process held so far: allocated on the GPU, or resident on the host where it computes there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
