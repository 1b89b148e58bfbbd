from dataclasses import fields
from itertools import islice

import numpy as np
import pytest
import torch

from electra_accel.batch import RTDBatch
from electra_accel.data.collate import Collator
from electra_accel.data.masking import Masking, WholeWords
from electra_accel.data.packing import BinLimits
from electra_accel.data.plan import Bins, Layout, Plan
from electra_accel.data.replay import Replay
from electra_accel.data.store import MixedStore
from electra_accel.randomness import Purpose, bits, key, uniform
from tests.data.synthetic import (
    CLS,
    CORPUS,
    MASK,
    PAD,
    SEP,
    SPECIAL,
    VOCAB,
    masking,
    plan_of,
    random_lengths,
    slots_15,
    write_store,
)

LIMITS = BinLimits(64, 12, 8)
SEED = 3


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("store"), random_lengths(800, 2, 50))


def collator(store, rows, random_token_prob=0.1):
    return Collator(store, masking(0.15, 0.7, random_token_prob), LIMITS, rows, SEED, PAD)


def same(one, other, rows=slice(None)):
    return all(torch.equal(getattr(one, f.name)[rows], getattr(other, f.name)[rows]) for f in fields(one))


def test_a_batch_is_what_the_contract_says(store):
    """Every number of a batch against the definition, one example at a time in plain Python."""
    step = next(islice(plan_of(store, LIMITS, 8, seed=SEED).steps(), 60, None))  # of a later pass
    rows = 10
    batch = collator(store, rows).collate(step.bins)
    shapes = {"slot_positions": 12, "slot_used": 12, "slot_uniform": 12, "examples": 8}
    dtypes = {"slot_used": torch.bool, "slot_uniform": torch.float64}
    for field in fields(batch):
        tensor = getattr(batch, field.name)
        assert tensor.shape == (rows, shapes.get(field.name, 64)), field.name
        assert tensor.dtype == dtypes.get(field.name, torch.int64), field.name

    rule = masking(0.15, 0.7, 0.1)
    for row in range(rows):
        column, slots = 0, []
        members = step.bins[row : row + 1]
        for segment, (number, example) in enumerate(
            zip(members.passes.tolist(), members.examples.tolist(), strict=True)
        ):
            tokens, _ = store.read(np.array([example]))
            span = slice(column, column + len(tokens))
            assert batch.input_ids[row, span].tolist() == tokens.tolist()
            assert batch.position_ids[row, span].tolist() == list(range(len(tokens)))
            assert (batch.segment_ids[row, span] == segment + 1).all()
            assert batch.examples[row, segment] == example

            stream = {p: bits(key(SEED, CORPUS, number, p), np.array([example])) for p in Purpose}
            _, selected = rule.select(tokens, np.array([len(tokens)]), stream[Purpose.SELECT])
            assert len(selected) == slots_15(np.array([len(tokens)]))[0]
            corrupted = tokens.astype(np.int64)
            for position in selected.tolist():
                at = np.array([position])
                corrupted[position] = rule.corrupt(
                    tokens[at], at, stream[Purpose.CORRUPT], stream[Purpose.RANDOM_TOKEN]
                )[0]
                slots.append((column + position, uniform(stream[Purpose.REPLACE], at)[0]))
            assert batch.corrupted_ids[row, span].tolist() == corrupted.tolist()
            column += len(tokens)
        assert (batch.input_ids[row, column:] == PAD).all() and (batch.corrupted_ids[row, column:] == PAD).all()
        assert not batch.segment_ids[row, column:].any() and not batch.position_ids[row, column:].any()
        assert (batch.examples[row, len(members.examples) :] == -1).all()
        used = len(slots)
        assert batch.slot_used[row].tolist() == [True] * used + [False] * (12 - used)
        assert list(zip(batch.slot_positions[row].tolist(), batch.slot_uniform[row].tolist(), strict=True)) == [
            *slots,
            *[(0, 0.0)] * (12 - used),
        ]
    assert not batch.token_type_ids.any()


def arranged(step, layout, collator):
    """The micro-batches of all processes, in the order of the bins, as one batch."""
    parts = [layout.micro_batches(step.bins, rank) for rank in range(layout.world_size)]
    batches = [
        collator.collate(parts[rank][a]) for a in range(layout.accumulation) for rank in range(layout.world_size)
    ]
    return RTDBatch(*[torch.cat([getattr(batch, f.name) for batch in batches]) for f in fields(RTDBatch)])


@pytest.mark.parametrize(
    ("micro_batch_tokens", "world_size"), [(64 * 48, 1), (64 * 6, 1), (64 * 6, 2), (64, 4), (64 * 5, 3)]
)
def test_the_arrangement_changes_no_number(store, micro_batch_tokens, world_size):
    """1 x 48 rows against more micro-batches, more processes, and 3 processes with empty bins."""
    step = next(plan_of(store, LIMITS, 48, seed=SEED).steps())
    whole = collator(store, 48).collate(step.bins)
    layout = Layout.derive(48, 64, micro_batch_tokens, world_size)
    joined = arranged(step, layout, collator(store, layout.rows))
    assert same(whole, joined, slice(0, 48))
    assert joined.counts().tolist() == whole.counts().tolist() == [int(whole.slot_used.sum()), step.tokens]
    assert len(joined.real) == 48 + layout.empty_bins


def test_nor_with_whole_words_and_replay(store, tmp_path):
    """Replay comes twice in each pass, so that a step holds the same example in two corruptions."""
    mixed = MixedStore(store, write_store(tmp_path, random_lengths(30, 10, 50, stream=9)))
    plan = Plan(
        *(len(store), mixed.lengths, lambda _, n: slots_15(n), LIMITS, 48, SEED, mixed.corpus), replay=Replay(30, 60)
    )
    words = Masking(
        0.15, 0.7, 0.1, VOCAB, MASK, [PAD, CLS, SEP, MASK], SPECIAL, rule=WholeWords(np.arange(VOCAB) % 2 == 0)
    )
    corrupted: dict[int, set[tuple[int, ...]]] = {}
    for step in islice(plan.steps(), 12):  # more than a pass
        whole = Collator(mixed, words, LIMITS, 48, SEED, PAD).collate(step.bins)
        layout = Layout.derive(48, 64, 64 * 5, 3)
        joined = arranged(step, layout, Collator(mixed, words, LIMITS, layout.rows, SEED, PAD))
        assert same(whole, joined, slice(0, 48))
        assert int(whole.slot_used.sum()) == slots_15(mixed.lengths(step.bins.examples)).sum()
        for row, segment in torch.nonzero(whole.examples >= 800).tolist():
            inside = whole.segment_ids[row] == segment + 1
            example = int(whole.examples[row, segment])
            assert whole.input_ids[row, inside].tolist() == mixed.read(np.array([example]))[0].tolist()
            corrupted.setdefault(example, set()).add(tuple(whole.corrupted_ids[row, inside].tolist()))
    assert len(corrupted) == 30 and min(len(seen) for seen in corrupted.values()) >= 2


def test_an_example_looks_the_same_in_any_bin_and_otherwise_in_another_pass(store):
    def alone_and_in_company(number):
        passes = np.full(3, number)
        together = collator(store, 1).collate(Bins(np.array([5, 9, 11])[:2], passes[:2], np.array([0, 2])))
        alone = collator(store, 1).collate(Bins(np.array([9]), passes[:1], np.array([0, 1])))
        return together, alone

    together, alone = alone_and_in_company(0)
    inside = together.segment_ids[0] == 2
    assert together.corrupted_ids[0, inside].tolist() == alone.corrupted_ids[0, alone.real[0]].tolist()
    later = [alone_and_in_company(number)[1] for number in range(1, 6)]
    assert all(torch.equal(batch.input_ids, alone.input_ids) for batch in later)
    assert any(not torch.equal(batch.corrupted_ids, alone.corrupted_ids) for batch in later)
    assert all(not torch.equal(batch.slot_uniform, alone.slot_uniform) for batch in later)


def test_empty_bins_and_examples_without_candidates(tmp_path):
    nothing = Bins(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(1, np.int64))
    store = write_store(tmp_path, np.array([2, 3, 2]))  # [CLS] [SEP]; one token; [CLS] [SEP]
    batch = collator(store, 2).collate(nothing)
    assert batch.counts().tolist() == [0, 0]
    assert (batch.input_ids == PAD).all() and (batch.examples == -1).all()

    batch = collator(store, 2).collate(Bins(np.arange(3), np.zeros(3, np.int64), np.array([0, 3])))
    assert batch.counts().tolist() == [1, 7]
    assert batch.slot_positions[0].tolist() == [3] + [0] * 11
    batch = collator(store, 2).collate(Bins(np.array([0]), np.zeros(1, np.int64), np.array([0, 1])))
    assert batch.counts().tolist() == [0, 2]
    assert torch.equal(batch.input_ids, batch.corrupted_ids)


def test_only_selected_positions_are_corrupted(store):
    step = next(plan_of(store, LIMITS, 64, seed=SEED).steps())
    batch = collator(store, 64, random_token_prob=0.3).collate(step.bins)
    selected = torch.zeros_like(batch.real)
    selected[torch.arange(64)[:, None].expand(-1, 12)[batch.slot_used], batch.slot_positions[batch.slot_used]] = True
    assert selected.sum() == batch.slot_used.sum()  # no position twice
    assert (batch.corrupted_ids == batch.input_ids)[~selected].all()
    assert (batch.corrupted_ids[selected] == MASK).float().mean() == pytest.approx(0.7, abs=0.08)
