"""RTDBatch: the contract between data and model. All shapes are static for a run (invariant 5)."""

from dataclasses import dataclass, fields, replace

import torch


@dataclass
class RTDBatch:
    """R packed bins (rows) of T token slots, with S selected-position slots and at most G examples (segments) each.

    Everything random about a batch was decided when it was collated; the model is a pure function of it (dropout aside).
    "Real" tokens are those of examples, [CLS] and [SEP] included; what follows the last example of a row is padding.

    Token fields are int64 [R, T], slots [R, S].
    """

    input_ids: torch.Tensor  # the original tokens; padding holds the tokenizer's pad id
    corrupted_ids: (
        torch.Tensor
    )  # what the generator reads: [MASK] or a random token at selected positions that are corrupted
    position_ids: torch.Tensor  # 0, 1, 2, … within each example, 0 on padding
    token_type_ids: torch.Tensor  # 0 or 1, as the tokenizer gave them (single texts: 0)
    segment_ids: torch.Tensor  # 1 … G: which example of the row a token belongs to, in order; 0 on padding
    slot_positions: torch.Tensor  # int64, column of each selected position, ascending; 0 where unused, which none has
    slot_used: torch.Tensor  # bool
    slot_uniform: torch.Tensor  # float64 in [0, 1), the number that picks the replacement; 0 where unused
    examples: torch.Tensor  # int64 [R, G], number of the example in the store, -1 where there is none; for people alone

    def to(self, device: torch.device) -> "RTDBatch":
        """A copy on ``device``; asynchronous from pinned memory."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "RTDBatch":
        """A copy in pinned memory; torch's DataLoader calls this by name."""
        return self._map(lambda tensor: tensor.pin_memory())

    def tensors(self) -> list[torch.Tensor]:
        """In the order in which ``RTDBatch`` takes them."""
        return [getattr(self, field.name) for field in fields(self)]

    def _map(self, function) -> "RTDBatch":
        return replace(self, **{field.name: function(getattr(self, field.name)) for field in fields(self)})

    @property
    def real(self) -> torch.Tensor:
        """bool [R, T]: True at real tokens."""
        return self.segment_ids > 0

    @property
    def inner(self) -> torch.Tensor:
        """bool [R, T]: real tokens except the first and the last of each example, [CLS] and [SEP]."""
        following = torch.nn.functional.pad(self.segment_ids[:, 1:], (0, 1))
        return self.real & (self.position_ids > 0) & (self.segment_ids == following)

    @property
    def slot_labels(self) -> torch.Tensor:
        """int64 [R, S]: the original token at each slot's position."""
        return self.input_ids.gather(1, self.slot_positions)

    def counts(self) -> torch.Tensor:
        """float64 [2] on the batch's device: selected positions and real tokens, the two denominators of the loss."""
        return torch.stack([self.slot_used.sum(), self.real.sum()]).to(torch.float64)
