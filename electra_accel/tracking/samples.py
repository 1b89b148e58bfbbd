"""Sample reconstructions: what the generator was shown, what it filled in, and what the discriminator made of it.

Signs, readable without colour, after the token they speak of:

    [tok]=   generator's sample, equal to the original (restored)
    [tok]+   generator's sample, replaced, and the discriminator said so
    [tok]-   generator's sample, replaced, and the discriminator missed it
    (tok)…   the same at a selected position that was left unmasked in the generator's input
    tok!     an original token that the discriminator took for a replacement (false alarm)

In the generator's input, round brackets hold what it read there, and ``(tok)~`` is a random token in place of the original.
With a corrective head ``[tok]`` in the corrected sentence is what the discriminator would put there, ``[tok]=`` the original.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedTokenizerBase

from electra_accel.batch import RTDBatch
from electra_accel.model.rtd import RTDOutput
from electra_accel.terminal import Piece

LEGEND = (
    "[tok] sampled, (tok) sampled though not masked, (tok)~ random token in the input;  "
    "= restored  + replaced, caught  - replaced, missed  ! false alarm"
)
CORRECTED_LEGEND = ";  corrected: [tok] what the discriminator would put there, = the original"
SIGNS = {"restored": "=", "caught": "+", "missed": "-", "false alarm": "!"}


@dataclass(frozen=True)
class Reconstruction:
    """One example as lists over its tokens, [CLS] and [SEP] left out.

    ``shown`` is what the generator read, ``masked`` says where that is [MASK], ``generated`` is what the discriminator read,
    ``best`` is the generator's most probable token ("" where none was asked for), ``probability`` the discriminator's
    probability that the token was replaced (empty where there is no discriminator). ``example`` is its number in the held-out
    text, ``fixed`` says that it is one of those shown each time. ``corrected`` is what the discriminator would put there (""
    where it was not asked; empty without a corrective head).
    """

    original: list[str]
    shown: list[str]
    generated: list[str]
    best: list[str]
    selected: list[bool]
    masked: list[bool]
    probability: list[float]
    example: int = -1
    fixed: bool = True
    corrected: list[str] = field(default_factory=list)

    def verdict(self, i: int) -> str:
        """On token ``i``: a key of ``SIGNS``, or "" for an original token that was taken for one.

        Without a discriminator nothing is caught or missed.
        """
        if not self.probability:
            return "restored" if self.selected[i] and self.generated[i] == self.original[i] else ""
        called = self.probability[i] > 0.5
        if self.generated[i] != self.original[i]:
            return "caught" if called else "missed"
        if called:
            return "false alarm"
        return "restored" if self.selected[i] else ""

    def verdicts(self) -> str:
        """How often the discriminator was right and wrong; without one, the generator. With a corrective head also how many
        originals it named."""
        found = [self.verdict(i) for i in range(len(self.original))]
        if not self.probability:
            return f"{found.count('restored')} of {sum(self.selected)} restored"
        told = (
            f"{found.count('caught')} caught, {found.count('missed')} missed, {found.count('false alarm')} false alarms"
        )
        if self.corrected:
            named = sum(token == original for token, original in zip(self.corrected, self.original, strict=True))
            told += f", {named} of {sum(self.selected)} originals named"
        return told

    def original_pieces(self) -> list[Piece]:
        return [Piece(*_split(token)) for token in self.original]

    def input_pieces(self) -> list[Piece]:
        """The sentence as the generator read it: [MASK]; (tok) selected but not masked; (tok)~ a random token instead."""
        pieces = []
        for i, token in enumerate(self.shown):
            text, joined = _split(token)
            if self.masked[i]:
                pieces.append(Piece("[MASK]", _split(self.original[i])[1], "masked", best=self.best[i]))
            elif self.selected[i]:
                mark = "~" * (token != self.original[i])
                pieces.append(Piece(f"({text}){mark}", joined, best=self.best[i]))
            else:
                pieces.append(Piece(text, joined))
        return pieces

    def output_pieces(self) -> list[Piece]:
        """The sentence as the discriminator read it, each sampled token in brackets, with the verdict's sign."""
        pieces = []
        for i, token in enumerate(self.generated):
            (text, joined), verdict = _split(token), self.verdict(i)
            if self.selected[i]:
                text = f"[{text}]" if self.masked[i] else f"({text})"
            probability = self.probability[i] if self.probability else None
            correction = self.corrected[i] if self.corrected else ""
            pieces.append(Piece(text + SIGNS.get(verdict, ""), joined, verdict, probability, self.best[i], correction))
        return pieces

    def corrected_pieces(self) -> list[Piece]:
        """The sentence with what the discriminator would put at the selected places, in brackets, ``=`` where that is the
        original; empty without a corrective head."""
        pieces = []
        for token, original in zip(self.corrected, self.original):
            text, joined = _split(token or original)
            verdict = "restored" if token == original else ""
            pieces.append(Piece(f"[{text}]{SIGNS.get(verdict, '')}" if token else text, joined, verdict))
        return pieces

    def best_pieces(self) -> list[Piece]:
        """The sentence with the generator's most probable tokens in brackets: its reading without the luck of the draw."""
        tokens = [best or token for best, token in zip(self.best, self.original, strict=True)]
        pieces = [Piece(*_split(token)) for token in tokens]
        return [p._replace(text=f"[{p.text}]") if best else p for p, best in zip(pieces, self.best, strict=True)]

    def probabilities(self) -> str:
        """The discriminator's probability that a token was replaced, for each token that it read."""
        if not self.probability:
            return ""
        return "  ".join(f"{token} {p:.2f}" for token, p in zip(self.generated, self.probability, strict=True))

    def record(self, step: int, epoch: float) -> dict:
        """For samples.jsonl: texts and everything they were made of."""
        selected = [i for i, selected in enumerate(self.selected) if selected]
        return {
            "step": step,
            "epoch": round(epoch, 4),
            "example": self.example,
            "fixed": self.fixed,
            "original": join(self.original_pieces()),
            "input": join(self.input_pieces()),
            "output": join(self.output_pieces()),
            "tokens": self.original,
            "shown": self.shown,
            "generated": self.generated,
            "best": [self.best[i] for i in selected],
            **({"corrected": [self.corrected[i] for i in selected]} if self.corrected else {}),
            "selected": selected,
            "masked": [i for i, masked in enumerate(self.masked) if masked],
            "probability": [round(p, 4) for p in self.probability],
        }

    @classmethod
    def from_record(cls, record: dict) -> "Reconstruction":
        """The inverse of :meth:`record` (probabilities are rounded)."""
        tokens = range(len(record["tokens"]))
        best = dict(zip(record["selected"], record["best"], strict=True))
        corrected = dict(zip(record["selected"], record.get("corrected", ())))
        return cls(
            original=record["tokens"],
            shown=record["shown"],
            generated=record["generated"],
            best=[best.get(i, "") for i in tokens],
            selected=[i in record["selected"] for i in tokens],
            masked=[i in record["masked"] for i in tokens],
            probability=record["probability"],
            example=record["example"],
            fixed=record["fixed"],
            corrected=[corrected.get(i, "") for i in tokens] if "corrected" in record else [],
        )


def reconstruct(
    batch: RTDBatch, output: RTDOutput, tokenizer: PreTrainedTokenizerBase, *, wanted: Iterable[int], fixed: bool = True
) -> list[Reconstruction]:
    """Examples of a batch (tensors on any device; copied to the CPU here, outside micro-steps).

    Args:
        output: what the module said to the batch.
        wanted: which ones, counted through the batch's rows; those that it does not have are left out.
    """
    batch = batch.to(torch.device("cpu"))
    logits = output.discriminator_logits
    probability = None if logits is None else logits.float().sigmoid().cpu()
    sampled, answers = output.sampled.cpu(), {"best": output.generator_argmax.cpu()}
    if output.corrected is not None:
        answers["corrected"] = output.corrected.cpu()
    places = torch.nonzero(batch.examples >= 0).tolist()
    words = tokenizer.convert_ids_to_tokens
    found = []
    for row, segment in (places[i] for i in wanted if i < len(places)):
        used = batch.slot_used[row]
        positions = batch.slot_positions[row][used]
        read = batch.input_ids[row].clone()
        read[positions] = sampled[row][used]
        selected = torch.zeros_like(read, dtype=torch.bool)
        selected[positions] = True
        columns = torch.nonzero(batch.segment_ids[row] == segment + 1).flatten()[1:-1]  # without [CLS] and [SEP]
        masked = selected & (batch.corrupted_ids[row] == tokenizer.mask_token_id)
        told = {}
        for name, answer in answers.items():
            there = dict(zip(positions.tolist(), words(answer[row][used].tolist())))
            told[name] = [there.get(column, "") for column in columns.tolist()]
        found.append(
            Reconstruction(
                original=words(batch.input_ids[row][columns].tolist()),
                shown=words(batch.corrupted_ids[row][columns].tolist()),
                generated=words(read[columns].tolist()),
                selected=selected[columns].tolist(),
                masked=masked[columns].tolist(),
                probability=[] if probability is None else probability[row][columns].tolist(),
                example=int(batch.examples[row, segment]),
                fixed=fixed,
                **told,
            )
        )
    return found


def join(pieces: Iterable[Piece]) -> str:
    """Pieces as running text.

    Written out instead of using the tokenizer's decoder, which would move brackets and signs.
    """
    return "".join(piece.text if piece.joined else " " + piece.text for piece in pieces).strip()


def _split(token: str) -> tuple[str, bool]:
    """A WordPiece token's text, and whether it continues a word (``##``)."""
    continues = token.startswith("##") and len(token) > 2
    return (token[2:] if continues else token), continues
