"""Toy examples with something to learn, and bins packed from them by hand."""

import numpy as np
import torch

from electra_accel.batch import RTDBatch
from electra_accel.model.pair import Pair, build_pair
from electra_accel.randomness import bits, key, uniform
from tests.model.plain_rtd import Example

PAD, CLS, SEP, MASK = 0, 2, 3, 4
VOCAB = 300  # more than two groups of the sampler, not a multiple of them


def toy_examples(count: int, seed: int = 0, shortest: int = 4, longest: int = 24) -> list[Example]:
    """Texts with something to learn: a word says where it stands, and which of two topics the whole text has.

    So a generator that knows positions only is right half of the time, and the discriminator sees a replacement by its topic.
    About a sixth of the positions is selected. The second half of a text has token type 1.
    """
    examples = []
    for number in range(count):
        stream = key(seed, number)
        length = shortest + int(bits(stream, np.array([0]))[0] % np.uint64(longest - shortest + 1))
        topic = int(bits(stream, np.array([1]))[0] % np.uint64(2))
        words = [10 + 2 * step + topic for step in range(length - 2)]
        tokens = [CLS, *words, SEP]
        order = np.argsort(uniform(key(stream, 1), np.arange(length - 2)))
        selected = sorted(int(x) + 1 for x in order[: max(1, (length - 2) // 6)])
        masked = uniform(key(stream, 3), np.array(selected)) < 0.85
        corrupted = list(tokens)
        for at in (at for at, mask in zip(selected, masked, strict=True) if mask):
            corrupted[at] = MASK
        draws = uniform(key(stream, 2), np.array(selected)).tolist()
        examples.append(Example(tokens, corrupted, selected, draws, [int(at > length // 2) for at in range(length)]))
    return examples


def pack_examples(
    examples: list[Example], *, row_tokens: int = 64, slots: int = 16, segments: int = 8, rows: int = 0
) -> tuple[RTDBatch, list[tuple[int, int]]]:
    """First fit, in order; ``rows`` is a minimum (further rows are empty). Returns the batch and (row, column) per example."""
    bins: list[list[int]] = []
    for number in range(len(examples)):
        for members in bins:
            mine = [examples[m] for m in [*members, number]]
            fits = sum(len(e.tokens) for e in mine) <= row_tokens and sum(len(e.selected) for e in mine) <= slots
            if fits and len(mine) <= segments:
                members.append(number)
                break
        else:
            bins.append([number])
    bins += [[] for _ in range(rows - len(bins))]
    shape = (len(bins), row_tokens)
    ids, corrupted = torch.full(shape, PAD), torch.full(shape, PAD)
    position, types, segment = (torch.zeros(shape, dtype=torch.long) for _ in range(3))
    slot_positions = torch.zeros(len(bins), slots, dtype=torch.long)
    slot_used = torch.zeros(len(bins), slots, dtype=torch.bool)
    slot_uniform = torch.zeros(len(bins), slots, dtype=torch.float64)
    numbers = torch.full((len(bins), segments), -1)
    places = [(0, 0)] * len(examples)
    for row, members in enumerate(bins):
        column, slot = 0, 0
        for index, number in enumerate(members):
            example, end = examples[number], column + len(examples[number].tokens)
            places[number] = (row, column)
            numbers[row, index] = number
            ids[row, column:end] = torch.tensor(example.tokens)
            corrupted[row, column:end] = torch.tensor(example.corrupted)
            position[row, column:end] = torch.arange(end - column)
            types[row, column:end] = torch.tensor(example.token_types)
            segment[row, column:end] = index + 1
            for at, draw in zip(example.selected, example.uniform, strict=True):
                slot_positions[row, slot], slot_used[row, slot], slot_uniform[row, slot] = column + at, True, draw
                slot += 1
            column = end
    batch = RTDBatch(
        input_ids=ids,
        corrupted_ids=corrupted,
        position_ids=position,
        token_type_ids=types,
        segment_ids=segment,
        slot_positions=slot_positions,
        slot_used=slot_used,
        slot_uniform=slot_uniform,
        examples=numbers,
    )
    return batch, places


def toy_pair(dropout: float = 0.0, seed: int = 1, sharing: str = "tied") -> Pair:
    shape = dict(vocab_size=VOCAB, pad_token_id=PAD, max_length=128, generator_width=None)
    return build_pair("tiny", **shape, dropout=dropout, seed=seed, sharing=sharing)


def total_loss(output, batch: RTDBatch) -> torch.Tensor:
    """The loss of a global step that is this one batch, with the published weights."""
    selected, tokens = batch.counts()
    return output.generator_loss_sum / selected.clamp(min=1) + 50 * output.discriminator_loss_sum / tokens.clamp(min=1)
