"""A user's DeepSpeed file: how ZeRO stores and moves things is taken, what changes numbers is refused."""

import os
from pathlib import Path
from typing import Any

from electra_accel import json_text
from electra_accel.errors import UserError

# How ZeRO stores and moves things, and what DeepSpeed reports.
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


def deepspeed_settings(precision: str) -> dict[str, Any] | None:
    """What the user's DeepSpeed file may decide; None where there is none.

    Args:
        precision: of the run, which the file may repeat.

    Raises:
        UserError: the file cannot be read, or sets what a run decides.
    """
    name = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if name in ("", "none"):
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
    given = {key: value for key, value in content.items() if key != "steps_per_print"}  # deepspeed.configure sets it
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
