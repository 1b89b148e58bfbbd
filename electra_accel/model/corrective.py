"""Corrective language modelling (Meng et al., COCO-LM, NeurIPS 2021, section 3.1): the discriminator also names the original
token at every selected position, from the sentence that it reads, in which there are replacements and no [MASK]."""

import copy

import torch
from torch import nn
from torch.nn import functional as F
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining
from transformers.models.electra.modeling_electra import ElectraGeneratorPredictions

from electra_accel.errors import UserError
from electra_accel.model.pair import initialise
from electra_accel.model.sharing import DeltaEmbedding


class CorrectiveHead(nn.Module):
    """An LM head for the discriminator's encoder: what ``ElectraForMaskedLM`` of the same configuration has on top.

    ``transform`` (dense, GELU, LayerNorm) and the bias of ``lm_head`` are its own; the weight of ``lm_head`` is the
    discriminator's word table.

    Args:
        discriminator: with shared embeddings (``sharing.share``).
        seed: of the fresh weights, see ``pair.initialise``.
    """

    def __init__(self, discriminator: ElectraForPreTraining, seed: int):
        super().__init__()
        self.config: ElectraConfig = discriminator.config
        self.transform = ElectraGeneratorPredictions(self.config)
        table = discriminator.electra.embeddings.word_embeddings
        if isinstance(table, DeltaEmbedding):
            self.lm_head = DeltaProjection(table)
        else:
            self.lm_head = nn.Linear(self.config.embedding_size, self.config.vocab_size)
            self.lm_head.weight = table.weight
        own = {"lm_head.bias", *(f"transform.{name}" for name, _ in self.transform.named_parameters())}
        initialise(self, "corrector", seed, only=own)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [..., vocabulary] of hidden states [..., hidden size]."""
        return self.lm_head(self.transform(hidden))

    @torch.no_grad()
    def load(self, network: ElectraForMaskedLM) -> None:
        """Take over the weights that are the head's own from what :func:`stock_network` gave."""
        self.transform.load_state_dict(network.generator_predictions.state_dict())
        self.lm_head.bias.copy_(network.generator_lm_head.bias)


class DeltaProjection(nn.Module):
    """The product with the table that a :class:`DeltaEmbedding` stands for, and a bias: no gradient flows to its base.

    The sum of base and delta is made anew each time. It is small beside the logits, and one product with it costs half of two.
    Both are parameters of this module, too: ZeRO-3 gathers what a module has itself while it is called.
    """

    def __init__(self, table: DeltaEmbedding):
        super().__init__()
        self.base, self.delta = table.base.weight, table.delta
        self.bias = nn.Parameter(self.delta.new_zeros(len(self.delta)))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.linear(hidden, self.base.detach() + self.delta, self.bias)


def require_same_encoder(network: ElectraForMaskedLM, discriminator: ElectraForPreTraining, source: str) -> None:
    """UserError, beginning with ``source``, unless a network is what :func:`stock_network` gave for this discriminator."""
    mine, theirs = network.electra.state_dict(), discriminator.electra.state_dict()
    if mine.keys() != theirs.keys() or not all(torch.equal(mine[name], theirs[name]) for name in mine):
        raise UserError(
            f"{source} has another encoder than the discriminator {discriminator.name_or_path}; name the corrector that was "
            "exported with it"
        )


def stock_network(head: CorrectiveHead, discriminator: ElectraForPreTraining) -> ElectraForMaskedLM:
    """The head on its encoder as stock transformers has it; both networks' parameters are used, not copied.

    Args:
        discriminator: of the head, with plain tables (``sharing.fold``); its word table is the weight of the LM head.
    """
    with torch.device("meta"):  # every parameter is replaced
        network = ElectraForMaskedLM(copy.deepcopy(discriminator.config))
    network.electra, network.generator_predictions = discriminator.electra, head.transform
    network.generator_lm_head.weight = discriminator.electra.embeddings.word_embeddings.weight
    network.generator_lm_head.bias = head.lm_head.bias
    return network
