"""Which tokens of a text look replaced, and which may fill a [MASK]: a pair as any user of it would use it.

Stock ``transformers`` load the networks from an exported folder or a hub id. No training code takes part, so the answers also
show that an export works without it. The tokenizer is the library's too, unless it contradicts its own vocabulary
(``text/letters.py``).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from transformers import ElectraForMaskedLM, ElectraForPreTraining, PreTrainedTokenizerFast

from electra_accel.errors import UserError
from electra_accel.model.loading import load_network
from electra_accel.text.tokenizer import load_tokenizer, vocabulary_conflict
from electra_accel.text.unknown import SAMPLE, Unknown, cause_in, told
from electra_accel.text.writing import normalise

CONTINUES = "##"  # WordPiece's mark of a token that continues a word


@dataclass(frozen=True)
class Reading:
    """The answer to one text."""

    text: str
    tokens: list[str]  # as the discriminator read them, without [CLS] and [SEP]; at a [MASK] the generator's best
    probability: list[float]  # that each was replaced
    # Of each [MASK] in order: its place in tokens, and the generator's most probable tokens there with their probabilities.
    candidates: list[tuple[int, list[tuple[str, float]]]]
    pieces: int  # in which the text was read; more than one if it was too long

    def record(self) -> dict:
        """For JSON."""
        masks = [
            {"token": place, "candidates": [{"token": token, "probability": round(p, 6)} for token, p in best]}
            for place, best in self.candidates
        ]
        probability = [round(p, 6) for p in self.probability]
        more = {"probability": probability, "masks": masks, "pieces": self.pieces}
        return {"text": self.text, "tokens": self.tokens, **more}


class Detector:
    """A discriminator, and a generator for texts with [MASK], in fp32 on the CPU.

    Args:
        discriminator, generator: folder or hub id; the generator may be None, and is loaded at the first [MASK].
        max_length: tokens that are read at once, [CLS] and [SEP] included; None: the discriminator's positions.

    Attributes:
        notes: on the tokenizer, for a person.

    Raises:
        UserError: not there, not an ELECTRA, not what it is said to be, or without a usable tokenizer.
    """

    def __init__(self, discriminator: str, generator: str | None, max_length: int | None):
        self._source = generator
        self.discriminator = load_network("--discriminator", ElectraForPreTraining, discriminator)
        self.notes: list[str] = []
        self.tokenizer = _tokenizer("discriminator", discriminator, self.notes.append)
        self._seen = Unknown(0, 0)
        self._texts: list[str] = []  # with unknown tokens in them, for the cause
        positions = self.discriminator.config.max_position_embeddings
        self.max_length = min(max_length or positions, positions)

    @cached_property
    def generator(self) -> ElectraForMaskedLM:
        if self._source is None:
            raise UserError("a text has a [MASK], which needs a generator: name one with --generator")
        network = load_network("--generator", ElectraForMaskedLM, self._source)
        conflict = vocabulary_conflict(self.tokenizer, _tokenizer("generator", self._source, lambda line: None))
        if conflict:
            number, ours, theirs = conflict
            where = f"id {number} is {theirs!r} there and {ours!r} here; name the generator that was trained with it"
            raise UserError(f"--generator: {self._source} has another vocabulary than the discriminator: {where}")
        return network

    @torch.inference_mode()
    def read(self, text: str, top_k: int) -> Reading | None:
        """Ask about one text, with ``top_k`` candidates at each [MASK]; if it is longer than ``max_length``, piece by piece.

        None where there is nothing to read: blanks, control characters, characters without width. UserError where there is a
        [MASK] and no generator, or a network answers with NaN.
        """
        ids = self.tokenizer(normalise(text), add_special_tokens=False)["input_ids"]
        if not ids:
            return None
        unknown = ids.count(self.tokenizer.unk_token_id)
        self._seen = Unknown(self._seen.unknown + unknown, self._seen.tokens + len(ids))
        if unknown and sum(map(len, self._texts)) < SAMPLE:
            self._texts.append(text[:SAMPLE])
        tokens, probability, candidates, pieces = [], [], [], 0
        for piece in self._pieces(ids):
            read = torch.tensor([[self.tokenizer.cls_token_id, *piece, self.tokenizer.sep_token_id]])
            masks = (read[0] == self.tokenizer.mask_token_id).nonzero().flatten()
            if len(masks):
                shares = _numbers("generator", self._source, self.generator(read).logits[0, masks].softmax(-1))
                best = shares.topk(min(top_k, len(self.tokenizer)))
                read[0, masks] = best.indices[:, 0]
                for place, numbers, shares in zip(masks.tolist(), best.indices.tolist(), best.values.tolist()):
                    words = self.tokenizer.convert_ids_to_tokens(numbers)
                    candidates.append((len(tokens) + place - 1, list(zip(words, shares))))  # - 1: [CLS]
            tokens += self.tokenizer.convert_ids_to_tokens(read[0, 1:-1].tolist())
            found = self.discriminator(read).logits[0, 1:-1].sigmoid()
            probability += _numbers("discriminator", self.discriminator.name_or_path, found).tolist()
            pieces += 1
        return Reading(text, tokens, probability, candidates, pieces)

    def told(self) -> list[str]:
        """Lines on the unknown tokens of all texts so far."""
        cause = cause_in(self._texts, self.tokenizer) if self._seen.is_high else ""
        return told({"the text": self._seen._replace(cause=cause)})

    def _pieces(self, ids: list[int]) -> Iterator[list[int]]:
        """At most ``max_length`` - 2 tokens each; cut before a word where one begins in the second half of a piece."""
        most, start = self.max_length - 2, 0
        words = [not token.startswith(CONTINUES) for token in self.tokenizer.convert_ids_to_tokens(ids)]
        while len(ids) - start > most:
            near = range(start + most, start + most // 2, -1)
            end = next((place for place in near if words[place]), start + most)
            yield ids[start:end]
            start = end
        yield ids[start:]


def _numbers(role: str, source: str, probabilities: torch.Tensor) -> torch.Tensor:
    """``probabilities``; UserError if one is NaN, which very large finite weights can cause too."""
    if probabilities.isnan().any():
        raise UserError(f"--{role}: {source} answers with NaN: its weights are damaged; take others")
    return probabilities


def _tokenizer(role: str, source: str, log: Callable[[str], None]) -> PreTrainedTokenizerFast:
    try:
        return load_tokenizer(source, log=log)
    except UserError as error:
        raise UserError(f"--{role}: {str(error).replace('option tokenizer.path', f'option --{role}')}") from None
