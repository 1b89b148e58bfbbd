"""The only file that knows quirks of Accelerate, torch.distributed and their backends.

The loop sees an :class:`Engine`: ranks, a device, ``prepare``, ``backward``, ``clip``, ``step``, sums over all processes, and
the state of model and optimizer on disk. Upstream behaviour that had to be worked around is explained where it is.
"""

import io
import math
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import nn
from torch.distributed.distributed_c10d import _get_default_store  # torch has no public way to it

from electra_accel.errors import UserError
from electra_accel.model.attention import attention_path
from electra_accel.model.metrics import peak_flops

MODEL_FILE, OPTIMIZER_FILE = "model.safetensors", "optimizer.pt"


def unusable_gpu(cpu_requested: bool) -> str | None:
    """Why a GPU that this machine has cannot be used by this torch, or None where there is nothing to complain about.

    A run that silently falls back to the CPU wastes days, so the caller stops with this line. Who hides the GPUs (a
    CUDA_VISIBLE_DEVICES that starts with nothing, -1 or NoDevFiles, which Slurm sets) has chosen the CPU as with --cpu.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hidden = visible is not None and visible.split(",")[0].strip() in ("", "-1", "NoDevFiles")
    if cpu_requested or hidden or torch.cuda.is_available():
        return None
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        found = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None  # no driver tools, so no NVIDIA GPU that anybody set up
    if found.returncode != 0 or not found.stdout.strip():
        return None
    name, driver = (part.strip() for part in found.stdout.splitlines()[0].split(",")[:2])
    if torch.version.cuda is None:
        remedy = "this torch is a CPU build: install a CUDA build of the same version"
    else:
        remedy = (
            f"torch was built for CUDA {torch.version.cuda}: update the driver or install a torch for an older CUDA"
        )
        if visible is not None:
            remedy += f"; or CUDA_VISIBLE_DEVICES={visible} names none of its GPUs"
    return f"{name} is present (driver {driver}) but torch {torch.__version__} cannot use it; {remedy}, or pass --cpu"


def wants_cpu(asked: bool) -> bool:
    """Whether ``--cpu`` (``asked``) or the launcher's configuration chooses the CPU."""
    return asked or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")


def choose_precision(wanted: str, launcher: str | None, cpu: bool) -> str:
    """Mixed precision of the run: "no", "bf16" or "fp16".

    Args:
        wanted: train.precision: auto, no, bf16, fp16. auto is the launcher's, else bf16 on a GPU that has it, else no.
        launcher: what ``accelerate launch`` says; its "no" is also what it says when it was told nothing.

    Raises:
        UserError: fp16 on a CPU; or the launcher asks for something else than train.precision.
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


class Engine:
    """One model and one optimizer under Accelerate, on one process or several (DDP).

    Args:
        precision: train.precision.
        cpu: use the CPU although a GPU is there.
        trackers: names for Accelerate's ``log_with``; those that write files do so in ``folder``.

    Raises:
        UserError: precision and launcher disagree; a GPU is present that torch cannot use.
    """

    def __init__(self, *, precision: str, cpu: bool, trackers: list[str], folder: Path):
        cpu = wants_cpu(cpu)
        if complaint := unusable_gpu(cpu):
            raise UserError(complaint)
        cpu = cpu or not torch.cuda.is_available()
        self.precision = choose_precision(precision, os.environ.get("ACCELERATE_MIXED_PRECISION"), cpu)
        # Without cpu=True on a machine without CUDA, Accelerate starts no process group and every process believes that
        # it is alone: gradients would silently not be reduced.
        # The networks have no buffers that change, so DDP need not broadcast them before each forward.
        self.accelerator = Accelerator(
            cpu=cpu,
            mixed_precision=self.precision,
            log_with=trackers or None,
            project_dir=folder,
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
        )
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        if self.accelerator.num_processes != launched:
            raise UserError(
                f"{launched} processes were launched but Accelerate sees {self.accelerator.num_processes}: "
                "use a file of accelerate_configs/ that fits this machine"
            )
        self.rank = self.accelerator.process_index
        self.world_size = self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        self.device = self.accelerator.device
        self.card = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None
        self.model: nn.Module | None = None

    def describe(self) -> str:
        """Engine, ranks, device and precision for the start-up lines."""
        kind = "single process" if self.world_size == 1 else f"DDP, {self.world_size} processes"
        device = self.card or f"CPU ({torch.get_num_threads()} threads a process)"
        precision = "fp32" if self.precision == "no" else self.precision
        return f"{kind} on {device}, precision {precision}, attention {self.attention_path()}"

    def peak_flops(self) -> float | None:
        """Dense half precision peak of all processes' devices together, per second; None where unknown."""
        peak = peak_flops(self.card) if self.card else None
        return peak and peak * self.world_size

    def attention_path(self) -> str:
        """Which attention kernel packed bins take here, for the log."""
        dtype = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
        return attention_path(self.device, dtype)

    # --- model and optimizer ---------------------------------------------------------------------------------------

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer, *, compile: bool) -> nn.Module:
        """Place, wrap and (optionally) compile the model; returns what the loop calls."""
        model.to(self.device)
        if compile:
            model.compile(dynamic=False)  # shapes are static (invariant 5): one compilation
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        return self.model

    def unwrapped(self) -> nn.Module:
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of ``loss`` (this process's share of the global loss, already normalised).

        DDP averages gradients over processes, so the share is multiplied by their number.
        """
        self.accelerator.backward(loss * self.world_size if self.world_size > 1 else loss)

    def micro_step(self, *, last: bool):
        """Context of a forward and backward pass: no gradient exchange before the last micro-step of a step."""
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def clip(self, max_norm: float) -> torch.Tensor:
        """Clip the gradient of the global loss to ``max_norm`` (all processes agree); returns the norm before, on device."""
        return self.accelerator.clip_grad_norm_(self.model.parameters(), max_norm)

    @property
    def has_loss_scale(self) -> bool:
        """Whether losses are scaled (fp16), so that a step whose gradient overflows is skipped."""
        return self.accelerator.scaler is not None

    def step(self, learning_rate: float) -> None:
        """One optimizer step at ``learning_rate``; gradients are cleared."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def read_later(self, value: torch.Tensor) -> Callable[[], float]:
        """Ask for a 0-d tensor now and fetch it later: fetching waits for what was queued before, not after, the asking."""
        if self.device.type != "cuda":
            return value.item
        on_host = torch.empty_like(value, device="cpu", pin_memory=True).copy_(value, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def fetch() -> float:
            copied.synchronize()
            return on_host.item()

        return fetch

    # --- processes -------------------------------------------------------------------------------------------------

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over processes; the result stays on the device and the same process count gives the same bits."""
        return self.accelerator.reduce(tensor, "sum") if self.world_size > 1 else tensor

    def everywhere(self, value: Any) -> list:
        """One picklable value per process, in rank order, on every process."""
        return gather_object([value]) if self.world_size > 1 else [value]

    def together(self, function: Callable[[], Any]) -> Any:
        """Call on every process; where one raises UserError, all raise it, so that nobody waits for a process that left.

        Processes may differ by hours: hosts that share no disk prepare the data one by one, or the first process writes to a
        slow disk.
        """
        result, problem = None, None
        try:
            result = function()
        except UserError as error:
            problem = str(error)
        self._wait_for_all()
        problems = [found for found in self.everywhere(problem) if found is not None]
        if problems:
            raise UserError(problems[0])
        return result

    def _wait_for_all(self) -> None:
        """Until every process has come here, however long: a collective would time out (NCCL after ten minutes).

        Arrivals are counted in the process group's key-value store. If a process dies, the launcher stops the others.
        """
        if self.world_size == 1:
            return
        store, name = _get_default_store(), "electra_accel/arrivals"
        arrivals = store.add(name, 1)
        everybody = math.ceil(arrivals / self.world_size) * self.world_size  # nobody comes twice before all came once
        while store.add(name, 0) < everybody:
            time.sleep(0.05)

    def on_main(self, function: Callable[[], Any]) -> Any:
        """Call on the main process; every process gets its (picklable) result, or its UserError."""
        result = self.together(lambda: function() if self.is_main else None)
        return self.everywhere(result)[0]

    # --- state on disk ---------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write model, optimizer and loss scaler into ``folder``. Called on every process; under DDP the first writes."""
        if not self.is_main:
            return
        state, _ = _without_aliases(self.unwrapped().state_dict())
        scaler = self.accelerator.scaler
        optimizer = {"optimizer": self.optimizer.state_dict(), "scaler": scaler.state_dict() if scaler else None}
        # Both libraries report a full disk in their own ways; bytes that we write ourselves fail with an OSError.
        (folder / MODEL_FILE).write_bytes(safetensors.torch.save(state))
        buffer = io.BytesIO()
        torch.save(optimizer, buffer)
        (folder / OPTIMIZER_FILE).write_bytes(buffer.getbuffer())

    def load(self, folder: Path) -> None:
        """Read what :meth:`save` wrote, on every process, into the prepared model and optimizer.

        Parameters are copied in place, so tied weights stay tied.
        """
        model = self.unwrapped()
        _, shared = _without_aliases(model.state_dict())
        missing, unexpected = model.load_state_dict(safetensors.torch.load_file(folder / MODEL_FILE), strict=False)
        if set(missing) - set(shared) or unexpected:
            raise UserError(f"{folder}: weights do not fit the model (missing {missing}, unexpected {unexpected})")
        state = torch.load(folder / OPTIMIZER_FILE, map_location=self.device, weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])


def _without_aliases(state: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """State without second names of one tensor (tied weights), and {second name: first name}."""
    first: dict[int, str] = {}
    kept, shared = {}, {}
    for name, tensor in state.items():
        owner = first.setdefault(tensor.data_ptr(), name) if tensor.numel() else name
        if owner == name:
            kept[name] = tensor.contiguous()
        else:
            shared[name] = owner
    return kept, shared
