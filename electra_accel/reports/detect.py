"""Which tokens of a text look replaced, which should stand there, and which may fill a [MASK]: networks as any user of them
would use them.

Stock ``transformers`` load the networks from an exported folder or a hub id. No training code takes part, so the answers also
show that an export works without it. The tokenizer is the library's too, unless it contradicts its own vocabulary
(``text/letters.py``).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from transformers import ElectraForMaskedLM, ElectraForPreTraining, PreTrainedModel, PreTrainedTokenizerFast

from electra_accel.errors import UserError
from electra_accel.model.corrective import require_same_encoder
from electra_accel.model.loading import load_network
from electra_accel.text.tokenizer import load_tokenizer, vocabulary_conflict
from electra_accel.text.unknown import SAMPLE, Unknown, cause_in, told
from electra_accel.text.writing import normalise

CONTINUES = "##"  # WordPiece's mark of a token that continues a word
CORRECTIONS = 3  # of a token called replaced
Candidates = list[tuple[str, float]]  # tokens with their probabilities, the most probable one first


@dataclass(frozen=True)
class Reading:
    """The answer to one text."""

    text: str
    tokens: list[str]  # as the discriminator read them, without [CLS] and [SEP]; at a [MASK] the generator's best
    probability: list[float]  # that each was replaced
    # Of each [MASK] in order: its place in tokens, and the generator's most probable tokens there with their probabilities.
    candidates: list[tuple[int, Candidates]]
    pieces: int  # in which the text was read; more than one if it was too long
    # Of each token called replaced in order: its place in tokens, and what should stand there; None: no corrector was asked.
    corrections: list[tuple[int, Candidates]] | None = None

    def record(self) -> dict:
        """For JSON."""
        more = {
            "probability": [round(p, 6) for p in self.probability],
            "masks": _candidates_record(self.candidates),
            "pieces": self.pieces,
        }
        if self.corrections is not None:
            more["corrections"] = _candidates_record(self.corrections)
        return {"text": self.text, "tokens": self.tokens, **more}


def _candidates_record(found: list[tuple[int, Candidates]]) -> list[dict]:
    return [
        {"token": place, "candidates": [{"token": token, "probability": round(p, 6)} for token, p in best]}
        for place, best in found
    ]


class Detector:
    """A discriminator, a generator for texts with [MASK], and a corrector for what is called replaced, in fp32 on the CPU.

    Args:
        discriminator, generator: folder or hub id; the generator may be None, and is loaded at the first [MASK].
        corrector: the same; None: nothing is corrected.
        max_length: tokens that are read at once, [CLS] and [SEP] included; None: the discriminator's positions.
        asked: whether a person named the corrector; one that was only found there is left out where it cannot be used.

    Attributes:
        corrector: its network, or None.
        notes: on the tokenizer and on a corrector that was left out, for a person.

    Raises:
        UserError: not there, not an ELECTRA, not what it is said to be, or without a usable tokenizer; a corrector with another
            vocabulary or another encoder than the discriminator.
    """

    def __init__(
        self,
        discriminator: str,
        generator: str | None,
        corrector: str | None = None,
        max_length: int | None = None,
        *,
        asked: bool = True,
    ):
        self._source = generator
        self.discriminator = load_network("--discriminator", ElectraForPreTraining, discriminator)
        self.notes: list[str] = []
        self.tokenizer = _tokenizer("discriminator", discriminator, self.notes.append)
        self._seen = Unknown(0, 0)
        self._texts: list[str] = []  # with unknown tokens in them, for the cause
        positions = self.discriminator.config.max_position_embeddings
        self.max_length = min(max_length or positions, positions)
        self.corrector: ElectraForMaskedLM | None = None
        if corrector:
            try:
                network = self._language_model("corrector", corrector)
                require_same_encoder(network, self.discriminator, f"--corrector: {corrector}")
                self.corrector = network
            except UserError as error:
                if asked:
                    raise
                self.notes.append(f"nothing is corrected: {error}")

    @cached_property
    def generator(self) -> ElectraForMaskedLM:
        if self._source is None:
            raise UserError("a text has a [MASK], which needs a generator: name one with --generator")
        return self._language_model("generator", self._source)

    def _language_model(self, role: str, source: str) -> ElectraForMaskedLM:
        """One that reads the discriminator's tokens; UserError where it does not."""
        network = load_network(f"--{role}", ElectraForMaskedLM, source)
        if conflict := vocabulary_conflict(self.tokenizer, _tokenizer(role, source, lambda line: None)):
            number, ours, theirs = conflict
            where = f"id {number} is {theirs!r} there and {ours!r} here; name the {role} that was trained with it"
            raise UserError(f"--{role}: {source} has another vocabulary than the discriminator: {where}")
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
        corrections = [] if self.corrector else None
        for piece in self._pieces(ids):
            before = len(tokens) - 1  # - 1: [CLS]
            read = torch.tensor([[self.tokenizer.cls_token_id, *piece, self.tokenizer.sep_token_id]])
            masks = (read[0] == self.tokenizer.mask_token_id).nonzero().flatten()
            if len(masks):
                best, found = self._best("generator", self.generator(read).logits[0, masks], top_k)
                read[0, masks] = best
                candidates += zip((masks + before).tolist(), found)
            tokens += self.tokenizer.convert_ids_to_tokens(read[0, 1:-1].tolist())
            replaced = self.discriminator(read).logits[0].sigmoid()
            probability += _numbers("discriminator", self.discriminator, replaced[1:-1]).tolist()
            called = (replaced[1:-1] > 0.5).nonzero().flatten() + 1
            if self.corrector and len(called):
                _, found = self._best("corrector", self.corrector(read).logits[0, called], CORRECTIONS)
                corrections += zip((called + before).tolist(), found)
            pieces += 1
        return Reading(text, tokens, probability, candidates, pieces, corrections)

    def _best(self, role: str, logits: torch.Tensor, most: int) -> tuple[torch.Tensor, list[Candidates]]:
        """Of logits [n, vocabulary] of a language model the best token, int64 [n], and at most ``most`` candidates each."""
        shares = _numbers(role, getattr(self, role), logits.softmax(-1))
        best = shares.topk(min(most, len(self.tokenizer)))
        words = map(self.tokenizer.convert_ids_to_tokens, best.indices.tolist())
        return best.indices[:, 0], [list(zip(*each)) for each in zip(words, best.values.tolist())]

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


def _numbers(role: str, network: PreTrainedModel, probabilities: torch.Tensor) -> torch.Tensor:
    """``probabilities``; UserError if one is NaN, which very large finite weights can cause too."""
    if probabilities.isnan().any():
        raise UserError(f"--{role}: {network.name_or_path} answers with NaN: its weights are damaged; take others")
    return probabilities


def _tokenizer(role: str, source: str, log: Callable[[str], None]) -> PreTrainedTokenizerFast:
    try:
        return load_tokenizer(source, log=log)
    except UserError as error:
        raise UserError(f"--{role}: {str(error).replace('option tokenizer.path', f'option --{role}')}") from None
