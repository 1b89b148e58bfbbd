"""Nothing outside the configuration changes a number (invariant 11): variables, launch files, DeepSpeed files."""

import importlib
import json
import os
import re
from pathlib import Path

import accelerate
import pytest
import torch
from accelerate.utils import DeepSpeedPlugin

import electra_accel
from electra_accel.engines import deepspeed, fsdp2, launch_environment
from electra_accel.engines.deepspeed_file import deepspeed_settings
from electra_accel.engines.open import launched, open_engine
from electra_accel.engines.plain import Plain
from electra_accel.errors import UserError
from tests.finetuning_runs import line, make_place
from tests.pretraining_runs import metrics, options, run_here, write_corpus

DEEPSPEED, FSDP = {"ACCELERATE_USE_DEEPSPEED": "true"}, {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
SHORT = {
    "train__steps": 2,
    "eval__every": 10,
    "eval__batches": 1,
    "tracking__samples": "none",
    "tracking__trackers": "[]",
    "tokenizer__train_vocab_size": 400,
    "optim__warmup_steps": 0,
}
# Read by Accelerate, and harmless: where things run, what is printed, how memory is used, or looked at by our own code.
HARMLESS = """
    ACCELERATE_ALLOW_CP_STANDALONE ACCELERATE_BYPASS_DEVICE_MAP ACCELERATE_CONFIG_DS_FIELDS ACCELERATE_CPU_AFFINITY
    ACCELERATE_DEBUG_MODE ACCELERATE_DEBUG_RDV_FILE ACCELERATE_DEEPSPEED_CONFIG_FILE ACCELERATE_DEEPSPEED_ZERO3_INIT
    ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_NVME_PATH
    ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_NVME_PATH
    ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL ACCELERATE_DEEPSPEED_ZERO_STAGE ACCELERATE_DOWNCAST_BF16
    ACCELERATE_DYNAMO_MODE ACCELERATE_DYNAMO_USE_DYNAMIC ACCELERATE_DYNAMO_USE_FULLGRAPH
    ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION ACCELERATE_ENABLE_RICH ACCELERATE_FP8_OPT_LEVEL
    ACCELERATE_INIT_INCLUDE_BUFFERS ACCELERATE_LOG_LEVEL ACCELERATE_MIXED_PRECISION
    ACCELERATE_SAGEMAKER_DISTRIBUTED_TYPE ACCELERATE_USE_CPU
    FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD FSDP_AUTO_WRAP_POLICY FSDP_BACKWARD_PREFETCH FSDP_CPU_RAM_EFFICIENT_LOADING
    FSDP_FORWARD_PREFETCH FSDP_MIN_NUM_PARAMS FSDP_OFFLOAD_PARAMS FSDP_RESHARD_AFTER_FORWARD FSDP_SHARDING_STRATEGY
    FSDP_STATE_DICT_TYPE FSDP_SYNC_MODULE_STATES FSDP_TRANSFORMER_CLS_TO_WRAP FSDP_USE_ORIG_PARAMS FSDP_VERSION
""".split()


def set_all(monkeypatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("name", "value", "launch"),
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "8", {}),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "auto", {}),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "", {}),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", DEEPSPEED),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", {}),
        ("ACCELERATE_TORCH_DEVICE", "cuda:0", {}),
        ("ACCELERATE_FP8_BACKEND", "MSAMP", DEEPSPEED),
        ("ACCELERATE_USE_MEGATRON_LM", "true", {}),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", {}),
        ("ACCELERATE_USE_SAGEMAKER", "true", {}),
        ("ACCELERATE_USE_DEEPSPEED", "1", {}),
        ("ACCELERATE_USE_FSDP", "yes", {}),
        ("NVIDIA_TF32_OVERRIDE", "1", {}),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16", {}),
        ("DNNL_DEFAULT_FPMATH_MODE", "any", {}),
        ("TORCHINDUCTOR_USE_FAST_MATH", "1", {}),
        ("ACCELERATE_GRADIENT_CLIPPING", "0.1", DEEPSPEED),
        ("ACCELERATE_DEEPSPEED_MOE_LAYER_CLS_NAMES", "ElectraLayer", DEEPSPEED),
        ("FSDP_IGNORED_MODULES", "generator", FSDP),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", FSDP),
    ],
)
def test_what_could_change_numbers_is_refused_before_anything_begins(monkeypatch, tmp_path, name, value, launch):
    set_all(monkeypatch, launch | {name: value})
    with pytest.raises(UserError, match=f"^{name}={value} ") as refused:
        open_engine(precision="no", cpu=True, trackers=[], folder=tmp_path)
    assert "\n" not in str(refused.value)


def test_the_gradient_is_the_same_with_whatever_is_let_through(monkeypatch, capfd, tmp_path):
    """And with a variable that is not, nothing begins, in any script that computes."""
    write_corpus(tmp_path / "text.txt", most=300)
    norms = {}
    quiet = {
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1",
        "ACCELERATE_DYNAMO_BACKEND": "NO",
        "NVIDIA_TF32_OVERRIDE": "0",
    }
    quiet |= {"ACCELERATE_GRADIENT_CLIPPING": "0.1", "FSDP_IGNORED_MODULES": "generator"}  # read by other engines only
    quiet |= {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1", "ACCELERATE_FP8_OPT_LEVEL": "O2"}
    for run, variables in (("without", {}), ("with", quiet)):
        set_all(monkeypatch, variables)
        code, out, err = run_here(options("text.txt", run, **SHORT), tmp_path, monkeypatch, capfd)
        assert code == 0, out + err
        norms[run] = [row["train/gradient_norm"] for row in metrics(tmp_path / run) if "train/gradient_norm" in row]
    assert len(norms["with"]) == 2 and norms["with"] == norms["without"]

    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "8")
    place = make_place(tmp_path / "tasks")
    for script, arguments in (
        ("pretrain.py", options("text.txt", "never", **SHORT)),
        ("pretrain.py", [*options("text.txt", "never", **SHORT), "--dry_run"]),
        ("finetune.py", line("never")),
        ("finetune.py", [*line("never"), "--dry_run"]),
        ("check_cluster.py", []),
    ):
        cwd = place if script == "finetune.py" else tmp_path
        code, out, err = run_here(arguments, cwd, monkeypatch, capfd, script)
        assert code == 2 and "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=8" in err.splitlines()[-1], out + err
        assert not (cwd / "never").exists()


def test_every_variable_that_accelerate_reads_has_been_looked_at():
    """A new version may bring others: each belongs into launch_environment, or to the harmless ones here."""
    root = Path(accelerate.__file__).parent
    files = [path for path in root.rglob("*.py") if not path.is_relative_to(root / "test_utils")]
    found = {
        name for path in files for name in re.findall(r'"((?:ACCELERATE|FSDP)_[A-Z0-9_]*[A-Z0-9])"', path.read_text())
    }
    known = {*launch_environment.ALWAYS, *deepspeed.DeepSpeed.neutral, *fsdp2.Fsdp2.neutral, *HARMLESS}
    assert len(found) > 40 and found - known == set()


def test_fp32_is_fp32_whatever_was_set_before(monkeypatch, tmp_path):
    """As TORCH_ALLOW_TF32_CUBLAS_OVERRIDE has it when torch is imported."""
    torch.set_float32_matmul_precision("high")
    try:
        open_engine(precision="no", cpu=True, trackers=[], folder=tmp_path)
        assert torch.get_float32_matmul_precision() == "highest" and not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


def test_fsdp_keeps_whole_weights_on_every_process(monkeypatch):
    class Plugin:
        mixed_precision_policy, cpu_ram_efficient_loading = None, True

    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")  # the launcher's default
    fsdp2.configure(Plugin)
    assert (
        not Plugin.cpu_ram_efficient_loading and launch_environment.value("FSDP_CPU_RAM_EFFICIENT_LOADING") == "false"
    )


@pytest.mark.parametrize("by", ["launch file", "DeepSpeed file"])
def test_an_offloaded_optimizer_that_needs_whole_matrices_is_refused_first(by, monkeypatch, tmp_path, capfd):
    """Also where a run is only planned. AdamW may be offloaded."""
    set_all(monkeypatch, DEEPSPEED | {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"})
    if by == "launch file":
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "cpu")
    else:
        content = {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}}}
        (tmp_path / "deepspeed.json").write_text(json.dumps(content))
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "deepspeed.json"))
    for planned in ([], ["--dry_run"]):
        words = [*options("none.txt", "never", **SHORT, optim__kind="muon"), *planned]
        write_corpus(tmp_path / "none.txt", most=20)
        code, _, err = run_here(words, tmp_path, monkeypatch, capfd)
        assert code == 2 and "optim.kind muon cannot be offloaded: use optim.kind adamw" in err, err
        assert not (tmp_path / "prepared").exists()
    launched().require_optimizer("adamw", "no")


USUAL = {
    "zero_optimization": {
        "stage": 2,
        "offload_optimizer": {"device": "cpu", "pin_memory": False},
        "overlap_comm": True,
        "reduce_bucket_size": "auto",
        "zero_quantized_gradients": False,
    },
    "bf16": {"enabled": "auto"},
    "fp16": {"enabled": "auto", "loss_scale": 0, "loss_scale_window": 1000, "initial_scale_power": 16, "hysteresis": 2},
    "amp": {"enabled": False, "opt_level": "O1"},
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "optimizer": {"type": "auto", "params": {"lr": "auto"}},
    "steps_per_print": 2000,
    "wall_clock_breakdown": False,
}


@pytest.fixture
def deepspeed_file(monkeypatch, tmp_path):
    """deepspeed_file(content) -> the path of a launch's DeepSpeed file."""
    set_all(monkeypatch, DEEPSPEED | {"ACCELERATE_DEEPSPEED_CONFIG_FILE": str(tmp_path / "ds.json")})

    def write(content: object) -> Path:
        (tmp_path / "ds.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path / "ds.json"

    return write


def test_of_a_deepspeed_file_only_what_moves_and_stores_is_taken(deepspeed_file, monkeypatch):
    deepspeed_file(USUAL)
    taken = deepspeed_settings("bf16")
    zero = {"stage": 2, "offload_optimizer": {"device": "cpu", "pin_memory": False}, "overlap_comm": True}
    assert taken == {"zero_optimization": zero, "wall_clock_breakdown": False}
    assert launched() is deepspeed.DeepSpeed
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "false")
    assert launched() is Plain


def test_what_is_taken_is_all_that_deepspeed_is_told(deepspeed_file):
    pytest.importorskip("deepspeed")
    deepspeed_file(USUAL)
    plugin = DeepSpeedPlugin(hf_ds_config=deepspeed_settings("no"))
    deepspeed.configure(plugin.deepspeed_config, 0.7)
    told = plugin.deepspeed_config
    assert (plugin.zero_stage, told["gradient_clipping"], told["gradient_accumulation_steps"]) == (2, 0.7, 1)
    assert not {"bf16", "fp16", "amp", "optimizer", "train_batch_size"} & told.keys()


@pytest.mark.parametrize(
    ("changed", "precision", "named"),
    [
        ({"gradient_accumulation_steps": 8}, "no", "gradient_accumulation_steps"),
        ({"gradient_clipping": 0.5}, "no", "gradient_clipping"),
        ({"train_batch_size": 64}, "no", "train_batch_size"),
        ({"optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}}, "no", "optimizer.type, optimizer.params.lr"),
        ({"scheduler": {"type": "WarmupLR"}}, "no", "scheduler.type"),
        ({"bf16": {"enabled": True}}, "no", "bf16.enabled"),
        ({"bf16": {"enabled": False}}, "bf16", "bf16.enabled"),
        ({"bf16": {"enabled": True, "bf16_master_weights_and_grads": True}}, "bf16", "bf16_master_weights_and_grads"),
        ({"fp16": {"enabled": True, "loss_scale": 128}}, "fp16", "fp16.loss_scale"),
        ({"amp": {"enabled": True}}, "no", "amp.enabled"),
        ({"communication_data_type": "bf16"}, "no", "communication_data_type"),
        ({"zero_optimization": {"stage": 2, "zero_quantized_gradients": True}}, "no", "zero_quantized_gradients"),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": {"ratio": 0.3}}}, "no", "offload_optimizer.ratio"),
        ({"zero_optimization": {"stage": 0}}, "no", "zero_optimization.stage"),
        ({"zero_optimization": None}, "no", "zero_optimization.stage"),
    ],
)
def test_what_else_a_deepspeed_file_sets_is_refused_by_name(deepspeed_file, changed, precision, named):
    path = deepspeed_file(USUAL | changed)
    with pytest.raises(UserError, match=re.escape(named)) as refused:
        deepspeed_settings(precision)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("content", ["{", "[]", "", '{"zero_optimization": 2}'])
def test_a_deepspeed_file_that_is_none(deepspeed_file, content):
    path = deepspeed_file(content)
    with pytest.raises(UserError, match=re.escape(str(path))):
        deepspeed_settings("no")
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        deepspeed_settings("no")


def test_a_launch_file_that_says_it_twice(deepspeed_file, monkeypatch):
    """Accelerate would end with a ValueError."""
    deepspeed_file(USUAL)
    monkeypatch.setenv(
        "ACCELERATE_CONFIG_DS_FIELDS", "deepspeed_config_file,zero3_init_flag,zero_stage,mixed_precision"
    )
    with pytest.raises(UserError, match="mixed_precision, zero_stage"):
        deepspeed_settings("no")


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "30000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)]
)
def test_idle_threads_spin_briefly_unless_the_user_says_otherwise(given, spins, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
        if name in given:
            monkeypatch.setenv(name, given[name])
    importlib.reload(electra_accel)
    assert os.environ.pop("GOMP_SPINCOUNT", None) == spins
