"""Sample reconstructions: what the generator was shown, what it filled in, and what the discriminator made of it.

Signs, readable without colour, after the token they speak of:

    [tok]=   generator's sample, equal to the original (restored)
    [tok]+   generator's sample, replaced, and the discriminator said so
    [tok]-   generator's sample, replaced, and the discriminator missed it
    (tok)…   the same at a selected position that was left unmasked in the generator's input
    tok!     an original token that the discriminator took for a replacement (false alarm)

In the generator's input, round brackets hold what it read there, and ``(tok)~`` is a random token in place of the original.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from electra_accel.batch import RTDBatch

LEGEND = (
    "[tok] sampled, (tok) sampled though not masked, (tok)~ random token in the input;  "
    "= restored  + replaced, caught  - replaced, missed  ! false alarm"
)


@dataclass(frozen=True)
class Reconstruction:
    """One example as lists over its tokens, [CLS] and [SEP] left out.

    ``shown`` is what the generator read, ``masked`` says where that is [MASK], ``generated`` is what the discriminator read,
    ``probability`` the discriminator's probability that the token was replaced.
    """

    original: list[str]
    shown: list[str]
    generated: list[str]
    selected: list[bool]
    masked: list[bool]
    probability: list[float]

    def sign(self, i: int) -> str:
        """Verdict on token ``i``: "=", "+", "-", "!" or "" (see the module's docstring)."""
        called = self.probability[i] > 0.5
        if self.generated[i] != self.original[i]:
            return "+" if called else "-"
        if called:
            return "!"
        return "=" if self.selected[i] else ""

    def original_text(self) -> str:
        return join_pieces(self.original)

    def input_text(self) -> str:
        """The sentence as the generator read it: [MASK]; (tok) selected but not masked; (tok)~ a random token instead."""
        texts = []
        for i, token in enumerate(self.shown):
            if self.masked[i]:
                token = _wrap(self.original[i], "[MASK]")
            elif self.selected[i]:
                token = _wrap(token, f"({_text(token)})" + "~" * (token != self.original[i]))
            texts.append(token)
        return join_pieces(texts)

    def output_text(self) -> str:
        """The sentence as the discriminator read it, each sampled token in brackets, with the verdict's sign."""
        shown = []
        for i, token in enumerate(self.generated):
            text = _text(token)
            if self.selected[i]:
                text = f"[{text}]" if self.masked[i] else f"({text})"
            shown.append(_wrap(token, text + self.sign(i)))
        return join_pieces(shown)

    def record(self, step: int, epoch: float) -> dict:
        """For samples.jsonl: texts and everything they were made of."""
        return {
            "step": step,
            "epoch": round(epoch, 4),
            "original": self.original_text(),
            "input": self.input_text(),
            "output": self.output_text(),
            "tokens": self.original,
            "shown": self.shown,
            "generated": self.generated,
            "selected": [i for i, selected in enumerate(self.selected) if selected],
            "masked": [i for i, masked in enumerate(self.masked) if masked],
            "probability": [round(p, 4) for p in self.probability],
        }


def reconstruct(
    batch: RTDBatch,
    sampled: torch.Tensor,
    discriminator_logits: torch.Tensor,
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
) -> list[Reconstruction]:
    """The first ``limit`` examples of a batch (all tensors on any device; copied to the CPU here, outside micro-steps).

    Args:
        sampled: int64 [R, S], the token put at each slot.
        discriminator_logits: [R, T].
    """
    batch = batch.to(torch.device("cpu"))
    sampled, probability = sampled.cpu(), discriminator_logits.float().sigmoid().cpu()
    results: list[Reconstruction] = []
    for row in range(batch.input_ids.shape[0]):
        used = batch.slot_used[row]
        positions = batch.slot_positions[row][used]
        read = batch.input_ids[row].clone()
        read[positions] = sampled[row][used]
        selected = torch.zeros_like(read, dtype=torch.bool)
        selected[positions] = True
        masked = selected & (batch.corrupted_ids[row] == tokenizer.mask_token_id)
        for segment in range(1, int(batch.segment_ids[row].max()) + 1):
            if len(results) == limit:
                return results
            columns = torch.nonzero(batch.segment_ids[row] == segment).flatten()[1:-1]  # without [CLS] and [SEP]
            results.append(
                Reconstruction(
                    original=tokenizer.convert_ids_to_tokens(batch.input_ids[row][columns].tolist()),
                    shown=tokenizer.convert_ids_to_tokens(batch.corrupted_ids[row][columns].tolist()),
                    generated=tokenizer.convert_ids_to_tokens(read[columns].tolist()),
                    selected=selected[columns].tolist(),
                    masked=masked[columns].tolist(),
                    probability=probability[row][columns].tolist(),
                )
            )
    return results


def join_pieces(tokens: list[str]) -> str:
    """WordPiece tokens as running text: a piece that continues a word (``##``) follows without a space.

    Written out instead of using the tokenizer's decoder, which would move brackets and signs.
    """
    text = "".join(token[2:] if token.startswith("##") and len(token) > 2 else " " + token for token in tokens)
    return text.strip()


def _text(token: str) -> str:
    return token[2:] if token.startswith("##") and len(token) > 2 else token


def _wrap(token: str, text: str) -> str:
    """``text`` in the place of ``token``: it keeps the mark of a piece that continues a word."""
    return "##" + text if token.startswith("##") and len(token) > 2 else text
