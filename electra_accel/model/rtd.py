"""Replaced token detection (Clark et al., ELECTRA, ICLR 2020, section 2) over packed bins."""

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from transformers import ElectraForMaskedLM, ElectraForPreTraining, PreTrainedModel

from electra_accel.batch import RTDBatch
from electra_accel.model import metrics
from electra_accel.model.attention import PACKED, compute_dtype, pack
from electra_accel.model.corrective import CorrectiveHead

_GROUP = 128  # tokens per group of the two-level inverse CDF


class RTDOutput(NamedTuple):
    """Of one micro-batch. Only the loss sums carry gradients."""

    generator_loss_sum: torch.Tensor  # 0-d fp32 (fp64 for fp64 weights); cross entropy in nats, summed over used slots
    discriminator_loss_sum: torch.Tensor  # likewise; binary cross entropy, summed over real tokens
    counters: torch.Tensor  # float64 vector, see ``metrics.count``
    sampled: torch.Tensor  # int64 [R, S]; what the discriminator read at the slots (meaningless in unused ones)
    generator_argmax: torch.Tensor  # int64 [R, S]; the generator's most probable token
    # [R, T]; positive: called replaced. None where there is no discriminator (``mlm.py``); its loss sum is then a constant 0.
    discriminator_logits: torch.Tensor | None
    # Of the corrective head (``corrective.py``): cross entropy like the generator's, and int64 [R, S], its most probable token.
    # Without it a constant 0 and None.
    corrective_loss_sum: torch.Tensor
    corrected: torch.Tensor | None


class ReplacedTokenDetection(nn.Module):
    """Generator and discriminator as one module: one engine, one optimizer, tied weights in one place (invariant 7).

    With dropout 0 (or in eval mode) the forward pass is a pure function of weights and batch. It never waits for the device
    and all shapes are static.

    Args:
        generator, discriminator: with shared embeddings (``sharing.share``); both are switched to attention over packed bins.
        temperature: of the distribution that replacements are drawn from.
        gradient_checkpointing: recompute each layer in the backward pass instead of keeping its activations.
        attention_boundaries: see :func:`encoder_inputs`; in eval mode they always hold.
        corrective: whether the discriminator also learns to name the original tokens; the attribute ``corrector`` is its head
            for that, else None.
        seed: of the fresh weights of that head.
    """

    _no_split_modules = ["ElectraLayer"]  # for FSDP: each is a unit; the (shared) embeddings stay in the root unit

    def __init__(
        self,
        generator: ElectraForMaskedLM,
        discriminator: ElectraForPreTraining,
        *,
        temperature: float = 1.0,
        gradient_checkpointing: bool = False,
        attention_boundaries: bool = True,
        corrective: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.corrector = CorrectiveHead(discriminator, seed) if corrective else None
        self.temperature, self.attention_boundaries = temperature, attention_boundaries
        self.config = discriminator.config  # DeepSpeed sizes its buckets by config.hidden_size
        for network in (generator, discriminator):
            prepare_network(network, gradient_checkpointing)

    def forward(self, batch: RTDBatch, replacements: torch.Tensor | None = None) -> RTDOutput:
        """Losses and counters of one micro-batch, as sums: dividing by the counts of the global step is the loop's part.

        Args:
            replacements: int64 [R, S]; read by the discriminator in place of fresh samples (the fixed held-out corruption).
        """
        weight = self.discriminator.discriminator_predictions.dense.weight
        inputs = encoder_inputs(batch, weight, self.attention_boundaries or not self.training)
        slot_loss, log_probs = predict_slots(self.generator, batch, inputs)
        slots = read_generator(log_probs, batch.slot_uniform, self.temperature)
        if replacements is not None:
            slots = slots._replace(sampled=replacements)
        # Unused slots all point at column 0: writing the token that is there anyway keeps the result independent of order.
        written = torch.where(batch.slot_used, slots.sampled, batch.slot_labels)
        discriminator_ids = batch.input_ids.scatter(1, batch.slot_positions, written)
        replaced = discriminator_ids != batch.input_ids

        hidden = self.discriminator.electra(discriminator_ids, **inputs).last_hidden_state
        logits = at_least_fp32(self.discriminator.discriminator_predictions(hidden))  # [R, T]
        token_loss = F.binary_cross_entropy_with_logits(logits, replaced.to(logits.dtype), reduction="none")
        token_loss = token_loss * batch.real
        corrective_loss, corrected, corrections = token_loss.new_zeros(()), None, None
        if self.corrector is not None:
            corrective_loss, corrected = correct_slots(self.corrector, batch, hidden)
            corrections = metrics.Corrections(corrective_loss.detach(), corrected)
        logits = logits.detach()
        losses = slot_loss.detach(), token_loss.detach()
        counters = metrics.count(batch, slots, *losses, logits, replaced, corrections)
        sums = slot_loss.sum(), token_loss.sum(), corrective_loss.sum()
        return RTDOutput(*sums[:2], counters, slots.sampled, slots.argmax, logits, sums[2], corrected)


def prepare_network(network: PreTrainedModel, gradient_checkpointing: bool) -> None:
    """Switches a network to attention over packed bins and, if asked, to recomputing each layer in the backward pass."""
    network.set_attn_implementation(PACKED)
    if gradient_checkpointing:
        network.activation_checkpointing_enable({"use_reentrant": False})


def encoder_inputs(batch: RTDBatch, weight: torch.Tensor, attention_boundaries: bool) -> dict[str, Any]:
    """What every encoder gets beside token ids.

    Args:
        weight: one of the model's, for the dtype of its products.
        attention_boundaries: no token sees another example of its row. Without them it sees them all, though not padding,
            as in packing that marks no boundaries; positions restart with every example all the same.
    """
    segment_ids = batch.segment_ids if attention_boundaries else batch.segment_ids.clamp(max=1)
    packing = pack(segment_ids, segments=batch.examples.shape[1], dtype=compute_dtype(weight))
    return dict(position_ids=batch.position_ids, token_type_ids=batch.token_type_ids, packing=packing)


def predict_slots(
    network: ElectraForMaskedLM, batch: RTDBatch, inputs: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masked language modelling with the LM head at the slots only.

    Args:
        inputs: of :func:`encoder_inputs`.

    Returns: those of :func:`cross_entropy`.
    """
    hidden = network.electra(batch.corrupted_ids, **inputs).last_hidden_state
    slot_logits = network.generator_lm_head(network.generator_predictions(at_slots(hidden, batch)))
    return cross_entropy(slot_logits, batch)


def correct_slots(head: CorrectiveHead, batch: RTDBatch, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The original tokens, named at the slots only by what the discriminator has read.

    Args:
        hidden: [R, T, hidden size]; the last hidden states of the discriminator.

    Returns:
        Cross entropy in nats [R, S], 0 at unused slots, fp32 or fp64; the most probable token, int64 [R, S].
    """
    loss, log_probs = cross_entropy(head(at_slots(hidden, batch)), batch)
    return loss, log_probs.detach().argmax(-1)


def cross_entropy(slot_logits: torch.Tensor, batch: RTDBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the original tokens, from logits [R, S, vocabulary].

    Of all this the backward pass keeps the log-probabilities alone. ``F.cross_entropy`` keeps and computes the same.

    Returns:
        Cross entropy in nats [R, S], 0 at unused slots; log-probabilities [R, S, vocabulary]. Both fp32 or fp64.
    """
    log_probs = F.log_softmax(at_least_fp32(slot_logits), dim=-1)
    return -log_probs.gather(2, batch.slot_labels[:, :, None]).squeeze(2) * batch.slot_used, log_probs


def at_slots(hidden: torch.Tensor, batch: RTDBatch) -> torch.Tensor:
    """Of [R, T, hidden size] what stands at the slots, [R, S, hidden size]."""
    return hidden.gather(1, batch.slot_positions[:, :, None].expand(-1, -1, hidden.shape[-1]))


def at_least_fp32(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision to fp32; fp32 and fp64 as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@torch.no_grad()
def read_generator(log_probs: torch.Tensor, uniform: torch.Tensor, temperature: float) -> metrics.SlotFigures:
    """Sample, most probable token and entropy at every slot.

    Works through the slots in chunks, so that at most one chunk of probabilities exists beside ``log_probs``: as many as
    fit into a cache on a CPU (where fresh memory costs more than arithmetic), 256 MiB of them on a GPU (few, large kernels).

    Args:
        log_probs: fp32 or fp64 [R, S, vocabulary]; the generator's distribution at temperature 1.
        uniform: float64 [R, S] in [0, 1).
        temperature: of the sampled distribution.
    """
    rows, slots, vocab_size = log_probs.shape
    chunk = max(1, (2**18 if log_probs.device.type == "cpu" else 2**26) // vocab_size)
    parts = []
    with torch.autocast(log_probs.device.type, enabled=False):
        pieces = log_probs.detach().flatten(0, 1).split(chunk), uniform.flatten().split(chunk)
        for piece, numbers in zip(*pieces, strict=True):
            probs = piece.exp()
            weights = probs if temperature == 1 else torch.softmax(piece / temperature, dim=-1)
            parts.append((sample(weights, numbers), piece.argmax(-1), -(probs * piece).sum(-1)))
    return metrics.SlotFigures(*(torch.cat(part).view(rows, slots) for part in zip(*parts, strict=True)))


def sample(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Draws token i with probability weights[i] / sum, by inverse CDF: the first i whose cumulative sum is over uniform * sum.

    The cumulative sum is taken in fp64 in two levels (over groups of 128 tokens, then within the group that was hit), which
    gives the same token as one sum over the vocabulary while touching the weights once. Each level is a product with a
    triangular matrix: ``torch.cumsum`` has no deterministic form on CUDA that is both old enough and lean on memory.

    Args:
        weights: fp32 or fp64 [n, vocabulary], not negative; need not sum to 1.
        uniform: float64 [n] in [0, 1).

    Returns:
        int64 [n].
    """
    vocab_size = weights.shape[1]
    groups = F.pad(weights, (0, -vocab_size % _GROUP)).unflatten(1, (-1, _GROUP))  # [n, groups, 128]
    group_cdf = _cumulate(groups.sum(-1, dtype=torch.float64))
    target = uniform[:, None] * group_cdf[:, -1:]
    # A target within rounding of the end of the sum could point past it: the clamps.
    group = (group_cdf <= target).sum(1, keepdim=True).clamp(max=groups.shape[1] - 1)
    before = F.pad(group_cdf, (1, 0)).gather(1, group)
    inside = groups.gather(1, group[:, :, None].expand(-1, -1, _GROUP)).squeeze(1).to(torch.float64)
    token = (before + _cumulate(inside) <= target).sum(1, keepdim=True).clamp(max=_GROUP - 1)
    return (group * _GROUP + token).squeeze(1).clamp(max=vocab_size - 1)


def _cumulate(x: torch.Tensor) -> torch.Tensor:
    """Cumulative sum along the last axis of [n, m]."""
    return x @ torch.ones(x.shape[1], x.shape[1], dtype=x.dtype, device=x.device).triu()
