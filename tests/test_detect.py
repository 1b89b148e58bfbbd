"""detect.py on a real, if very short, run: what it says is what stock transformers says."""

import io
import json
import shutil
import subprocess
import sys
import unicodedata

import pytest
import torch
from transformers import AutoTokenizer, ElectraForMaskedLM, ElectraForPreTraining

from electra_accel.reports.detect import Detector, Reading
from electra_accel.reports.detect_views import html, terminal_lines
from tests.helpers import ROOT, run_in_process
from tests.pretraining_runs import options, run_here, write_corpus

MAX_LENGTH = 24
KOREAN = [
    "바다를 건너온 이야기가 마을에 남았다",
    "산 너머 도서관에는 오래된 책이 많다",
    "아이는 책을 읽고 바다를 그렸다",
]
TEXTS = ["The name of the module is [MASK] in the import statement.", "아이는 [MASK]를 읽고 [MASK]를 그렸다", "class"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with a finished run ``run`` whose text is English and Korean, and folders with one fault each."""
    folder = tmp_path_factory.mktemp("detect")
    write_corpus(folder / "text.txt", most=400)
    with open(folder / "text.txt", "a", encoding="utf-8") as file:
        file.write("".join(f"\n{line} {number}" for number in range(40) for line in KOREAN))
    short = {
        "train__steps": 4,
        "optim__warmup_steps": 1,
        "data__max_length": MAX_LENGTH,
        "train__batch_tokens": 20 * MAX_LENGTH,
        "eval__batches": 1,
    }
    words = options("text.txt", folder / "run", **short)
    done = run_in_process("pretrain.py", *words, cwd=folder, WANDB_MODE="disabled")
    assert done.returncode == 0, done.stdout + done.stderr
    for copy, without in (
        ("damaged", ("model.safetensors",)),
        ("bare", ("tokenizer.json", "tokenizer_config.json", "vocab.txt")),
    ):
        shutil.copytree(folder / "run" / "discriminator", folder / copy, ignore=shutil.ignore_patterns(*without))
    (folder / "damaged" / "model.safetensors").write_bytes(b"no weights")
    (folder / "unfinished").mkdir()
    (folder / "alone" / "encoder").mkdir(parents=True)
    (folder / "zero.jsonl").write_text('{"text": "\\u200b"}\n{"text": ""}\n')
    config = (folder / "run" / "config.yaml").read_text("utf-8")
    (folder / "alone" / "config.yaml").write_text(config.replace("kind: rtd", "kind: mlm"), "utf-8")
    return folder


@pytest.fixture
def detect(place, monkeypatch, capfd):
    return lambda *arguments: run_here(arguments, place, monkeypatch, capfd, "detect.py")


@torch.no_grad()
def said_by_transformers(run, text: str, top_k: int):
    """Tokens, probabilities and candidates by nothing but transformers: the tokenizer's own [CLS] and [SEP], its own mask."""
    tokenizer = AutoTokenizer.from_pretrained(run / "discriminator")
    inputs = tokenizer(text, return_tensors="pt")
    masked = inputs.input_ids == tokenizer.mask_token_id
    said = ElectraForMaskedLM.from_pretrained(run / "generator").eval()(**inputs).logits[masked].softmax(-1).topk(top_k)
    inputs["input_ids"][masked] = said.indices[:, 0]
    logits = ElectraForPreTraining.from_pretrained(run / "discriminator").eval()(**inputs).logits
    candidates = [
        {"token": token, "probability": pytest.approx(p, abs=1e-5)}
        for tokens, row in zip(said.indices, said.values.tolist())
        for token, p in zip(tokenizer.convert_ids_to_tokens(tokens.tolist()), row)
    ]
    tokens = tokenizer.convert_ids_to_tokens(inputs.input_ids[0].tolist())[1:-1]
    return tokens, torch.sigmoid(logits)[0, 1:-1].tolist(), candidates


def test_json_says_what_transformers_says(place, detect):
    code, out, err = detect("--run", "run", "--json", "--top_k", 3, *TEXTS)
    assert code == 0, err
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["text"] for record in records] == TEXTS
    for record in records:
        tokens, probability, candidates = said_by_transformers(place / "run", record["text"], 3)
        assert record["tokens"] == tokens and "[MASK]" not in tokens and "[UNK]" not in tokens
        assert record["probability"] == pytest.approx(probability, abs=1e-5)
        assert [best for mask in record["masks"] for best in mask["candidates"]] == candidates
        for mask in record["masks"]:
            assert tokens[mask["token"]] == mask["candidates"][0]["token"]
    assert [len(record["masks"]) for record in records] == [1, 2, 0]


def test_macos_korean_reads_as_typed_korean(detect):
    """Hangul in single letters (NFD), as macOS writes it."""
    _, out, _ = detect("--run", "run", "--json", "책이 많다", unicodedata.normalize("NFD", "책이 많다"))
    typed, decomposed = map(json.loads, out.splitlines())
    assert typed["tokens"] == decomposed["tokens"] and "[UNK]" not in typed["tokens"]


def test_a_long_text_is_read_in_pieces_cut_before_words(place):
    detector = Detector(str(place / "run" / "discriminator"), None, max_length=MAX_LENGTH)
    text = " ".join(line.strip() for line in (place / "text.txt").read_text("utf-8").splitlines()[:12])
    reading = detector.read(text, 1)
    assert reading.tokens == detector.tokenizer.tokenize(text)
    assert len(reading.probability) == len(reading.tokens) and reading.pieces > 5
    pieces = list(detector._pieces(detector.tokenizer(text, add_special_tokens=False)["input_ids"]))
    firsts = [detector.tokenizer.convert_ids_to_tokens(piece[0]) for piece in pieces]
    assert max(map(len, pieces)) <= MAX_LENGTH - 2 and not [token for token in firsts if token.startswith("##")]


def test_texts_come_from_a_file_or_from_standard_input(place, detect, monkeypatch):
    (place / "new.csv").write_text("id,sen\n1,a class\n2,\n3,책이 많다\n", encoding="utf-8")
    code, out, err = detect("--run", "run", "--json", "--file", "new.csv", "--text_column", "sen")
    assert (code, [json.loads(line)["text"] for line in out.splitlines()]) == (0, ["a class", "책이 많다"]), err
    give_stdin(monkeypatch, "a class\n\n책이 많다\n".encode())
    assert detect("--run", "run", "--json") == (0, out, err)


def give_stdin(monkeypatch, content: bytes, encoding: str = "utf-8") -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding))


EMPTY = "\u200b\u200d", "\u0001\u0002", "\ufeff", "\u00ad\u2060"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "ascii", "ANSI_X3.4-1968"]
)  # the last is what a POSIX locale calls itself
def test_texts_without_anything_to_read_are_left_out_and_named(place, detect, monkeypatch, encoding):
    texts = ["책이 많다", *EMPTY, "", "a class"]
    (place / "zero.txt").write_text("\n".join(texts), encoding="utf-8")
    (place / "zero.csv").write_text(
        "n,text\n" + "".join(f"{n},{text}\n" for n, text in enumerate(texts)), encoding="utf-8"
    )
    give_stdin(monkeypatch, "\ufeff".encode() + "\n".join(texts).encode(), encoding)
    arguments = ["책이 많다", *EMPTY, "a class"]
    for source, places in (
        (["--file", "zero.txt"], [f"zero.txt, line {n}" for n in (2, 3, 4, 5)]),
        (["--file", "zero.csv"], [f"zero.csv, line {n}" for n in (3, 4, 5, 6)]),
        (["--file", "zero.*v"], ["zero.csv, line 6"]),
        ([], [f"line {n}" for n in (2, 3, 4, 5)]),
        (arguments, [f"text {n}" for n in (2, 3, 4, 5)]),
    ):
        code, out, err = detect("--run", "run", "--json", *source)
        assert (code, [json.loads(line)["text"] for line in out.splitlines()]) == (0, ["책이 많다", "a class"]), err
        note, _ = err.splitlines()  # and how many tokens are unknown
        assert "4 of 6 texts" in note and all(name in note for name in places), err
    code, out, err = detect("--run", "run", *EMPTY)
    assert (code, out, err.count("\n")) == (2, "", 1) and "text 4" in err and r"\xad\u2060" in err


def test_many_left_out_texts_are_one_short_line(place, detect, monkeypatch):
    give_stdin(monkeypatch, b"a\n" + "\u200b\n".encode() * 1000)
    code, _, err = detect("--run", "run", "--json")
    assert code == 0 and "1000 of 1001" in err and "line 2;" in err and len(err.splitlines()[0]) < 200


def test_standard_input_that_is_not_utf8_is_named_with_its_line(detect, monkeypatch):
    give_stdin(monkeypatch, "a class\n나쁘다\n".encode("cp949"))
    code, _, err = detect("--run", "run", "--json")
    assert code == 2 and "line 2" in err and "cp949" in err and err.count("\n") == 1
    for encoding in ("utf-16", "utf-16le"):
        give_stdin(monkeypatch, "a class\n책\n".encode(encoding))
        code, _, err = detect("--run", "run", "--json")
        assert code == 2 and f"iconv -f {encoding} " in err and "cp949" not in err and err.count("\n") == 1
    give_stdin(monkeypatch, "a class\n책이 많다\n".encode("euc-kr"), "euc-kr")
    code, out, _ = detect("--run", "run", "--json")
    assert code == 0 and json.loads(out.splitlines()[1])["text"] == "책이 많다"


def test_a_person_reads_it_without_colour_and_a_pipe_gets_none(place, detect, monkeypatch):
    code, out, err = detect("--run", "run", *TEXTS[:2])
    assert code == 0 and "\x1b" not in out, err
    tokens, probability, _ = said_by_transformers(place / "run", TEXTS[1], 1)
    called = sum(p > 0.5 for p in probability)
    assert f"text 2: {called} of {len(tokens)} tokens called replaced" in out
    assert out.count("[MASK] as token") == 3 and f"{probability[0]:.2f}"[1:] in out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in detect("--run", "run", TEXTS[0])[1]


READING = Reading(
    text="책 <script>alert(1)</script>",
    tokens=["책", "##이", "<script>", "\x1b[31m", "a" * 30],
    probability=[0.04, 0.51, 0.5, 0.97, 1.0],
    candidates=[(2, [("<script>", 0.6), ("b", 0.1)])],
    pieces=1,
)


def test_lines_fit_and_columns_stand_under_each_other():
    lines = list(terminal_lines(READING, width=30))
    assert [line.plain for line in lines] == [
        "책  ##이! [<script>] \ufffd[31m!",
        ".04 .51   .50        .97",
        "a" * 30 + "!",
        "1.00",
        "  [MASK] as token 3: <script> 0.60  b 0.10",
    ]  # a Hangul syllable is two cells wide
    assert {str(span.style) for span in lines[0].spans} == {"black on #f6a560", "black on #f2705a"}


def test_the_page_shows_text_as_text():
    page = html([READING])
    assert "<script>alert" not in page and "[<script>]" not in page
    assert "[&lt;script&gt;]" in page and ">이!</span>" in page and "##" not in page.split("<main>")[1]


def test_html_is_written(place, detect):
    code, out, _ = detect("--run", "run", "--html", "page.html", *TEXTS)
    page = (place / "page.html").read_text(encoding="utf-8")
    assert code == 0 and page.count("<section") == 3 and "most probable, by the generator" in page


MISTAKES = {
    "no pair": (["a text"], ["--run", "--discriminator"]),
    "two pairs": (["--run", "run", "--discriminator", "x", "a"], ["--run", "--discriminator"]),
    "a generator beside a run": (["--run", "run", "--generator", "x", "a"], ["--generator"]),
    "no such run": (["--run", "nowhere", "a"], ["--run nowhere"]),
    "a run without exports": (["--run", "unfinished", "a"], ["--run unfinished", "discriminator/", "--discriminator"]),
    "one network": (["--run", "alone", "a"], ["--run alone", "one network was trained (objective.kind mlm)"]),
    "not a discriminator": (["--discriminator", "run/generator", "a"], ["--discriminator", "run/generator"]),
    "no such folder": (["--discriminator", "./nowhere", "a"], ["--discriminator", "./nowhere"]),
    "damaged weights": (["--discriminator", "damaged", "a"], ["--discriminator", "damaged"]),
    "no tokenizer": (["--discriminator", "bare", "a"], ["--discriminator", "bare", "tokenizer"]),
    "no generator for a mask": (["--discriminator", "run/discriminator", "a [MASK]"], ["--generator"]),
    "empty text": (["--run", "run", " "], ["' '"]),
    "empty texts in a file": (["--run", "run", "--file", "zero.jsonl"], ["zero.jsonl, line 1", r"\u200b"]),
    "broken UTF-8": (["--run", "run", "a\udcff"], ["UTF-8"]),
    "no such file": (["--run", "run", "--file", "nowhere.txt"], ["nowhere.txt"]),
    "texts and a file": (["--run", "run", "--file", "text.txt", "a"], ["--file"]),
    "top_k": (["--run", "run", "--top_k", "0", "a"], ["--top_k"]),
    "unknown option": (["--run", "run", "--topk", "3", "a"], ["--topk"]),
    "page in no folder": (["--run", "run", "--html", "nowhere/x.html", "a"], ["--html nowhere/x.html"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(detect, name):
    arguments, words = MISTAKES[name]
    code, _, err = detect(*arguments)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1, err
    for word in words:
        assert word in err


@pytest.mark.parametrize("script", ["detect.py", "evaluate.py"])
def test_help_comes_at_once(script):
    """Without torch and transformers, which take seconds to import."""
    program = (
        "import atexit, runpy, sys; atexit.register(lambda: print({'torch', 'transformers', 'numpy'} & set(sys.modules))); "
        "sys.argv = [sys.argv[1], '--help']; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", program, str(ROOT / "scripts" / script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "--run" in done.stdout and done.stdout.endswith("set()\n"), done.stderr
