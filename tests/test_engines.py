"""DeepSpeed ZeRO 1 to 3 and DDP beside the single process: the small cut of ``make parity``, and checkpoints that move on.

Five launches show everything here; each runs several trainings one after another.
"""

import pytest
import safetensors.torch
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining

from electra_accel import run_folder
from electra_accel.training import checkpoint
from electra_accel.training.sharded import MODEL_FILE, deepspeed_version
from tests.parity.compare import Run, compare
from tests.parity.table import ACCUMULATED, EXACT, STEPS, UNEVEN, Case, launch_options, row
from tests.pretraining import run_here, write_corpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(deepspeed_version() is None, reason="DeepSpeed is not installed"),
]
LAUNCHES = {  # engine: processes and cases, in this order
    "zero2": (2, (ACCUMULATED,)),
    "single": (1, (ACCUMULATED, UNEVEN, *EXACT)),
    "zero3": (2, (ACCUMULATED,)),
    "ddp": (3, (UNEVEN, *EXACT)),
    "zero1": (2, (ACCUMULATED,)),
}
RELAY = 4  # steps that each of them makes of one and the same run
STEADY = dict(optim__schedule="constant", optim__warmup_steps=0)  # so that more steps are the same run, longer
FIRST_STEP = STEADY | dict(train__steps=1, eval__patience=9, eval__every=1)  # with patience, step 0 is saved too


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """All launches, done."""
    folder = tmp_path_factory.mktemp("engines")
    write_corpus(folder / "text.txt")
    relay = Case("fp32")
    for turn, (engine, (processes, cases)) in enumerate(LAUNCHES.items(), start=1):
        runs = [case.options(folder / f"{engine}-{case.name()}", folder) for case in cases]
        runs.append(relay.options(folder / "relay", folder, **STEADY, train__steps=RELAY * turn))
        runs.append(relay.options(folder / f"{engine}-first", folder, **FIRST_STEP))
        if engine == "single":
            runs.append(relay.options(folder / "undisturbed", folder, **STEADY, train__steps=RELAY * len(LAUNCHES)))
        launch_options(engine, processes, runs, folder, timeout=300)
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


def test_one_run_goes_on_under_one_engine_after_another(place, monkeypatch, capfd):
    """Two processes, one, two, three, two: each goes on from the checkpoint of the one before, order and losses unchanged."""
    relay, whole = (Run(place / name, 1, 8) for name in ("relay", "undisturbed"))
    assert len(relay.losses()) == RELAY * len(LAUNCHES)
    assert relay.losses() == pytest.approx(whole.losses(), rel=1e-5)
    weights = whole.weights()
    apart = max(float(abs(tensor - weights[name]).max()) for name, tensor in relay.weights().items())
    assert apart < 1e-5
    # and in another precision
    steps = RELAY * len(LAUNCHES)
    options = Case("bf16").options(place / "relay", place, **STEADY, train__steps=steps + 2)
    code, out, err = run_here(options, place, monkeypatch, capfd)
    assert code == 0, out + err
    assert f"from step {steps}" in out and "precision bf16" in out
    assert relay.losses()[-1] == pytest.approx(whole.losses()[-1], rel=0.05)


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
