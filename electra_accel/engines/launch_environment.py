"""What a launcher, or a variable of the environment, could change in a run's numbers: refused here in one line, or fixed.

A run's numbers are decided by its configuration alone (invariant 11). The names are those that Accelerate 1.15 and DeepSpeed
0.19 read; most are also what ``accelerate launch`` makes of the keys of a launch file. What changes only how sums are rounded
(threads, kernels, the order of an all-reduce) counts as hardware and is not looked at.
"""

import os

import torch

from electra_accel.errors import UserError

OFF = ("", "0", "false", "no", "off", "none")
ON_OR_OFF = (*OFF, "true")

# {variable: (values that leave the numbers alone, the key of a launch file that sets it, what decides instead)}
Variables = dict[str, tuple[tuple[str, ...], str, str]]
# fmt: off
ALWAYS: Variables = {
    # Accelerate divides every gradient by it; our losses are normalised already.
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (("1",), "gradient_accumulation_steps", "train.micro_batch_tokens splits a step"),
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
# fmt: on


def require_neutral(of_the_engine: Variables) -> None:
    """Raises UserError where a variable would change a run's numbers."""
    for name, (neutral, key, instead) in (ALWAYS | of_the_engine).items():
        if name in os.environ and value(name) not in neutral:
            where = f", or of the launch file ({key})" if key else ""
            raise UserError(
                f"{name}={os.environ[name]} could change the numbers of a run: {instead}; take it out of the environment{where}"
            )


def value(name: str) -> str:
    return os.environ.get(name, "").strip().lower()


def fix_arithmetic() -> None:
    """fp32 products in fp32. TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, and libraries, may have said otherwise by now."""
    torch.set_float32_matmul_precision("highest")
