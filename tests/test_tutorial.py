"""The tutorial says what happens: its output is what follow_sentence.py prints, and what that prints is right."""

import math
import os
import re
import shlex
import sys

import pytest
import torch
from transformers import ElectraForMaskedLM, ElectraForPreTraining

from electra_accel.finetuning import config_parser as finetuning_parser
from electra_accel.model.pair import build_pair
from electra_accel.pretraining import config_parser
from electra_accel.text.tokenizer import train_tokenizer
from tests.helpers import ROOT, run_command, run_script
from tests.pretraining_runs import run_here, write_corpus
from tests.processes import of_this_python

PAGES = ("docs/tutorial.md", "docs/tutorial.ko.md")
NUMBER = re.compile(r"\d+\.\d{4}")
DIGITS = 1.01e-4  # two machines may round the fourth digit differently
HALF = 0.51e-4  # how far a printed number is from the exact one


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [block for found, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S) if found == language]


def commands(page: str) -> list[str]:
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip()]


def numbers(line: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(line)]


def sections(out: str) -> list[list[str]]:
    """Its lines by section, headings left out; the first is the line about the pair."""
    first, *others = out.strip("\n").split("\n\n")
    return [[first], *(section.splitlines()[1:] for section in others)]


def words_of(command: str) -> tuple[str, list[str]]:
    """The script that a command starts, and its arguments."""
    words = shlex.split(command)
    place = next(i for i, word in enumerate(words) if word.startswith("scripts/"))
    return words[place], words[place + 1 :]


@pytest.fixture(scope="module")
def printed() -> str:
    done = run_script("scripts/follow_sentence.py", timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_the_tutorial_quotes_what_the_script_prints(page, printed):
    """All of it but its first line, a section a block."""
    quoted = "\n".join(blocks(page, "text")).strip("\n")
    out = printed.partition("\n\n")[2].strip("\n")
    assert NUMBER.sub("#", quoted) == NUMBER.sub("#", out)
    assert numbers(quoted) == pytest.approx(numbers(out), abs=DIGITS)


def test_the_lowest_numbers_are_selected(printed):
    head, *rows = sections(printed)[2]
    tokens = [re.match(r" +(\d+) +(0\.\d{4})  (\S+)(.*)", row).groups() for row in rows]
    count, n = map(int, re.findall(r"\d+", head)[:2])
    assert n == len(tokens) == 19 and count == int(0.15 * n + 0.5) == 3
    lowest = sorted(float(number) for _, number, _, _ in tokens)[:count]
    assert sorted(float(number) for _, number, _, note in tokens if note) == lowest
    for _, _, token, note in tokens:
        if note:
            second = numbers(note)[0]
            assert note.endswith("reads [MASK]" if second < 0.85 else f"reads {token}"), note
    assert 0 < sum("[MASK]: " in note or note.endswith("[MASK]") for *_, note in tokens) <= count


def test_tokens_of_a_row_see_their_own_example_only(printed):
    head, *parts = sections(printed)[3]
    slots, real, selected = map(int, re.findall(r"\d+", head))
    found = [tuple(map(int, re.findall(r"(\d+)", part.partition(":")[0]))) for part in parts]
    assert found[0][0] == 0 and found[-1][1] == slots - 1 and found[-1][0] == real
    assert [first for first, *_ in found[1:]] == [last + 1 for _, last, *_ in found[:-1]]
    for part, (first, last, sees_from, sees_to, position, end) in zip(parts, found):
        assert (sees_from, sees_to) == (first, last)
        assert (position, end) == (0, 0 if part.endswith("padding") else last - first)
    read = " ".join(part.partition(": ")[2] for part in parts)
    assert read.count("[CLS]") == read.count("[SEP]") == len(parts) - 1
    assert read.count("[MASK]") <= selected


def test_what_is_drawn_decides_the_targets(printed):
    """A replacement that equals the original is none."""
    tokens = sections(printed)[1][2].split()
    *_, generator, judged, _ = sections(printed)
    drawn = {}
    for about, loss, place in zip(generator[::3], generator[1::3], generator[2::3], strict=True):
        position = int(re.search(r"\d+", about)[0])
        original, (probability, nats) = loss.split()[0], numbers(loss)
        number, low, high = numbers(place)
        assert original == tokens[position] and math.exp(-nats) == pytest.approx(probability, abs=2 * HALF)
        assert low - HALF <= number <= high + HALF and numbers(about)[-1] == 1
        assert numbers(about)[:-1] == sorted(numbers(about)[:-1], reverse=True)
        drawn[position] = place.split(": ")[1]
    targets = [int(re.search(r"target (\d)", line)[1]) for line in judged]
    expected = [drawn.get(i, token) for i, token in enumerate(tokens)]
    assert [line.split()[-1] for line in judged] == expected
    assert targets == [int(token != original) for token, original in zip(expected, tokens)]
    assert 0 < sum(targets) < len(drawn)  # one was restored


def test_losses_are_those_of_the_printed_probabilities(printed):
    *_, generator, judged, loss = sections(printed)
    losses = []
    for line in judged:
        (probability, nats), target = numbers(line), "target 1" in line
        assert nats == pytest.approx(-math.log(probability if target else 1 - probability), abs=5 * HALF)
        losses.append(nats)
    sentence, row, total = loss
    assert numbers(sentence) == pytest.approx(
        [sum(numbers(line)[1] for line in generator[1::3]), sum(losses)], abs=len(losses) * HALF
    )
    g_sum, g, d_sum, d = numbers(row)
    selected, real = (int(count) for count in re.findall(r"/ (\d+) =", row))
    assert [f"{real} real tokens, {selected} selected"] == [sections(printed)[3][0].split(", ", 1)[1]]
    assert (g, d) == pytest.approx((g_sum / selected, d_sum / real), abs=2 * HALF)
    assert "1 x" in total and "50 x" in total and numbers(total)[:2] == [g, d]
    assert numbers(total)[2] == pytest.approx(g + 50 * d, abs=52 * HALF)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A folder with a pair that is far from even, so that a leak between examples would show, and its tokenizer."""
    folder = tmp_path_factory.mktemp("pair")
    texts = ["The old bridge was closed in winter .", "Boats pass under the bridge in summer .", "winter was cold"]
    tokenizer = train_tokenizer(lambda: [texts], 200, folder / "tokenizer")
    networks = build_pair(
        "tiny",
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        max_length=128,
        generator_width=None,
        dropout=0.0,
        seed=3,
    )
    with torch.no_grad():
        for parameter in {*networks.generator.parameters(), *networks.discriminator.parameters()}:
            if parameter.ndim > 1:
                parameter.mul_(4)
    for name, network in networks._asdict().items():
        network.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder, texts, tokenizer


@torch.no_grad()
def test_stock_transformers_says_the_same_of_the_sentence_alone(pair, monkeypatch, capfd):
    """Though it lies in a row with others and padding."""
    folder, texts, tokenizer = pair
    networks = [f"--{role}={folder / role}" for role in ("generator", "discriminator")]
    code, out, err = run_here([*networks, "--seed", 5, *texts], folder, monkeypatch, capfd, "follow_sentence.py")
    assert code == 0, err
    out = out[out.index("\n1 text") :]
    _, text, selection, row, generator, judged, loss = sections("pair\n" + out)
    ids = torch.tensor([[int(number) for number in text[-1].split()]])
    assert ids.tolist()[0] == tokenizer(texts[0])["input_ids"] and len(row) == 5
    masked = ids.clone()
    for position, line in enumerate(selection[1:], 1):
        if line.endswith("reads [MASK]"):
            masked[0, position] = tokenizer.mask_token_id
    said = ElectraForMaskedLM.from_pretrained(folder / "generator").eval()(masked).logits.softmax(-1)
    read = ids.clone()
    for about, line, place in zip(generator[::3], generator[1::3], generator[2::3], strict=True):
        position = int(re.search(r"\d+", about)[0])
        assert numbers(line)[0] == pytest.approx(said[0, position, ids[0, position]].item(), abs=DIGITS)
        read[0, position] = tokenizer.convert_tokens_to_ids(place.split(": ")[1])
    probability = ElectraForPreTraining.from_pretrained(folder / "discriminator").eval()(read).logits.sigmoid()
    assert [numbers(line)[0] for line in judged] == pytest.approx(probability[0].tolist(), abs=DIGITS)
    assert probability.std() > 0.05


MISTAKES = {
    "half a pair": (["--generator", "x"], "--discriminator"),
    "two pairs": (["--run", "x", "--generator", "x", "--discriminator", "x"], "--run"),
    "no such run": (["--run", "nowhere"], "nowhere"),
    "empty text": (["a", " "], "' '"),
    "broken UTF-8": (["a\udcff"], "UTF-8"),
    "unknown option": (["--sede", "1"], "--sede"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(name, tmp_path, monkeypatch, capfd):
    arguments, word = MISTAKES[name]
    code, _, err = run_here(arguments, tmp_path, monkeypatch, capfd, "follow_sentence.py")
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and word in err, err


def test_a_text_without_a_known_token_is_named(pair, monkeypatch, capfd):
    folder, texts, _ = pair
    networks = [f"--{role}={folder / role}" for role in ("generator", "discriminator")]
    code, _, err = run_here([*networks, "ᚠᚢᚦ", texts[0]], folder, monkeypatch, capfd, "follow_sentence.py")
    last = err.splitlines()[-1]
    assert code == 2 and "text 1" in last and "ᚠᚢᚦ" in last and "vocabulary" in last, err


def test_of_a_long_text_the_first_piece_is_followed(monkeypatch, tmp_path, capfd):
    """Which is said, and how many there are; of a text that is whole nothing is (the page quotes all that is printed)."""
    code, out, err = run_here(["soup " * 100], tmp_path, monkeypatch, capfd, "follow_sentence.py")
    assert code == 0, err
    text = sections(out)[1]
    assert "data.max_length 48: " in text[2] and " 3 pieces " in text[2]
    assert text[3].split() == ["[CLS]", *["soup"] * 46, "[SEP]"]


def test_both_languages_say_the_same():
    """The same sections, commands and output, and the same figures in the same tables."""
    english, korean = ((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    for language in ("sh", "text", "python", ""):
        assert blocks(PAGES[0], language) == blocks(PAGES[1], language)
    outline, rows = re.compile(r"^#+ (\d*)", re.M), re.compile(r"^\|.*", re.M)
    assert outline.findall(english) == outline.findall(korean)
    cells = [re.findall(r"[\d.,]*\d", row) for row in rows.findall(english)]
    assert cells == [re.findall(r"[\d.,]*\d", row) for row in rows.findall(korean)]


def test_every_option_is_one():
    for command in commands(PAGES[0]):
        script, arguments = words_of(command)
        if script.endswith(("/pretrain.py", "/finetune.py")):
            parse = config_parser.parse if script.endswith("/pretrain.py") else finetuning_parser.parse
            parse([str(ROOT / word) if word.startswith("recipes/") else word for word in arguments], "")
            continue
        done = run_script(script, "--help", timeout=60)
        for word in arguments:
            if word.startswith("--"):
                assert re.search(rf"{word}\b", done.stdout), f"{script} has no {word}"


# Appended, so that each takes seconds.
SHORT = {
    "train_tokenizer.py": "--vocab_size 600",
    "pretrain.py": "--train.steps 2 --optim.warmup_steps 1 --eval.batches 1 --train.batch_tokens 512",
    "finetune.py": "--run.seeds 1 --task.train_rows 40 --train.epochs 1",
}
NOT_HERE = ("koelectra-base-domain.yaml", "--suite ")  # a hub, an hour: their options are looked at above


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_runs(tmp_path):
    """In order, because later commands use what earlier ones made."""
    for name in ("scripts", "recipes", "accelerate_configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_corpus(tmp_path / "general.txt", most=400)
    write_corpus(tmp_path / "all.txt")
    other = (tmp_path / "all.txt").read_text("utf-8").splitlines()[400:460]
    (tmp_path / "general_eval.txt").write_text("\n".join(other), encoding="utf-8")
    reviews = [
        (f"별점 {i % 10}점 영화 {'배우들의 연기도 훌륭했습니다' if i % 2 else '너무 지루해요 돈이 아깝다'} {i}", i % 2)
        for i in range(400)
    ]
    rows = "".join(f"{i},{text}\n" for i, (text, _) in enumerate(reviews))
    (tmp_path / "reviews.csv").write_text("id,sen\n" + rows, encoding="utf-8")
    for name, part in (("train", reviews[:300]), ("dev", reviews[300:350]), ("test", reviews[350:])):
        rows = "".join(f"{text}\t{label}\n" for text, label in part)
        (tmp_path / f"{name}.tsv").write_text("text\tlabel\n" + rows, encoding="utf-8")
    # "accelerate" and "python" of this environment, which need not be active.
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    ran = 0
    for command in commands(PAGES[0]):
        if any(part in command for part in NOT_HERE):
            continue
        script = words_of(command)[0].removeprefix("scripts/")
        words = of_this_python(shlex.split(command) + shlex.split(SHORT.get(script, "")))
        done = run_command(words, tmp_path, 300, PATH=path, OMP_NUM_THREADS="1", WANDB_MODE="disabled")
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        ran += 1
    assert ran >= 12
