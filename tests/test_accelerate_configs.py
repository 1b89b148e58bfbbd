"""The launch files, read with Accelerate's own parsers: keys that it no longer knows would be ignored or refused."""

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from tests.helpers import ROOT

FILES = sorted((ROOT / "accelerate_configs").glob("*.yaml"))


def test_every_engine_has_its_file():
    names = "cpu single ddp zero1 zero2 zero3 zero3_offload fsdp2".split()
    assert sorted(names) == [path.stem for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_understands_the_file(path):
    config = load_config_from_file(str(path))  # raises for keys that it does not know
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ") and f"accelerate_configs/{path.name}" in text, (
        "when to choose it, and how to launch it"
    )
    assert config.mixed_precision == "no", "train.precision decides"
    nested = {**(yaml.safe_load(text).get("deepspeed_config") or {}), **(yaml.safe_load(text).get("fsdp_config") or {})}
    parser = launch_command_parser()
    assert set(nested) <= {action.dest for action in parser._actions}
    words = ["--num_machines", "2", "--machine_rank", "1", "--main_process_ip", "10.0.0.1", "--num_processes", "4"]
    arguments, _, _ = _validate_launch_command(parser.parse_args(["--config_file", str(path), *words, "train.py"]))
    assert (arguments.num_machines, arguments.machine_rank, arguments.num_processes) == (2, 1, 4), (
        "the command line wins"
    )
    assert bool(arguments.use_deepspeed) == path.stem.startswith("zero")
    assert bool(arguments.use_fsdp) == path.stem.startswith("fsdp")
    if arguments.use_deepspeed:
        assert arguments.zero_stage == int(path.stem.removesuffix("_offload")[-1])
        assert arguments.deepspeed_multinode_launcher == "standard"
        devices = {arguments.offload_optimizer_device, arguments.offload_param_device}
        assert devices == {"cpu" if "offload" in path.stem else "none"}
    if arguments.use_fsdp:
        assert arguments.fsdp_version == "2" or arguments.fsdp_version == 2
