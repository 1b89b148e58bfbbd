"""Floating point operations of training, by the formulas of matrix products, and what cards can do of them."""

from typing import NamedTuple

from transformers import ElectraConfig


class Flops(NamedTuple):
    """Of training.

    Attributes:
        token, slot: forward and backward, per real token and per selected position.
        step: the optimizer's matrix products, per step.
    """

    token: float
    slot: float
    step: float = 0.0

    def of_model(self, tokens: float, slots: float) -> float:
        """Forward and backward of so many real tokens and selected positions."""
        return self.token * tokens + self.slot * slots


def training_flops(
    generator: ElectraConfig,
    discriminator: ElectraConfig | None,
    context: float,
    *,
    corrective: bool = False,
    newton_schulz: int = 0,
) -> Flops:
    """Of a run with these networks.

    A matrix product of n inputs and m outputs costs 2nm, its backward twice that. Per layer of hidden size H and inner size
    F: four H x H projections, two H x F, and 4 * H * context for the scores and their weighted sum. The LM head (H x E, then
    E x V) and the corrective one run at selected positions only, the discriminator's (H x H, then H x 1) at every token.
    A round of Newton-Schulz on an m x n matrix, m at most n, has three products: 4 m^2 n + 2 m^3. Embedding look-ups, LayerNorm
    and activations, and what an optimizer does to each number, are left out, as is customary.

    Args:
        discriminator: None for masked language modelling by the generator alone.
        context: number of tokens that a token attends to, on average: the mean length of a token's example.
        corrective: whether the discriminator, where there is one, has a corrective head.
        newton_schulz: rounds on each matrix between hidden states in a step: Muon's; AdamW has none.
    """

    def encoder(c: ElectraConfig) -> float:
        layer = 2 * (4 * c.hidden_size**2 + 2 * c.hidden_size * c.intermediate_size) + 4 * c.hidden_size * context
        project = 2 * c.embedding_size * c.hidden_size if c.embedding_size != c.hidden_size else 0
        return c.num_hidden_layers * layer + project

    def judge(c: ElectraConfig) -> float:
        return encoder(c) + 2 * c.hidden_size**2 + 2 * c.hidden_size

    def lm_head(c: ElectraConfig) -> float:
        return 2 * c.embedding_size * (c.hidden_size + c.vocab_size)

    def encoder_matrices(c: ElectraConfig) -> list[tuple[int, int]]:
        h, inner = c.hidden_size, c.intermediate_size
        project = [(h, c.embedding_size)] if c.embedding_size != h else []
        return c.num_hidden_layers * [*4 * [(h, h)], (inner, h), (h, inner)] + project

    def lm_transform(c: ElectraConfig) -> list[tuple[int, int]]:
        return [(c.embedding_size, c.hidden_size)]

    per_token, per_slot = encoder(generator), lm_head(generator)
    matrices = encoder_matrices(generator) + lm_transform(generator)
    if discriminator:
        per_token += judge(discriminator)
        matrices += encoder_matrices(discriminator) + [2 * (discriminator.hidden_size,)]
        if corrective:
            per_slot += lm_head(discriminator)
            matrices += lm_transform(discriminator)
    rounds = (4 * min(shape) ** 2 * max(shape) + 2 * min(shape) ** 3 for shape in matrices)
    return Flops(3.0 * per_token, 3.0 * per_slot, float(newton_schulz * sum(rounds)))


# Dense bf16 (V100: fp16) peak in FLOP/s, from the makers' data sheets. All words of a key must occur in the card's name.
_PEAK_FLOPS = {
    "B200": 2250e12, "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "A100": 312e12, "A40": 150e12,
    "A10": 125e12, "L40S": 362e12, "L4": 121e12, "V100": 125e12, "RTX 4090": 165e12, "RTX 3090": 71e12,
}  # fmt: skip


def peak_flops(card: str) -> float | None:
    """Dense half precision peak in FLOP/s of a card by its name (``torch.cuda.get_device_name``); None if unknown."""
    words = set(card.replace("-", " ").split())
    return next((peak for name, peak in _PEAK_FLOPS.items() if words.issuperset(name.split())), None)
