"""Masked language modelling (Devlin et al., BERT, NAACL 2019, section 3.1) over packed bins: the baseline, and the warm start
of a generator. The same batches, attention and LM head as in ``rtd.py``, without a discriminator."""

import torch
from torch import nn
from transformers import ElectraForMaskedLM

from electra_accel.batch import RTDBatch
from electra_accel.model import metrics
from electra_accel.model.rtd import RTDOutput, encoder_inputs, predict_slots, prepare_network, read_generator


class MaskedLanguageModeling(nn.Module):
    """One network, encoder and LM head, in the place of ``ReplacedTokenDetection``: what is said there holds here."""

    _no_split_modules = ["ElectraLayer"]

    def __init__(self, network: ElectraForMaskedLM, *, gradient_checkpointing=False, attention_boundaries=True):
        super().__init__()
        self.network, self.config, self.attention_boundaries = network, network.config, attention_boundaries
        prepare_network(network, gradient_checkpointing)

    def forward(self, batch: RTDBatch, replacements: torch.Tensor | None = None) -> RTDOutput:
        """Loss and counters of one micro-batch, as sums; tokens are sampled for people to see only.

        Args:
            replacements: int64 [R, S]; shown in place of the samples. Nothing else depends on them.
        """
        weight = self.network.generator_predictions.dense.weight
        inputs = encoder_inputs(batch, weight, self.attention_boundaries or not self.training)
        slot_loss, log_probs = predict_slots(self.network, batch, inputs)
        slots = read_generator(log_probs, batch.slot_uniform, temperature=1.0)
        counters = metrics.count_generator(batch, slots, slot_loss.detach())
        sampled = slots.sampled if replacements is None else replacements
        zero = slot_loss.new_zeros(())
        return RTDOutput(slot_loss.sum(), zero, counters, sampled, slots.argmax, None, zero, None)
