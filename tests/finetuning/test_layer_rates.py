"""Each parameter learns at the rate of its depth."""

import pytest
import torch
from transformers import AlbertConfig, AutoModelForSequenceClassification, BertConfig, ElectraConfig, ModernBertConfig

from electra_accel.errors import UserError
from electra_accel.finetuning.config import Optim
from electra_accel.finetuning.layer_rates import build_adamw, depth_of, layer_decay, peak_learning_rate

SHAPE = dict(vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
PEAK, DECAY = 0.01, 0.5
# three layers: the head 1, the top layer one factor, the embeddings four
FACTORS = {
    "classifier.": 0,
    "bert.pooler.": 0,
    "encoder.layer.2.": 1,
    "encoder.layer.1.": 2,
    "encoder.layer.0.": 3,
    "embeddings.": 4,
    "embeddings_project.": 4,
}


@pytest.mark.parametrize("config", [ElectraConfig(embedding_size=8, **SHAPE), BertConfig(**SHAPE)], ids=type)
def test_rate_of_every_parameter(config):
    """Measured by what a step really changes: Adam's first step moves each weight by its rate, whatever the gradient."""
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config)
    optimizer = build_adamw(model, Optim(learning_rate=PEAK, layer_decay=DECAY))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] / 2  # as the engine sets it, halfway down the schedule
    optimizer.step()
    for name, parameter in model.named_parameters():
        [factor] = [factor for part, factor in FACTORS.items() if part in name]
        moved = (parameter.detach() - before[name]).abs().median().item()
        assert moved == pytest.approx(PEAK / 2 * DECAY**factor, rel=1e-2), name


def test_every_parameter_is_in_one_group_and_matrices_decay():
    model = AutoModelForSequenceClassification.from_config(ElectraConfig(**SHAPE))
    groups = build_adamw(model, Optim(weight_decay=0.1)).param_groups
    together = [parameter for group in groups for parameter in group["params"]]
    assert len(together) == len(set(together)) == len(list(model.parameters()))
    assert all((group["weight_decay"] > 0) == (p.ndim >= 2) for group in groups for p in group["params"])


@pytest.mark.parametrize(
    "hidden, rate, decay", [(128, 3e-4, 0.8), (256, 3e-4, 0.8), (768, 1e-4, 0.8), (1024, 5e-5, 0.9)]
)
def test_published_rates(hidden, rate, decay):
    config = ElectraConfig(hidden_size=hidden)
    assert (peak_learning_rate(Optim(), config), layer_decay(Optim(), config)) == (rate, decay)


def test_a_last_norm_is_the_top_layers():
    model = AutoModelForSequenceClassification.from_config(ModernBertConfig(pad_token_id=0, **SHAPE))
    depths = {name: depth_of(name, model) for name, _ in model.named_parameters()}
    assert depths["model.final_norm.weight"] == 3
    assert {depth for name, depth in depths.items() if "embeddings" in name} == {0}
    assert {depth for name, depth in depths.items() if not name.startswith("model.")} == {4}


def test_layers_that_cannot_be_told_apart_are_refused():
    """ALBERT's share their weights: with a decay all of the encoder would learn like the embeddings."""
    model = AutoModelForSequenceClassification.from_config(AlbertConfig(embedding_size=8, **SHAPE))
    with pytest.raises(UserError, match="--optim.layer_decay 1"):
        build_adamw(model, Optim())
    groups = build_adamw(model, Optim(learning_rate=PEAK, layer_decay=1.0)).param_groups
    assert {group["peak"] for group in groups} == {PEAK}
