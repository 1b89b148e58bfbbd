import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from electra_accel.engines.muon import ROUNDS
from electra_accel.model.flops import peak_flops, training_flops
from electra_accel.model.mlm import MaskedLanguageModeling
from electra_accel.model.rtd import ReplacedTokenDetection
from electra_accel.pretraining.config import Config, Model, Optim, resolve
from electra_accel.pretraining.optim import build_optimizer
from tests.model.batches import toy_pair


def test_training_flops_agree_with_a_count_of_the_products():
    """Counted by torch while the plain networks run over one text; the backward pass counts twice the forward pass."""
    generator, discriminator = toy_pair()
    generator.set_attn_implementation("eager")
    discriminator.set_attn_implementation("eager")
    tokens = 50
    ids = torch.arange(10, 10 + tokens)[None]
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        generator(ids)  # the LM head at every token
        discriminator(ids)
    per_token, per_slot, _ = training_flops(generator.config, discriminator.config, context=tokens)
    assert tokens * (per_token + per_slot) == pytest.approx(3 * counted.get_total_flops(), rel=1e-9)


def test_training_flops_of_the_corrective_head_agree_with_a_count_of_the_products():
    pair = toy_pair()
    model, slots = ReplacedTokenDetection(*pair, corrective=True), 30
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model.corrector(torch.zeros(slots, model.config.hidden_size))
    configs = [network.config for network in pair]
    (token, without, _), (same, with_head, _) = (training_flops(*configs, 50, corrective=on) for on in (False, True))
    assert token == same
    assert slots * (with_head - without) == pytest.approx(3 * counted.get_total_flops(), rel=1e-9)
    assert training_flops(configs[0], None, 50, corrective=True) == training_flops(configs[0], None, 50)


def test_training_flops_of_one_network_agree_with_a_count_of_the_products():
    network = toy_pair().generator
    network.set_attn_implementation("eager")
    tokens = 50
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        network(torch.arange(10, 10 + tokens)[None])
    per_token, per_slot, _ = training_flops(network.config, None, context=tokens)
    assert tokens * (per_token + per_slot) == pytest.approx(3 * counted.get_total_flops(), rel=1e-9)


@pytest.mark.parametrize("trained", ["pair", "pair with a corrective head", "one network"])
def test_training_flops_of_muon_agree_with_a_count_of_the_products(trained):
    pair = toy_pair()
    if trained == "one network":
        model, configs = MaskedLanguageModeling(pair.generator), (pair.generator.config, None)
    else:
        model = ReplacedTokenDetection(*pair, corrective="corrective" in trained)
        configs = [network.config for network in pair]
    optimizer = build_optimizer(model, resolve(Config(optim=Optim(kind="muon"), model=Model(size="tiny"))).optim)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with FlopCounterMode(display=False) as counted:
        optimizer.step()
    flops = training_flops(*configs, 50, corrective="corrective" in trained, newton_schulz=ROUNDS)
    assert flops.step == counted.get_total_flops() > 0
    assert training_flops(*configs, 50).step == 0


@pytest.mark.parametrize(
    ("card", "tera"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10", 125),
        ("Tesla V100-SXM2-16GB", 125),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA L4", 121),
        ("NVIDIA L40", None),  # not in the table, and not an L4
        ("NVIDIA RTX A4000", None),
    ],
)
def test_peaks_are_found_by_the_cards_name(card, tera):
    assert peak_flops(card) == (tera and tera * 1e12)
