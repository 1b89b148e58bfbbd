"""What reads what a user gives. Each target takes a folder and a random input, and returns the names of which a refusal has to
name one; what it raises is UserError, or a fault."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from hypothesis import strategies as st

from electra_accel.errors import UserError
from electra_accel.finetuning.config import Task
from electra_accel.finetuning.config import resolve as resolve_task
from electra_accel.finetuning.tasks import load_task
from electra_accel.model.loading import load_networks
from electra_accel.model.pair import build_pair
from electra_accel.options.declare import flatten
from electra_accel.pretraining import config_parser
from electra_accel.pretraining.config import Config, resolve
from electra_accel.pretraining.config_checks import check
from electra_accel.pretraining.progress import Progress
from electra_accel.runs import checkpoint, run_folder
from electra_accel.text.readers import placed_texts
from electra_accel.text.tokenizer import load_tokenizer, train_tokenizer
from tests.finetuning.small import rows
from tests.fuzz.inputs import damaged, odd_json, odd_words
from tests.helpers import ROOT
from tests.text.texts import TEXTS


@dataclass(frozen=True)
class Target:
    good: object  # an input without damage, which has to be taken
    inputs: st.SearchStrategy
    read: Callable[[Path, object], None]
    names: Callable[[object], list[str]]  # of which the line has to have one


def _settled(words: list[str]) -> None:
    """What a run does with its options before anything else."""
    check(resolve(config_parser.parse(words, "").config))


GOOD_WORDS = [
    "--model.size=tiny",
    "--data.train_files=text.txt",
    "--tokenizer.train_vocab_size=300",
    "--train.steps=10",
]


def command_line() -> Target:
    # What is wrong is an option, a value, or that two exclude each other; so no one name has to be in the line.
    read = lambda folder, words: _settled([*GOOD_WORDS, *words])  # noqa: E731
    return Target([], odd_words(sorted(flatten(Config()))), read, lambda words: [""])


def configuration() -> Target:
    recipes = {path.stem: path.read_bytes() for path in sorted((ROOT / "recipes").glob("*.yaml"))}
    values = st.dictionaries(
        st.sampled_from(sorted({name.split(".")[0] for name in flatten(Config())})), _groups(), max_size=3
    )

    def read(folder: Path, content: bytes) -> None:
        path = folder / "given.yaml"
        path.write_bytes(content)
        _settled(["--config", str(path)])

    # A file may be good by itself and impossible in all: then options are named.
    inputs = st.sampled_from([*recipes.values()]).flatmap(damaged) | values.map(json.dumps).map(str.encode)
    return Target(recipes["tiny-python-docs"], inputs, read, lambda _: [""])


def _groups() -> st.SearchStrategy:
    names = st.sampled_from(sorted({name.split(".")[1] for name in flatten(Config())}))
    value = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda part: st.lists(part, max_size=2),
    )
    return st.dictionaries(names, value, max_size=3) | value


TABLE = [{"text": text, "label": "ab"[number % 2]} for number, text in enumerate(TEXTS[:6])]
FILES = {
    ".txt": "\n".join(TEXTS[:6]),
    ".csv": "text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in TABLE),
    ".tsv": "text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in TABLE),
    ".json": json.dumps(TABLE),
    ".jsonl": "".join(json.dumps(row) + "\n" for row in TABLE),
}


def _file(suffix: str) -> st.SearchStrategy:
    return damaged(FILES[suffix].encode()).map(lambda content: (suffix, content))


def corpus() -> Target:
    def read(folder: Path, given: tuple[str, bytes]) -> None:
        path = folder / f"given{given[0]}"
        path.write_bytes(given[1])
        for join_lines in (False, True):
            for place, text in placed_texts(path, "text", join_lines):
                assert isinstance(place, str) and isinstance(text, str)

    good = (".csv", FILES[".csv"].encode())
    return Target(good, st.sampled_from(sorted(FILES)).flatmap(_file), read, lambda given: [f"given{given[0]}"])


KINDS = {"classification": "label", "regression": "score", "tagging": "tags"}


def task() -> Target:
    records = rows(12)
    whole = "".join(json.dumps(row) + "\n" for row in records).encode()
    lines = st.lists(st.sampled_from(records).flatmap(odd_json), min_size=1, max_size=12).map(b"\n".join)

    def read(folder: Path, given: tuple[str, bytes]) -> None:
        path = folder / "given.jsonl"
        path.write_bytes(given[1])
        load_task(resolve_task(Task(kind=given[0], train_file=str(path), dev_fraction=0.3)))

    inputs = st.tuples(st.sampled_from(sorted(KINDS)), damaged(whole) | lines)
    return Target(("classification", whole), inputs, read, lambda _: ["given.jsonl"])


@functools.cache
def _tokenizer_files(place: Path) -> dict[str, bytes]:
    train_tokenizer(lambda: [TEXTS], 300, place)
    return {path.name: path.read_bytes() for path in place.iterdir()}


def _first(files: dict[str, bytes]) -> tuple[str, bytes]:
    return next(iter(files.items()))


def _one_of(files: dict[str, bytes]) -> st.SearchStrategy:
    """One file of a folder, and what stands in it now."""

    def changed(name: str) -> st.SearchStrategy:
        inputs = damaged(files[name])
        if name.endswith(".json"):
            inputs |= odd_json(json.loads(files[name]))
        return inputs.map(lambda content: (name, content))

    return st.sampled_from(sorted(files)).flatmap(changed)


def _with_one_file(files: dict[str, bytes], read: Callable[[Path], None]) -> Callable[[Path, tuple[str, bytes]], None]:
    def with_it(folder: Path, given: tuple[str, bytes]) -> None:
        for name, content in (files | {given[0]: given[1]}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        read(folder)

    return with_it


def tokenizer(place: Path) -> Target:
    files = _tokenizer_files(place)
    return Target(
        _first(files), _one_of(files), _with_one_file(files, load_tokenizer), lambda given: [given[0], "{folder}"]
    )


def network(place: Path) -> Target:
    shape = dict(vocab_size=50, pad_token_id=0, max_length=64, generator_width=0.25, dropout=0.1, seed=1)
    for name, model in build_pair("tiny", **shape)._asdict().items():
        model.save_pretrained(place / name)
    files = {f"{path.parent.name}/{path.name}": path.read_bytes() for path in place.glob("*/*.json")}
    weights = {f"{path.parent.name}/{path.name}": path.read_bytes() for path in place.glob("*/*.safetensors")}
    head = st.sampled_from(sorted(weights)).flatmap(
        lambda name: damaged(weights[name][:4000]).map(lambda content: (name, content + weights[name][4000:]))
    )
    settings = dict(sharing="tied", revision=None, tokenizer_vocab_size=50, max_length=64, dropout=0.1, seed=1)

    def read(folder: Path) -> None:
        load_networks(str(folder / "generator"), str(folder / "discriminator"), **settings)

    named = ["model.generator", "model.discriminator", "generator", "discriminator"]
    return Target(_first(files), _one_of(files) | head, _with_one_file(files | weights, read), lambda _: named)


def saved(place: Path) -> Target:
    """A checkpoint."""
    partial = checkpoint.begin(place, 3)
    (partial / "model.safetensors").write_bytes(b"weights")
    run_folder.write_json(partial / checkpoint.STATE, Progress("data", step=3).to_json())
    made = checkpoint.commit(place, 3)
    files = {f"{made.name}/{path.name}": path.read_bytes() for path in made.iterdir()}

    def read(folder: Path) -> None:
        told: list[str] = []
        path = checkpoint.newest_valid(folder, told.append)
        assert path and not told
        Progress.from_json(checkpoint.read_state(path))

    return Target(_first(files), _one_of(files), _with_one_file(files, read), lambda _: [made.name])


def targets(place: Path) -> dict[str, Target]:
    """``place``: a folder for the good files that inputs are made from."""
    torch.manual_seed(0)
    for made in (tokenizer, network, saved):
        (place / made.__name__).mkdir()
    return {
        **{made.__name__: made() for made in (command_line, configuration, corpus, task)},
        **{made.__name__: made(place / made.__name__) for made in (tokenizer, network, saved)},
    }


def judge(target: Target, folder: Path, given: object) -> str:
    """ "taken" or "refused"; raises AssertionError, or what the reader raised, where it is neither."""
    try:
        target.read(folder, given)
    except UserError as error:
        line = str(error)
        names = [name.replace("{folder}", str(folder)) for name in target.names(given)]
        assert line.strip() and any(name in line for name in names), f"names none of {names}: {line}"
        return "refused"
    except SystemExit as ended:  # --help
        assert not ended.code
    return "taken"
