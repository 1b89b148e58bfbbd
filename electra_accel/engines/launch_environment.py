"""What a launcher, or a variable of the environment, could change in a run's numbers: refused here in one line, or fixed.

A run's numbers are decided by its configuration alone (invariant 11). The names are those that Accelerate 1.15 and DeepSpeed
0.19 read; most are also what ``accelerate launch`` makes of the keys of a launch file. What changes only how sums are rounded
(threads, kernels, the order of an all-reduce) counts as hardware and is not looked at.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy

from electra_accel import json_text
from electra_accel.errors import UserError

# Half precision by autocast, as under DDP. Accelerate's own policy would cast every tensor of the batch and of the output, the
# numbers that samples are drawn with and the counters among them.
FSDP_PRECISION = MixedPrecisionPolicy()

OFF = ("", "0", "false", "no", "off", "none")
ON_OR_OFF = (*OFF, "true")

# {variable: (values that leave the numbers alone, the key of a launch file that sets it, what decides instead)}
ALWAYS = {
    # Accelerate divides every gradient by it; our losses are normalised already.
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (
        ("1",),
        "gradient_accumulation_steps",
        "train.micro_batch_tokens divides a step into micro-steps",
    ),
    # Compiles behind our back and, in fp32 on a GPU, turns TF32 on.
    "ACCELERATE_DYNAMO_BACKEND": (("no",), "dynamo_backend", "train.compile compiles"),
    # Chooses the device after our precision was chosen for another.
    "ACCELERATE_TORCH_DEVICE": ((), "", "--cpu or CUDA_VISIBLE_DEVICES chooses the device"),
    # 8 bit products, without mixed_precision fp8 too (DeepSpeed with MS-AMP).
    "ACCELERATE_FP8_BACKEND": (("no",), "fp8_config", "train.precision is auto, no, bf16 or fp16"),
    # Model code of its own, and splits of the model or of texts that the networks here do not know.
    "ACCELERATE_USE_MEGATRON_LM": (OFF, "megatron_lm_config", "accelerate_configs/ has the engines"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": (OFF, "parallelism_config", "accelerate_configs/ has the engines"),
    "ACCELERATE_USE_SAGEMAKER": (OFF, "compute_environment", "accelerate_configs/ has the engines"),
    # Accelerate takes "1" for no: the run would be another than the one asked for.
    "ACCELERATE_USE_DEEPSPEED": (ON_OR_OFF, "", "only true turns it on"),
    "ACCELERATE_USE_FSDP": (ON_OR_OFF, "", "only true turns it on"),
    # NVIDIA's libraries compute fp32 products in TF32 (10 bits) whatever torch says.
    "NVIDIA_TF32_OVERRIDE": (("", "0"), "", "fp32 is computed in fp32"),
    # oneDNN computes fp32 products on the CPU in bf16; its old name and its new one.
    "DNNL_DEFAULT_FPMATH_MODE": (("", "strict"), "", "train.precision bf16 computes in bf16"),
    "ONEDNN_DEFAULT_FPMATH_MODE": (("", "strict"), "", "train.precision bf16 computes in bf16"),
    # Compiled code with approximate functions.
    "TORCHINDUCTOR_USE_FAST_MATH": (OFF, "", "compiled code computes as precisely as other code"),
    "TORCHINDUCTOR_CPP_ENABLE_UNSAFE_MATH_OPT_FLAG": (OFF, "", "compiled code computes as precisely as other code"),
}
DEEPSPEED = {
    # DeepSpeed clips by itself, to the launch file's norm in place of the run's.
    "ACCELERATE_GRADIENT_CLIPPING": (
        ("none", "auto"),
        "gradient_clipping",
        "optim.max_grad_norm clips (1 in fine-tuning)",
    ),
    "ACCELERATE_DEEPSPEED_MOE_LAYER_CLS_NAMES": (
        ("", "none"),
        "deepspeed_moe_layer_cls_names",
        "ELECTRA has no such layers",
    ),
}
FSDP = {
    # Their gradients would not be summed over the processes.
    "FSDP_IGNORED_MODULES": (("", "none"), "fsdp_ignored_modules", "every weight is trained together"),
    # Renames the weights, so that no other engine could go on from a checkpoint.
    "FSDP_ACTIVATION_CHECKPOINTING": (OFF, "fsdp_activation_checkpointing", "model.gradient_checkpointing does it"),
}

# Of a DeepSpeed file (deepspeed_config_file): how ZeRO stores and moves things, and what DeepSpeed reports.
ZERO = """stage offload_optimizer offload_param overlap_comm contiguous_gradients reduce_scatter reduce_bucket_size
    allgather_partitions allgather_bucket_size sub_group_size round_robin_gradients ignore_unused_parameters elastic_checkpoint
    load_from_fp32_weights stage3_prefetch_bucket_size stage3_param_persistence_threshold stage3_max_live_parameters
    stage3_max_reuse_distance stage3_gather_16bit_weights_on_model_save""".split()
OFFLOAD = (
    "device pin_memory nvme_path buffer_count buffer_size max_in_cpu fast_init pipeline_read pipeline_write".split()
)
ALLOWED = {f"zero_optimization.{key}" for key in ZERO}
ALLOWED |= {f"zero_optimization.offload_{what}.{key}" for what in ("optimizer", "param") for key in OFFLOAD}
REPORTS = ("aio", "comms_logger", "dump_state", "flops_profiler", "memory_breakdown", "wall_clock_breakdown")
# Others that ask for nothing with the value that they have here: Accelerate's or DeepSpeed's own.
NEUTRAL = {
    "gradient_accumulation_steps": 1,
    "zero_allow_untested_optimizer": True,
    "fp16.auto_cast": True,
    "fp16.initial_scale_power": 16,
    "fp16.loss_scale": 0,  # a dynamic one
    "fp16.loss_scale_window": 1000,
    "fp16.hysteresis": 2,
    "fp16.min_loss_scale": 1,
}


def launched_engine() -> str:
    """What ``accelerate launch`` asked for: "plain" (one process, or DDP), "deepspeed" or "fsdp"."""
    kinds = (kind for kind in ("deepspeed", "fsdp") if _value(f"ACCELERATE_USE_{kind.upper()}") == "true")
    return next(kinds, "plain")


def require_neutral() -> None:
    """Raises UserError where a variable would change a run's numbers."""
    for name, (neutral, key, instead) in (
        ALWAYS | {"deepspeed": DEEPSPEED, "fsdp": FSDP}.get(launched_engine(), {})
    ).items():
        if name in os.environ and _value(name) not in neutral:
            where = f", or of the launch file ({key})" if key else ""
            raise UserError(
                f"{name}={os.environ[name]} could change the numbers of a run: {instead}; take it out of the environment{where}"
            )


def _value(name: str) -> str:
    return os.environ.get(name, "").strip().lower()


def fix_arithmetic() -> None:
    """fp32 products in fp32. TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, and libraries, may have said otherwise by now."""
    torch.set_float32_matmul_precision("highest")


def fix_fsdp(plugin: Any) -> None:
    """Args: plugin: Accelerate's, before anything is prepared."""
    plugin.mixed_precision_policy = FSDP_PRECISION
    # The launcher's default is true: from_pretrained would leave weights empty on all processes but the first.
    plugin.cpu_ram_efficient_loading = False
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"


def deepspeed_settings(precision: str) -> dict[str, Any] | None:
    """What the user's DeepSpeed file may decide; None where there is none, or the launcher does not ask for DeepSpeed.

    Args:
        precision: of the run, which the file may repeat.

    Raises:
        UserError: the file cannot be read, or sets what a run decides.
    """
    name = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if launched_engine() != "deepspeed" or name in ("", "none"):
        return None
    ignored = {"gradient_accumulation_steps", "gradient_clipping", "zero_stage", "mixed_precision"}
    ignored |= {f"offload_{what}_{which}" for what in ("optimizer", "param") for which in ("device", "nvme_path")}
    twice = ignored & set(os.environ.get("ACCELERATE_CONFIG_DS_FIELDS", "").split(","))
    if twice:
        raise UserError(
            f"the launch file has deepspeed_config_file and {', '.join(sorted(twice))}: leave out the latter"
        )
    try:
        content = json_text.loads(Path(name).read_bytes())
    except OSError as error:
        raise UserError(f"deepspeed_config_file {name} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"deepspeed_config_file {name} is no JSON ({error})") from error
    zero = content.get("zero_optimization") if isinstance(content, dict) else None
    if not isinstance(zero, dict) or zero.get("stage") not in (1, 2, 3):
        raise UserError(f"deepspeed_config_file {name}: zero_optimization.stage must be 1, 2 or 3")
    given = {key: value for key, value in content.items() if key != "steps_per_print"}  # configure_deepspeed sets it
    settings, wrong = {key: given.pop(key) for key in REPORTS if key in given}, []
    neutral = NEUTRAL | {f"{half}.enabled": precision == half for half in ("bf16", "fp16")}
    for path, value in _flat(given):
        if path in ALLOWED and value not in ("auto", None):
            *inside, key = path.split(".")
            place = settings
            for part in inside:
                place = place.setdefault(part, {})
            place[key] = value
        elif path not in ALLOWED and value not in ("auto", None, neutral.get(path, False)):
            wrong.append(path)
    if wrong:
        raise UserError(
            f"deepspeed_config_file {name} sets {', '.join(wrong)}, which could change the numbers of a run: its own options "
            'decide (train.precision, train.micro_batch_tokens, optim.…); take it out of the file, or write "auto"'
        )
    return settings


def _flat(content: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted name, value) of all that is asked for: a feature that is not enabled has no say."""
    found = []
    for key, value in content.items():
        path = prefix + key
        if not isinstance(value, dict):
            found.append((path, value))
        else:
            found += [(f"{path}.enabled", False)] if value.get("enabled") is False else _flat(value, f"{path}.")
    return found
