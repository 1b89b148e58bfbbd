"""Bins of the plan + tokens of the store -> RTDBatch. Every random decision about a batch is made here."""

from dataclasses import dataclass

import numpy as np
import torch

from electra_accel.batch import RTDBatch
from electra_accel.data.masking import Masking, example_streams, within
from electra_accel.data.packing import BinLimits
from electra_accel.data.plan import Bins
from electra_accel.data.store import MixedStore, TokenStore
from electra_accel.randomness import Purpose, uniform


@dataclass
class Collator:
    """Turns up to ``rows`` bins into one micro-batch of exactly ``rows`` rows; plain data, so workers can have a copy."""

    store: TokenStore | MixedStore
    masking: Masking
    limits: BinLimits  # that the bins were packed under
    rows: int
    seed: int  # of the run, or of the evaluation
    pad_id: int

    def collate(self, bins: Bins) -> RTDBatch:
        """A micro-batch; rows beyond the given bins are empty. An example looks the same wherever it stands."""
        return as_batch(self.arrays(bins))

    def arrays(self, bins: Bins) -> dict[str, np.ndarray]:
        """The batch before :func:`as_batch`: fields in smaller dtypes, which makes them cheap to send to a process."""
        tokens, lengths = self.store.read(bins.examples)
        sizes = np.diff(bins.offsets)
        row = np.repeat(np.arange(len(bins)), sizes)  # of each example
        segment = within(sizes)
        starts = np.cumsum(lengths) - lengths  # of each example in `tokens`
        row_starts = np.concatenate([starts, [len(tokens)]])[bins.offsets[:-1]]
        column = starts - row_starts[row]  # of each example's first token
        place = row * self.limits.tokens + column  # the same in a flattened [R, T] array

        shape = (self.rows, self.limits.tokens)
        position = within(lengths)
        token_place = np.repeat(place, lengths) + position
        input_ids = _scatter(shape, token_place, tokens, fill=np.int32(self.pad_id))
        batch = {
            "position_ids": _scatter(shape, token_place, position, fill=np.int32(0)),
            "segment_ids": _scatter(shape, token_place, np.repeat(segment + 1, lengths), fill=np.int32(0)),
        }
        shape = (self.rows, self.limits.segments)
        examples = _scatter(shape, row * self.limits.segments + segment, bins.examples, fill=np.int64(-1))

        def streams(purpose: Purpose) -> np.ndarray:
            return example_streams(self.seed, self.store.corpus, bins.passes, bins.examples, purpose)

        example, selected = self.masking.select(tokens, lengths, streams(Purpose.SELECT))
        corrupted_ids = input_ids.copy()
        corrupted_ids.reshape(-1)[place[example] + selected] = self.masking.corrupt(
            tokens[starts[example] + selected],
            selected,
            streams(Purpose.CORRUPT)[example],
            streams(Purpose.RANDOM_TOKEN)[example],
        )
        shape = (self.rows, self.limits.slots)
        slot_row = row[example]  # ascending: slots come in the order of rows, then of columns
        slot = slot_row * self.limits.slots + within(np.bincount(slot_row, minlength=self.rows))
        draws = uniform(streams(Purpose.REPLACE)[example], selected)
        return batch | {
            "input_ids": input_ids,
            "corrupted_ids": corrupted_ids,
            "slot_positions": _scatter(shape, slot, column[example] + selected, fill=np.int32(0)),
            "slot_used": _scatter(shape, slot, True, fill=np.False_),
            "slot_uniform": _scatter(shape, slot, draws, fill=np.float64(0)),
            "examples": examples,
        }


def as_batch(arrays: dict[str, np.ndarray]) -> RTDBatch:
    """Tensors of the dtypes that RTDBatch promises."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    tensors = {name: tensor.long() if tensor.dtype == torch.int32 else tensor for name, tensor in tensors.items()}
    return RTDBatch(**tensors, token_type_ids=torch.zeros_like(tensors["input_ids"]))  # single texts


def _scatter(shape: tuple[int, int], places: np.ndarray, values: np.ndarray | bool, fill: np.generic) -> np.ndarray:
    """An array of ``fill`` (which also gives the dtype) with ``values`` at flat ``places``."""
    result = np.full(shape, fill)
    result.reshape(-1)[places] = values
    return result
