"""What the loops see of an engine: a device, ``prepare``, ``backward``, ``step``, and the state of model and optimizer on disk.

plain.py, fsdp2.py and deepspeed.py are the engines; each knows the quirks of one, and upstream behaviour that had to be worked
around is explained there. open.py chooses.
"""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.tensor import DTensor

from electra_accel.engines import launch_environment, state
from electra_accel.engines.muon import Muon, WholeMatrices
from electra_accel.engines.processes import Processes
from electra_accel.engines.recorded import Tensors
from electra_accel.errors import UserError
from electra_accel.model.attention import attention_path
from electra_accel.model.flops import peak_flops


class Engine(Processes, ABC):
    """One model and one optimizer under Accelerate. Made by ``open.open_engine``.

    Args:
        precision: "no", "bf16" or "fp16".
        cpu: compute on it.
        trackers: names for Accelerate's ``log_with``; those that write files do so in ``folder``.

    Raises:
        UserError: the launch file does not fit this machine.
    """

    Parts = state.Parts
    launched_by = ""  # variable of ``accelerate launch`` that is true where it asks for this engine
    neutral: launch_environment.Variables = {}  # that it reads: with which values they leave the numbers alone

    def __init__(self, *, precision: str, cpu: bool, trackers: list[str], folder: Path):
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        self.precision = precision
        self.has_loss_scale = precision == "fp16"  # a step whose gradient overflows is skipped
        accelerator = Accelerator(
            mixed_precision=precision,
            log_with=trackers or None,
            project_dir=folder,
            **self.accelerator_arguments(cpu),
        )
        launch_environment.fix_arithmetic()
        if accelerator.num_processes != processes:
            raise UserError(
                f"{processes} processes were launched but Accelerate sees {accelerator.num_processes}: "
                "use a file of accelerate_configs/ that fits this machine"
            )
        super().__init__(accelerator)
        self.card = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None
        self.model: nn.Module | None = None
        self.optimizer: Any = None  # as Accelerate wraps it
        self.fresh_scale = accelerator.scaler.state_dict() if accelerator.scaler is not None else {}

    # --- what differs from engine to engine ------------------------------------------------------------------------

    @staticmethod
    def require_runnable(cpu: bool) -> None:
        """Raises UserError where Accelerate would fail far from the cause, or silently run something else."""

    @staticmethod
    def require_launch_file(precision: str) -> None:
        """Raises UserError where a file that the launch file names cannot be used."""

    @staticmethod
    def require_optimizer(kind: str, precision: str) -> None:
        """Raises UserError where an engine cannot do what the launch file asks for with ``optim.kind``."""

    def accelerator_arguments(self, cpu: bool) -> dict[str, Any]:
        """More arguments of ``Accelerator``."""
        return {}

    @property
    @abstractmethod
    def kind(self) -> str:
        """What drives the processes: "single process", "DDP", "DeepSpeed ZeRO-2", …"""

    @abstractmethod
    def wrap(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Place, shard and wrap; sets ``model`` and ``optimizer``."""

    def whole_matrices(self) -> WholeMatrices:
        """Where Muon finds its matrices; after :meth:`wrap`."""
        return WholeMatrices()

    def micro_step(self, *, last: bool) -> AbstractContextManager:
        """Context of a forward and backward pass: no gradient exchange before the last micro-step of a step."""
        return nullcontext()

    def record(
        self, function: Callable[..., Tensors], warn: Callable[[str], None], *, trains: bool = True
    ) -> Callable[..., Tensors]:
        """``function`` of tensors in a form that sends fewer kernels. It is a micro-step, or with ``trains`` False reads the
        weights alone. ``warn`` is told where there is no such form, once, of the micro-step."""
        if trains:
            device = "a GPU" if self.device.type == "cuda" else "a CPU"
            warn(f"train.cuda_graphs auto does nothing here ({self.kind} on {device})")
        return function

    @abstractmethod
    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of ``loss``: this process's share of the global loss, already normalised."""

    @abstractmethod
    def clip_and_step(self) -> torch.Tensor:
        """Clip the gradient to ``max_norm``, step, clear gradients; returns the norm before, 0-d. See :meth:`step`."""

    # --- model and optimizer ---------------------------------------------------------------------------------------

    def prepare(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        checkpoint: Path | None,
        *,
        max_norm: float,
        compile: str = "off",
    ) -> nn.Module:
        """Place, shard, wrap and compile the model; returns what the loop calls. Called on every process.

        Args:
            model: on the CPU, the same on every process.
            checkpoint: a folder with what :meth:`snapshot` gave, under any engine and number of processes; None: a fresh start.
            max_norm: gradients of a global step are clipped to it.
            compile: "layers", each by itself; "model", as one; or "off".

        Raises:
            UserError: the checkpoint is of another model or another kind of optimizer.
        """
        self.max_norm, self.optimizer_kind = max_norm, type(optimizer).__name__
        if checkpoint:  # before any engine makes its own copies of the weights
            state.load_weights(model, checkpoint)
        if compile != "off":
            compile_parts([model] if compile == "model" else layers_of(model))
        self.wrap(model, optimizer)
        if isinstance(optimizer, Muon):
            optimizer.half = self.precision == "bf16"
            optimizer.matrices = self.whole_matrices()
        if checkpoint:
            state.load_optimizer(checkpoint, self._parts(), self.optimizer_kind)
        return self.model

    def release(self) -> None:
        """Let go of model and optimizer, so that others can be prepared. Called on every process."""
        self.model, self.optimizer = self.accelerator.free_memory(self.model, self.optimizer)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(self.fresh_scale)

    def leave(self, patience: float = math.inf) -> None:
        """See ``Processes.leave``. The prepared model goes before the process group does.

        Where it holds the group last, as torch's DistributedDataParallel did, it ends it with Python's lock in hand. A thread
        of gloo that frees the tensors of its last work wants that lock, and the process never ends (torch 2.13, now and then).
        """
        if torch.distributed.is_initialized():
            self.release()
        super().leave(patience)

    def unwrapped(self) -> nn.Module:
        """The module that was prepared; under ZeRO-3 and FSDP2 its parameters are in parts."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    def step(self, rate: Callable[[float], float]) -> torch.Tensor:
        """Clip the gradient of the global loss, make one optimizer step, clear gradients. Called on every process.

        Where the gradient is not finite, weights and the optimizer's state stay as they are, on all processes alike.

        Args:
            rate: the learning rate now, from a parameter group's ``peak``.

        Returns the gradient's norm before it was clipped, 0-d, the same on every process.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate(group["peak"])
        return self.clip_and_step()

    @torch.no_grad()
    def has_finite_weights(self) -> bool:
        """Called on every process; the same on all."""
        parts = [
            getattr(each, "ds_tensor", each.detach()) for each in self.unwrapped().parameters()
        ]  # ZeRO-3 has parts
        parts = [part.to_local() if isinstance(part, DTensor) else part for part in parts]
        wrong = torch.stack([(~part.isfinite()).any() for part in parts]).sum()
        return self.sum(wrong.double()).item() == 0

    def snapshot(self) -> state.Snapshot:
        """A copy of model and optimizer, in one form under every engine; empty but on the main process. On every process."""
        return state.snapshot(self._parts(), self.optimizer_kind, wanted=self.is_main)

    def _parts(self) -> state.Parts:
        return self.Parts(self.unwrapped(), self.optimizer.optimizer, self.accelerator.scaler)

    # --- in words ---------------------------------------------------------------------------------------------------

    def describe(self) -> str:
        """Engine, ranks, device and precision for the start-up lines."""
        processes = f", {self.world_size} processes" if self.kind != "single process" else ""
        threads = torch.get_num_threads()
        device = self.card or f"CPU ({threads} thread{'s' * (threads > 1)} a process)"
        precision = "fp32" if self.precision == "no" else self.precision
        return f"{self.kind}{processes} on {device}, precision {precision}, attention {self.attention_path()}"

    def peak_flops(self) -> float | None:
        """Dense half precision peak of all processes' devices together, per second; None where unknown."""
        peak = peak_flops(self.card) if self.card else None
        return peak and peak * self.world_size

    def attention_path(self) -> str:
        """Which attention kernel packed bins take here, for the log."""
        dtype = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
        return attention_path(self.device, dtype)


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers of all networks; all of one width have the same code."""
    return [module for module in model.modules() if type(module).__name__ in model._no_split_modules]


def compile_parts(parts: list[nn.Module]) -> None:
    """In place, when they are first called; names of parameters stay. What has the same code and shapes is compiled once."""
    # Two widths, in the first layer another dtype than in the others, and all that again without gradients.
    torch._dynamo.config.recompile_limit = 16
    for part in parts:
        part.compile(dynamic=False)  # shapes are static (invariant 5)
