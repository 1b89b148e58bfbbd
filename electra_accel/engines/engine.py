"""The only file, with sharded.py beside it, that knows quirks of Accelerate, DeepSpeed, FSDP and torch.distributed.

The loop sees an :class:`Engine`: ranks, a device, ``prepare``, ``backward``, ``step``, sums over all processes, and the state
of model and optimizer on disk. Upstream behaviour that had to be worked around is explained where it is.
"""

import math
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DeepSpeedPlugin, DistributedDataParallelKwargs, InitProcessGroupKwargs, gather_object
from torch import nn
from torch.distributed.distributed_c10d import _get_default_store  # torch has no public way to it

from electra_accel.engines import launch_environment, sharded
from electra_accel.engines.hardware import choose_precision, unusable_gpu, wants_cpu
from electra_accel.errors import UserError
from electra_accel.model.attention import attention_path
from electra_accel.model.metrics import peak_flops
from electra_accel.pretraining.optim import clip_gradients


class Engine:
    """One model and one optimizer under Accelerate: one process, DDP, DeepSpeed ZeRO 1 to 3, or FSDP2.

    Args:
        precision: train.precision.
        cpu: use the CPU although a GPU is there.
        trackers: names for Accelerate's ``log_with``; those that write files do so in ``folder``.

    Raises:
        UserError: precision and launcher disagree; a GPU is present that torch cannot use; the launch file asks for an
            engine that this machine cannot run; it, or the environment, would change the run's numbers.
    """

    def __init__(self, *, precision: str, cpu: bool, trackers: list[str], folder: Path):
        launched, processes = launch_environment.launched_engine(), int(os.environ.get("WORLD_SIZE", "1"))
        launch_environment.require_neutral()
        cpu = wants_cpu(cpu)
        if complaint := unusable_gpu(cpu):
            raise UserError(complaint)
        _require_runnable(launched, cpu)
        cpu = cpu or not torch.cuda.is_available()
        self.precision = choose_precision(precision, os.environ.get("ACCELERATE_MIXED_PRECISION"), cpu)
        zero = launch_environment.deepspeed_settings(self.precision)
        # The networks have no buffers that change, so DDP need not broadcast them before each forward.
        handlers = [DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)]
        if launched == "deepspeed" and cpu:
            # DeepSpeed picks a backend that is not there; and told cpu=True, Accelerate would leave DeepSpeed out.
            handlers.append(InitProcessGroupKwargs(backend="gloo"))
        self.accelerator = Accelerator(
            # Without cpu=True on a machine without CUDA, Accelerate starts no process group for DDP and every process
            # believes that it is alone: gradients would silently not be reduced.
            cpu=cpu and launched == "plain",
            mixed_precision=self.precision,
            log_with=trackers or None,
            project_dir=folder,
            kwargs_handlers=handlers,
            deepspeed_plugin=zero and DeepSpeedPlugin(hf_ds_config=zero),
        )
        launch_environment.fix_arithmetic()
        if self.accelerator.num_processes != processes:
            raise UserError(
                f"{processes} processes were launched but Accelerate sees {self.accelerator.num_processes}: "
                "use a file of accelerate_configs/ that fits this machine"
            )
        self.rank = self.accelerator.process_index
        self.world_size = self.accelerator.num_processes
        self.is_main = self.accelerator.is_main_process
        self.device = self.accelerator.device
        self.card = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else None
        plugin = self.accelerator.state.deepspeed_plugin
        self.zero_stage: int | None = plugin.zero_stage if plugin else None
        if self.zero_stage == 3:
            from transformers.integrations import unset_hf_deepspeed_config

            # Networks are whole until they are prepared. Without this, from_pretrained would share out their weights as it
            # reads them, whatever zero3_init_flag says, and the copies that prepare makes would be empty.
            unset_hf_deepspeed_config()
        self.fsdp = launched == "fsdp"
        if self.fsdp:
            launch_environment.fix_fsdp(self.accelerator.state.fsdp_plugin)
        self.model: nn.Module | None = None
        self.fresh_scale = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {}

    @property
    def kind(self) -> str:
        """What drives the processes: "single process", "DDP", "DeepSpeed ZeRO-2", …"""
        if self.zero_stage is not None:
            return f"DeepSpeed ZeRO-{self.zero_stage}"
        return "FSDP2" if self.fsdp else "DDP" if self.world_size > 1 else "single process"

    def describe(self) -> str:
        """Engine, ranks, device and precision for the start-up lines."""
        kind = self.kind
        processes = f", {self.world_size} processes" if kind != "single process" else ""
        threads = torch.get_num_threads()
        device = self.card or f"CPU ({threads} thread{'s' * (threads > 1)} a process)"
        precision = "fp32" if self.precision == "no" else self.precision
        return f"{kind}{processes} on {device}, precision {precision}, attention {self.attention_path()}"

    def peak_flops(self) -> float | None:
        """Dense half precision peak of all processes' devices together, per second; None where unknown."""
        peak = peak_flops(self.card) if self.card else None
        return peak and peak * self.world_size

    def attention_path(self) -> str:
        """Which attention kernel packed bins take here, for the log."""
        dtype = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
        return attention_path(self.device, dtype)

    # --- model and optimizer ---------------------------------------------------------------------------------------

    def prepare(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        checkpoint: Path | None,
        *,
        max_norm: float,
        compile: bool = False,
    ) -> nn.Module:
        """Place, shard, wrap and (optionally) compile the model; returns what the loop calls. Called on every process.

        Args:
            model: on the CPU, the same on every process.
            checkpoint: a folder that :meth:`save` wrote, under any engine and number of processes: its state is taken over.
                None: a fresh start.
            max_norm: gradients of a global step are clipped to it.
        """
        self.max_norm = max_norm
        if checkpoint:  # before any engine makes its own copies of the weights
            sharded.load_weights(model, checkpoint)
        if self.zero_stage is None:
            model.to(self.device)
        else:
            sharded.configure_deepspeed(self.accelerator.state.deepspeed_plugin.deepspeed_config, max_norm)
        if compile:
            model.compile(dynamic=False)  # shapes are static (invariant 5): one compilation
        weights = None if self.zero_stage is None else sharded.copy_of_weights(model)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        if weights:
            sharded.set_master_weights(self.unwrapped(), self.optimizer.optimizer, weights)
        if checkpoint:
            sharded.load_optimizer(self.unwrapped(), self.optimizer.optimizer, self.accelerator.scaler, checkpoint)
        return self.model

    def release(self) -> None:
        """Let go of model and optimizer, so that others can be prepared. Called on every process."""
        self.model, self.optimizer = self.accelerator.free_memory(self.model, self.optimizer)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(self.fresh_scale)

    def unwrapped(self) -> nn.Module:
        """The module that was prepared; under ZeRO-3 and FSDP2 its parameters are in parts."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    def micro_step(self, *, last: bool):
        """Context of a forward and backward pass: no gradient exchange before the last micro-step of a step."""
        if self.zero_stage is not None:
            # Accelerate's own bookkeeping would step in the last backward, before the learning rate is set.
            self.model.set_gradient_accumulation_boundary(is_boundary=last)
            return nullcontext()
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of ``loss`` (this process's share of the global loss, already normalised).

        All engines average gradients over processes, so the share is multiplied by their number.
        """
        if self.world_size > 1:
            loss = loss * self.world_size
        if self.zero_stage is not None:
            self.model.backward(loss)
        else:
            self.accelerator.backward(loss)

    def step(self, learning_rate: float) -> torch.Tensor:
        """Clip the gradient of the global loss, make one optimizer step, clear gradients. Called on every process.

        Returns:
            The norm of the gradient before it was clipped, 0-d, the same on every process.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        if self.zero_stage is not None:  # clips, steps and clears by itself
            self.model.step()
            return torch.as_tensor(self.model.get_global_grad_norm(), device=self.device)
        if self.fsdp:
            norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_norm).full_tensor()
        else:
            self.accelerator.unscale_gradients(self.optimizer)
            norm = clip_gradients(self.model.parameters(), self.max_norm)
        self.optimizer.step()
        # DDP's gradients stay the views into its buckets that they are: set to None, the next step would first sum elsewhere.
        self.optimizer.zero_grad(set_to_none=self.world_size == 1 or self.fsdp)
        return norm

    @property
    def has_loss_scale(self) -> bool:
        """Whether losses are scaled (fp16), so that a step whose gradient overflows is skipped."""
        return self.precision == "fp16"

    def save(self, folder: Path) -> None:
        """Write the state of model and optimizer into ``folder``, whole and in the same form under every engine.

        Called on every process; the first writes.
        """
        sharded.save(folder, self.unwrapped(), self.optimizer.optimizer, self.accelerator.scaler, writes=self.is_main)

    # --- processes -------------------------------------------------------------------------------------------------

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
        pause = 0.02
        while store.add(name, 0) < everybody:
            time.sleep(pause)
            pause = min(1.5 * pause, 1.0)

    def leave(self) -> None:
        """The end of a run that went well: no process leaves while another may still be talking to it.

        One that leaves first breaks the connections of the others; a process that then fails at its exit leaves the
        launcher of its host waiting five minutes for the rest.
        """
        self._wait_for_all()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def on_main(self, function: Callable[[], Any]) -> Any:
        """Call on the main process; every process gets its (picklable) result, or its UserError."""
        result = self.together(lambda: function() if self.is_main else None)
        return self.everywhere(result)[0]


def _require_runnable(launched: str, cpu: bool) -> None:
    """Raises UserError where Accelerate would fail far from the cause, or silently run something else."""
    if launched == "deepspeed":
        if sharded.deepspeed_version() is None:
            raise UserError("the launch file asks for DeepSpeed, which is not installed: pip install -e '.[deepspeed]'")
        if cpu and torch.cuda.is_available():
            raise UserError(
                "DeepSpeed uses the GPU where there is one: hide it (CUDA_VISIBLE_DEVICES=) or use ddp.yaml"
            )
        if os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "0":
            raise UserError(
                "the launch file asks for ZeRO stage 0, which shards nothing: use ddp.yaml, or stage 1, 2 or 3"
            )
    elif launched == "fsdp" and os.environ.get("FSDP_VERSION") != "2":
        raise UserError("the launch file asks for FSDP 1: set fsdp_version to 2, as in accelerate_configs/fsdp2.yaml")
    elif launched == "fsdp" and (cpu or not torch.cuda.is_available()):
        raise UserError("FSDP2 needs GPUs (on CPUs Accelerate silently runs DDP in its place): use ddp.yaml")
