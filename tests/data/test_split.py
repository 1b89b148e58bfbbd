"""No text is trained on and held out, and nothing else is left out."""

from collections import Counter, defaultdict

import pytest

from electra_accel.data.split import assign, fraction_that_holds_one
from electra_accel.text.corpus import Corpus
from tests.text.texts import text


@pytest.fixture
def write(tmp_path):
    def corpus(name: str, numbers, change=str) -> Corpus:
        (tmp_path / f"{name}.txt").write_text("".join(f"{change(text(n, 9))}\n" for n in numbers))
        return Corpus(files=(str(tmp_path / f"{name}.txt"),))

    return corpus


def assigned(train, held_out, replay, fraction) -> tuple[dict[str, Counter], dict[str, Counter]]:
    """How often each text stands in each split, and what was left out."""
    left_out = defaultdict(Counter)
    splits = defaultdict(Counter)
    for (name, _), documents in assign(train, held_out, replay, fraction, join_lines=False, left_out=left_out):
        splits[name].update(document.lower() for document in documents)
    return splits, left_out


def texts(numbers) -> Counter:
    return Counter(text(n, 9) for n in numbers)


def test_given_sets_lose_what_train_has_and_replay_what_they_keep(write):
    train = write("train", range(100))
    held_out = {"held_out": write("held", range(90, 130), str.upper), "general": write("general", range(120, 160))}
    splits, left_out = assigned(train, held_out, write("replay", [*range(80, 200), *range(150, 170)], str.title), 0)
    assert splits == {
        "train": texts(range(100)),
        "held_out": texts(range(100, 130)),
        "general": texts(range(120, 160)),
        "replay": texts([*range(80, 100), *range(160, 200), *range(160, 170)]),
    }
    assert left_out == {
        "held_out": {"also in train": 10},
        "general": {"also in train": 0},
        "replay": {"also held out": 60 + 10},
    }


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("replay", [False, True])
def test_what_is_split_off_depends_on_nothing_else(write, general, replay):
    train = write("train", [*range(2000), *range(500)])
    splits, left_out = assigned(
        train,
        {"general": write("general", range(1500, 2500))} if general else {},
        write("replay", range(1000, 3000)) if replay else None,
        0.2,
    )
    alone, _ = assigned(train, {}, None, 0.2)
    assert (splits["train"], splits["held_out"]) == (alone["train"], alone["held_out"])
    assert splits["train"] + splits["held_out"] == texts([*range(2000), *range(500)])
    assert 0.15 < len(splits["held_out"]) / 2000 < 0.25
    if general:  # what train itself holds out may be judged by twice
        assert splits["general"] == texts(range(1500, 2500)) - splits["train"]
        assert left_out["general"]["also in train"] == 1000 - splits["general"].total()
    if replay:
        assert splits["replay"] == texts(range(1000, 3000)) - splits["held_out"] - splits["general"]
        assert left_out["replay"]["also held out"] == 2000 - splits["replay"].total()


def test_a_fraction_that_holds_out_at_least_one(write):
    train = write("train", range(20))
    said = []
    fraction = fraction_that_holds_one(train, 1e-9, False, said.append)
    assert len(assigned(train, {}, None, fraction)[0]["held_out"]) == len(said) == 1
    assert (fraction_that_holds_one(train, 0, False, said.append), len(said)) == (0, 1)
    assert fraction_that_holds_one(train, 0.9, False, said.append) == 0.9
