"""Embedding sharing between generator and discriminator: one table, two, or one table and a difference.

- ``tied``: ELECTRA's (Clark et al., ICLR 2020, section 3.2, and the released code). The word, position and token-type tables
  and the LayerNorm behind them are one: the generator's task moves every row of the vocabulary, the discriminator's only those
  that it reads.
- ``none``: each network has its own.
- ``gdes``: gradient-disentangled (He et al., DeBERTaV3, ICLR 2023, section 3.3). The discriminator's tables are
  E_D = stop-gradient(E_G) + delta: it uses what the generator learns, but its own task, which pulls in another direction,
  moves delta only. LayerNorm is separate.

In all three the generator's LM head reuses the generator's word table.
"""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import ElectraForMaskedLM, ElectraForPreTraining

TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


class DeltaEmbedding(nn.Module):
    """A table that is another table, to which no gradient flows, plus ``delta``; computed as two look-ups.

    Args:
        base: the other network's table.
        weight: [rows, size]; what the sum is to be at the start. Where it equals the base, delta is exactly 0.
    """

    def __init__(self, base: nn.Embedding, weight: torch.Tensor):
        super().__init__()
        self._base = (base,)  # in a tuple, because it belongs to the other network: no second name in the state
        self.delta = nn.Parameter(weight.detach() - base.weight.detach())

    @property
    def base(self) -> nn.Embedding:
        return self._base[0]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            base = self.base(ids)  # by calling the module, whose hooks gather its weight under ZeRO-3
        return base + F.embedding(ids, self.delta, self.base.padding_idx)


def share(generator: ElectraForMaskedLM, discriminator: ElectraForPreTraining, how: str) -> None:
    """Shares the embeddings of two networks that have their own, in place; the discriminator's logits stay what they are.

    Shared parameters are the same ``Parameter`` object in several modules, which is what optimizers, DDP, ZeRO and
    ``save_pretrained`` recognise.

    Args:
        how: ``"tied"``: the values are the discriminator's; the shapes must agree (``pair.check_pair``).
            ``"none"``. ``"gdes"``: delta is the difference between the two; the shapes must agree.
    """
    mine, theirs = generator.electra.embeddings, discriminator.electra.embeddings
    if how == "tied":
        for name, parameter in theirs.named_parameters():
            module, _, attribute = name.rpartition(".")
            setattr(mine.get_submodule(module), attribute, parameter)
    elif how == "gdes":
        for name in TABLES:
            setattr(theirs, name, DeltaEmbedding(getattr(mine, name), getattr(theirs, name).weight))
    elif how != "none":
        raise ValueError(f"unknown sharing {how}")
    generator.generator_lm_head.weight = mine.word_embeddings.weight


@torch.no_grad()
def fold(discriminator: ElectraForPreTraining) -> None:
    """Replaces each :class:`DeltaEmbedding`, in place, by a plain one with the same values: a stock network again."""
    embeddings = discriminator.electra.embeddings
    for name in TABLES:
        table = getattr(embeddings, name)
        if isinstance(table, DeltaEmbedding):
            weight = table.base.weight + table.delta
            plain = nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=table.base.padding_idx)
            setattr(embeddings, name, plain)
