"""DeepSpeed ZeRO 1 to 3 and DDP beside the single process: the small cut of ``make parity``, and checkpoints that move on.

Few launches show everything here; each runs several trainings one after another.
"""

from dataclasses import replace

import pytest
import safetensors.torch
import torch
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining

from electra_accel.engines.deepspeed import deepspeed_version
from electra_accel.engines.state import MODEL_FILE
from electra_accel.runs import checkpoint, run_folder
from tests.parity.compare import Run, compare
from tests.parity.table import ACCUMULATED, CORRECTIVE, EXACT, OURS, STEPS, UNEVEN, Case, launch_options, row
from tests.pretraining_runs import finish, start, write_corpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(deepspeed_version() is None, reason="DeepSpeed is not installed"),
]
LAUNCHES = {  # engine: processes and cases, in this order
    "zero2": (2, (ACCUMULATED,)),
    "single": (1, (ACCUMULATED, UNEVEN, CORRECTIVE, *EXACT, *OURS[1:])),
    "zero3": (2, (ACCUMULATED, CORRECTIVE, OURS[1])),
    "ddp": (4, (UNEVEN, *EXACT, OURS[2])),
    "zero1": (2, (ACCUMULATED,)),
}
RELAYED = replace(CORRECTIVE, optimizer="muon")  # all the weights that there can be, and the state of both optimizers
RELAY = 2  # steps of one and the same run that each of them makes, and then again, from its own checkpoint
WHOLE = 2 * RELAY * len(LAUNCHES)
STEADY = dict(optim__schedule="constant", optim__warmup_steps=0)  # so that more steps are the same run, longer
FIRST_STEP = STEADY | dict(
    optim__weight_decay=0, train__steps=1, eval__patience=9, eval__every=1
)  # with patience, step 0 is saved too


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """All launches, done."""
    folder = tmp_path_factory.mktemp("engines")
    write_corpus(folder / "text.txt")
    for turn, (engine, (processes, cases)) in enumerate(LAUNCHES.items(), start=1):
        runs = [case.options(folder / f"{engine}-{case.name()}", folder) for case in cases]
        for steps in (RELAY * (2 * turn - 1), RELAY * 2 * turn):
            runs.append(RELAYED.options(folder / "relay", folder, **STEADY, train__steps=steps))
        runs.append(RELAYED.options(folder / f"{engine}-first", folder, **FIRST_STEP))
        if engine == "single":
            runs.append(RELAYED.options(folder / "undisturbed", folder, **STEADY, train__steps=WHOLE))
        launch_options(engine, processes, runs, folder, timeout=600)
    return folder


@pytest.mark.parametrize(
    ("engine", "case"),
    [(engine, case) for engine, (_, cases) in LAUNCHES.items() for case in cases if engine != "single"],
    ids=lambda value: value.name() if isinstance(value, Case) else value,
)
def test_engines_train_the_same_run(place, engine, case):
    processes, _ = LAUNCHES[engine]
    run = Run(place / f"{engine}-{case.name()}", processes, case.bins)
    reference = Run(place / f"single-{case.name()}", 1, case.bins)
    assert len(run.losses()) == STEPS
    assert run.gradient_norms().min() > 1, "clipping was not active"
    found = row(engine, processes, case, compare(run, reference))
    assert found[-1] == "pass", found
    assert run.weights().keys() == reference.weights().keys()


def test_one_run_goes_on_under_one_engine_after_another(place):
    """2 processes, 1, 2, 4, 2: each goes on from the checkpoint of the one before, then from its own; nothing changes."""
    relay, whole = (Run(place / name, 1, 8) for name in ("relay", "undisturbed"))
    assert len(relay.losses()) == WHOLE
    assert relay.losses() == pytest.approx(whole.losses(), rel=1e-5)
    weights = whole.weights()
    apart = max(float(abs(tensor - weights[name]).max()) for name, tensor in relay.weights().items())
    assert apart < 1e-5
    # and in another precision: the same two steps more, in bf16 and in fp32
    more = dict(STEADY, train__steps=WHOLE + 2)
    outputs = []
    for run, precision in (("relay", "bf16"), ("undisturbed", "fp32")):
        code, out, err = finish(
            start(
                replace(RELAYED, precision=precision).options(place / run, place, **more), place, WANDB_MODE="disabled"
            )
        )
        assert code == 0, out + err
        outputs.append(out)
    assert f"from step {WHOLE}" in outputs[0] and "precision bf16" in outputs[0]
    assert relay.losses()[WHOLE:] == pytest.approx(whole.losses()[WHOLE:], rel=0.01)


@pytest.mark.parametrize("engine", LAUNCHES)
def test_every_parameter_changes_in_the_first_step_and_tied_ones_stay_tied(place, engine):
    """That they are one parameter is asserted in every forward pass (tests/parity/recorded.py); here what is on disk."""
    folder = place / f"{engine}-first"
    saved = [
        safetensors.torch.load_file(path / MODEL_FILE)
        for _, path in checkpoint.existing(folder / run_folder.CHECKPOINTS)
    ]
    assert len(saved) == 2 and len(saved[0]) > 100
    assert [name for name in saved[0] if saved[0][name].equal(saved[1][name])] == []
    generator = AutoModelForMaskedLM.from_pretrained(folder / "generator")
    discriminator = AutoModelForPreTraining.from_pretrained(folder / "discriminator")
    table = saved[progress_step(folder)]["generator.electra.embeddings.word_embeddings.weight"]
    for tied in (
        generator.electra.embeddings.word_embeddings.weight,
        generator.generator_lm_head.weight,
        discriminator.electra.embeddings.word_embeddings.weight,
    ):
        assert tied.equal(table)


def progress_step(folder) -> int:
    """Which of the two checkpoints was exported: the better one."""
    return int("step 1 (the last)" in (folder / "discriminator" / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("engine", ["zero1", "zero2", "zero3"])
def test_a_resume_in_bf16_is_exact(tmp_path, engine):
    """Weights of a checkpoint are the fp32 master copies: if a resume rounded them to bf16, the runs would part."""
    write_corpus(tmp_path / "text.txt", most=300)
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    case = Case("bf16", optimizer="muon")
    runs = [
        case.options(folder, tmp_path, **STEADY, train__steps=n) for folder, n in ((whole, 6), (halves, 3), (halves, 6))
    ]
    launch_options(engine, 2, runs, tmp_path)
    assert Run(halves, 2, 8).losses().tolist() == Run(whole, 2, 8).losses().tolist()
    mine, theirs = Run(halves, 2, 8).weights(), Run(whole, 2, 8).weights()
    assert [name for name in theirs if not (mine[name] == theirs[name]).all()] == []
    rounded = [
        name for name, tensor in theirs.items() if (torch.from_numpy(tensor).bfloat16().float().numpy() == tensor).all()
    ]
    assert not [name for name in rounded if name.endswith("dense.weight")], "master weights are fp32"
