"""Embedding sharing between generator and discriminator.

ELECTRA ties the word, position and token-type tables of the two networks and the LayerNorm behind them (Clark et al.,
ICLR 2020, section 3.2, and the released code): the generator's task moves every row of the vocabulary, the
discriminator's only those that it reads. The LM head reuses the word table.
"""

from torch import nn
from transformers import ElectraForMaskedLM, ElectraForPreTraining


def tie_embeddings(generator: ElectraForMaskedLM, discriminator: ElectraForPreTraining) -> None:
    """Makes the discriminator's embedding parameters the generator's too, and the word table the LM head's weight.

    The values are the discriminator's. The same ``Parameter`` object then stands in several modules, which is what
    optimizers, DDP, ZeRO and ``save_pretrained`` recognise. The shapes must agree (``pair.check_pair``).
    """
    for name, parameter in discriminator.electra.embeddings.named_parameters():
        module, _, attribute = name.rpartition(".")
        setattr(generator.electra.embeddings.get_submodule(module), attribute, parameter)
    generator.generator_lm_head.weight = discriminator.electra.embeddings.word_embeddings.weight


def assert_tied(generator: ElectraForMaskedLM, discriminator: ElectraForPreTraining) -> None:
    """Raises RuntimeError, naming what came apart, unless everything is shared as :func:`tie_embeddings` left it."""
    mine = dict(generator.electra.embeddings.named_parameters())
    mine["generator_lm_head.weight"] = generator.generator_lm_head.weight
    theirs: dict[str, nn.Parameter] = dict(discriminator.electra.embeddings.named_parameters())
    theirs["generator_lm_head.weight"] = theirs["word_embeddings.weight"]
    apart = [name for name in mine if mine[name] is not theirs[name]]
    if apart:
        raise RuntimeError("generator and discriminator no longer share " + ", ".join(apart))
