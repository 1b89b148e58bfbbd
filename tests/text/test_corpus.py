"""Every format reads to the same texts; every broken file is named with its line."""

import codecs
import gzip
import hashlib
import json
import lzma
import os
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from electra_accel.errors import UserError
from electra_accel.finetuning.config import Task
from electra_accel.finetuning.rows import read_file
from electra_accel.text.corpus import Corpus, content_key, read_documents, resolve, text_bytes
from electra_accel.text.files import regular_file
from tests.helpers import run_script, shared_data

TEXTS = ['한 줄의 글, 쉼표와 "따옴표"도 있다', "NA", "007", "a second text", "끝"]


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def read(*files: str | Path, column: str = "sen", join_lines: bool = False) -> list[str]:
    corpus = Corpus(files=tuple(map(str, files)), text_column=column)
    return [text for batch in read_documents(corpus, join_lines) for text in batch.documents]


def content(suffix: str) -> bytes:
    quoted = ['"' + text.replace('"', '""') + '"' for text in TEXTS]
    if suffix == ".txt":
        return "\n".join(TEXTS).encode()
    if suffix == ".csv":
        return ("id,sen\r\n" + "".join(f"{n},{cell}\r\n" for n, cell in enumerate(quoted))).encode("utf-8-sig")
    if suffix == ".tsv":
        return ("id\tsen\n" + "".join(f"{n}\t{cell}\n" for n, cell in enumerate(quoted))).encode()
    if suffix == ".json":
        return json.dumps([{"sen": text, "id": n} for n, text in enumerate(TEXTS)], indent=1).encode()
    if suffix == ".jsonl":
        return "".join(json.dumps({"sen": text}) + "\n\n" for text in TEXTS).encode()
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"id": list(range(5)), "sen": TEXTS}), sink, row_group_size=2)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("compression", ["", ".gz", ".xz"])
@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_texts(tmp_path, suffix, compression):
    raw = content(suffix)
    compressed = {"": raw, ".gz": gzip.compress(raw), ".xz": lzma.compress(raw)}[compression]
    assert read(write(tmp_path / f"a{suffix}{compression}", compressed)) == TEXTS


def test_lines_and_blocks_of_plain_text(tmp_path):
    file = write(tmp_path / "a.txt", "one\r\n two \r\n\r\n\r\nthree\u2028still three")
    assert read(file) == ["one", "two", "three\u2028still three"]
    assert read(file, join_lines=True) == ["one\ntwo", "three\u2028still three"]
    long = write(tmp_path / "book.txt", "A line of the book.\n" * 5000)
    blocks = read(long, join_lines=True)
    assert "\n".join(blocks) == "\n".join(["A line of the book."] * 5000)
    assert 10 < len(blocks) and max(map(len, blocks)) < 10_000


def test_other_columns_may_have_one_name(tmp_path):
    assert read(write(tmp_path / "a.csv", "n,sen,n\n1,x,2\n")) == ["x"]


def test_cells_without_text_are_empty_strings(tmp_path):
    assert read(write(tmp_path / "a.csv", 'sen,n\n,1\nx,2\n\n"",3\n')) == ["", "x", ""]
    assert read(write(tmp_path / "a.jsonl", '{"sen": null}\n{"n": 1}\n{"sen": "x"}\n')) == ["", "", "x"]
    assert read(write(tmp_path / "cut.jsonl", '{"sen": "half \\ud83d character"}\n')) == ["half \ufffd character"]


def test_a_json_array_may_stand_behind_a_mark_and_blank_lines(tmp_path):
    for head in ("", "\n", "\n \t\r\n", "\ufeff", "\ufeff\n\n"):
        for suffix in (".json", ".jsonl"):
            assert read(write(tmp_path / f"a{suffix}", head + '[{"sen": "x"},\n{"sen": "y"}]\n\n')) == ["x", "y"]
            assert read(write(tmp_path / f"b{suffix}", head + '{"sen": "x"}\n{"sen": "y"}')) == ["x", "y"]


def test_a_zero_byte_here_and_there_is_text(tmp_path):
    """As in logs; a file of UTF-16 has more."""
    text = "some \0 text of a log\n" * 999
    assert len(read(write(tmp_path / "a.txt", text))) == 999
    with pytest.raises(UserError, match="line 1000: not UTF-8.*cp949"):
        read(write(tmp_path / "a.txt", text.encode() + "나쁘다".encode("cp949")))


def test_json_reads_what_python_can(tmp_path):
    """Numbers up to Python's limit, NaN and Infinity, half characters in names: in fields that are not asked for."""
    others = f'"n": {"9" * 4300}, "x": NaN, "y": -Infinity, "\\ud800": "\\udc00", "d": {"[" * 500}{"]" * 500}'
    assert read(write(tmp_path / "a.jsonl", f'{{"sen": "\\ud800x", {others}}}\n')) == ["\ufffdx"]


def test_a_field_may_appear_late_and_others_may_change_their_type(tmp_path):
    lines = [json.dumps({"sen": "x" * 100, "meta": n}) for n in range(2000)] + [
        '{"sen": "last", "meta": "s", "new": [1]}'
    ]
    assert read(write(tmp_path / "a.jsonl", "\n".join(lines)))[-1] == "last"


def test_quotes_in_tab_separated_text(tmp_path):
    rows = ['"all ""of"" it"\t1', '"only a part" of it\t2', 'in the "middle\t3']
    file = write(tmp_path / "a.tsv", "sen\tn\n" + "\n".join(rows) + "\n")
    assert read(file) == ['all "of" it', '"only a part" of it', 'in the "middle']


def test_globs_are_sorted_and_files_are_read_once(tmp_path):
    for name in ("b", "a", "c[1]"):
        write(tmp_path / f"{name}.txt", name)
    assert read(tmp_path / "*.txt", tmp_path / "a.txt") == ["a", "b", "c[1]"]
    assert read(tmp_path / "c[1].txt") == ["c[1]"]
    assert resolve(Corpus(files=(str(tmp_path / "**/a.*"),))) == [tmp_path / "a.txt"]
    (tmp_path / "z.txt").symlink_to(tmp_path / "a.txt")
    (tmp_path / "more").mkdir()
    assert read(tmp_path / "*.txt", tmp_path / "more" / ".." / "b.txt") == ["a", "b", "c[1]"]


BROKEN = [
    ("a.txt", b"fine\nfine\nnot \xff fine\n", ["line 3", "UTF-8"]),
    ("a.csv", "sen,n\n좋다,1\n나쁘다,2\n".encode("cp949"), ["line 2", "cp949"]),
    ("a.txt", "좋다\n나쁘다\n".encode("utf-16"), ["UTF-16", "iconv -f utf-16 "]),  # Excel's "Unicode text"
    ("a.tsv", codecs.BOM_UTF16_BE + "sen\n좋다\n".encode("utf-16be"), ["UTF-16", "iconv -f utf-16 "]),
    ("a.csv", b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(range(256)) * 8, ["zip", "xlsx"]),
    ("a.txt", gzip.compress(b"text", mtime=0), ["gzip"]),
    ("a.txt", "English text\n".encode("utf-16le"), ["UTF-16", "iconv -f utf-16le "]),
    ("a.csv", "sen,n\n좋다,1\n나쁘다,2\n".encode("utf-16be"), ["UTF-16", "iconv -f utf-16be "]),
    ("a.jsonl", '{"sen": "좋다"}\n'.encode("utf-32"), ["UTF-32", "iconv -f utf-32 "]),
    ("a.json", '[{"sen": "English"}]'.encode("utf-32be"), ["UTF-32", "iconv -f utf-32be "]),
    ("a.txt.gz", gzip.compress("좋다, 나쁘다\n".encode("utf-16"), mtime=0), ["UTF-16"]),
    ("a.csv", '"id";"sen"\n1;"좋다, 아주"\n', ["line 1", "semicolons"]),
    ("a.csv", 'id;sen\n1;"좋다"\n', ["one column", "semicolons"]),
    ("a.csv", "id\tsen\n1\tx\n", ["one column", "tabs"]),
    ("a.csv", '"id"|"sen"\n1|"x"\n', ["line 1", "the sign |"]),
    ("a.csv", '"id","sen"\n1,"x;y;z\n', ["line 2", "quote"]),
    ("a.json", '\n\n[{"sen": "a"},\n{"sen" "b"}]', ["line 4", "json", "column 8"]),
    ("a.jsonl", '\n{"sen": "a"}\n{"sen" "b"}\n', ["line 3", "json", "column 8", "one array"]),
    ("a.jsonl", '{"sen": "a"}\n{"n": ' + "9" * 4301 + "}\n", ["line 2", "4,300 digits"]),
    ("a.json", '[{"sen": "a"}, {"n": ' + "-" + "9" * 4301 + "}]\n", ["4,300 digits"]),
    ("a.jsonl", '{"sen": "a"}\n{"n": ' + "[" * 200_000 + "]" * 200_000 + "}\n", ["line 2", "nested too deeply"]),
    ("a.json", '[{"sen": "a"}, ' + '{"n":' * 200_000 + "1" + "}" * 200_001 + "]\n", ["nested too deeply"]),
    ("a.csv", "n,sen\n1,x\n\n2,b,c\n", ["line 4", "3 cells where the header has 2"]),
    ("a.csv", "n,sen\n1,x\n2\n", ["line 3", "1 cells"]),
    ("a.csv", 'n,sen\n1,"two\nlines"\n2,"open\n3,x\n', ["line 4", "quote"]),
    ("a.tsv", 'n\tsen\n1\tx\n2\t"tab\there"\n', ["line 3", "3 cells"]),
    ("a.jsonl", '{"sen": "a"}\n{"sen": "b"\n{"sen": "c"}\n', ["line 2", "json"]),
    ("a.jsonl", '{"sen": "a"}\n{"sen": ["b"]}\n', ["line 2", "list"]),
    ("a.json", '[{"sen": "a"},\n{"sen": "b"', ["line 2", "json"]),
    ("a.jsonl", b'{"sen": "a"}\n{"sen": "\xff"}\n', ["line 2", "UTF-8"]),
    ("a.parquet", b"no parquet at all", ["parquet"]),
    ("a.txt", "", ["empty"]),
    ("a.txt.gz", gzip.compress(b"", mtime=0), ["empty"]),
    ("a.txt.gz", gzip.compress(b"text " * 999, mtime=0)[:30], ["cut-off"]),
    ("a.txt.gz", b"text", ["damaged"]),
    ("a.txt.xz", lzma.compress(bytes(range(256)) * 99)[:60], ["cut-off"]),
    ("a.csv", "id,text,label\n1,x,0\n", ["'sen'", "id, text, label", "data.text_column"]),
    ("a.csv", "sen,n,sen\n1,x,0\n", ["2 columns are called 'sen'", "rename"]),
    ("a.tsv", "sen\tn\tsen\tsen\n1\tx\t0\t0\n", ["3 columns are called 'sen'", "rename"]),
    ("a.jsonl", '{"id": 1, "text": "x"}\n', ["'sen'", "id, text", "data.text_column"]),
    ("a.zip", "x", [".parquet", ".xz"]),
]


@pytest.mark.parametrize("name, content, said", BROKEN)
def test_broken_files_are_named_in_one_line(tmp_path, name, content, said):
    with pytest.raises(UserError) as caught:
        read(write(tmp_path / name, content))
    message = str(caught.value)
    assert all(part in message for part in [str(tmp_path / name), *said]), message
    assert "\n" not in message


def test_missing_files_and_columns(tmp_path):
    table = pyarrow.table({"id": [1], "text": ["x"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no column 'sen'; it has: id, text"):
        read(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="id,sen, one column: .* commas"):
        read(write(tmp_path / "commas.tsv", "id,sen\n1,good\n"))
    with pytest.raises(UserError, match="'id' holds int64"):
        read(tmp_path / "a.parquet", column="id")
    pyarrow.parquet.write_table(table.rename_columns(["sen", "sen"]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="a.parquet: 2 columns are called 'sen'"):
        read(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="none.txt: no such file"):
        read(tmp_path / "none.txt")
    with pytest.raises(UserError, match="none.*no file that matches"):
        read(tmp_path / "none*.csv")
    with pytest.raises(UserError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(UserError, match="either files"):
        resolve(Corpus())


def no_files(folder: Path, suffix: str) -> dict[str, str]:
    """Everything under a name of ``suffix`` that is there and is no file to read, and what is said of it."""
    (folder / f"dangling{suffix}").symlink_to("gone")
    (folder / f"loop{suffix}").symlink_to(f"loop{suffix}")
    os.mkfifo(folder / f"pipe{suffix}")
    (folder / f"device{suffix}").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(folder / f"socket{suffix}"))  # whose names are short
    (folder / f"folder{suffix}").mkdir()
    said = {"dangling": "a link to gone", "loop": "cannot be read", "folder": "is a folder"}
    return {f"{name}{suffix}": said.get(name, "is a pipe") for name in ("pipe", "device", "socket", *said)}


@pytest.mark.timeout(30)
def test_what_is_there_and_is_no_file_is_named_and_never_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.txt", "some text")
    for name, said in no_files(tmp_path, ".txt").items():
        for pattern in (name, f"[{name[0]}]{name[1:]}"):  # alone, and found by a glob
            for use in (resolve, content_key, text_bytes, lambda corpus: list(read_documents(corpus))):
                with pytest.raises(UserError, match=f"^{name}.*{said}"):
                    use(Corpus(files=("a.txt", pattern)))
    for name, said in no_files(tmp_path, ".jsonl").items():
        with pytest.raises(UserError, match=f"^{name}.*{said}"):
            read_file(Path(name), Task(kind="classification", text_columns=["text"], label_column="label"))


def test_a_file_that_vanishes_is_named(tmp_path, monkeypatch):
    """Between the glob and the reading."""
    file = Path(write(tmp_path / "a.txt", "some text"))
    found = regular_file(file)
    file.unlink()
    monkeypatch.setattr("electra_accel.text.corpus.regular_file", lambda path: found)
    monkeypatch.setattr("electra_accel.text.files.regular_file", lambda path: found)
    (tmp_path / "link.txt").symlink_to("a.txt")
    for use in (content_key, lambda corpus: list(read_documents(corpus))):
        for name, said in (("a.txt", "no such file"), ("link.txt", "a link to a.txt")):
            monkeypatch.setattr("electra_accel.text.corpus.resolve", lambda corpus: [Path(corpus.files[0])])
            with pytest.raises(UserError, match=f"{name}: {said}"):
                use(Corpus(files=(str(tmp_path / name),)))


@pytest.mark.skipif(os.geteuid() != 0, reason="permissions bind everybody but root; root can become somebody else")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o755)
    folder = tmp_path / "closed"
    folder.mkdir()
    write(folder / "a.txt", "text")
    program = (
        "import os, sys\n"
        "from electra_accel.text.corpus import Corpus, resolve\n"
        "os.chdir(sys.argv[1]); os.setuid(65534)\n"
        "try: resolve(Corpus(files=(sys.argv[2],)))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    for mode, pattern in (
        (0o700, "closed/a.txt"),
        (0o700, "closed/*.txt"),
        (0o700, "closed/**/b"),
        (0o711, "closed/*.txt"),
    ):
        folder.chmod(mode)
        done = run_script("-c", program, tmp_path, pattern)
        assert done.stdout == f"UserError {pattern}: no permission to look into closed\n", done.stderr


def test_the_hub_out_of_reach_is_one_quick_line():
    code = (
        "from electra_accel.text.corpus import *\n"
        "try: list(read_documents(Corpus(dataset='someone/some-data:ko')))\n"
        "except UserError as error: print(error)"
    )
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "PATH": ""}  # nothing listens there
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (
        done.stdout.startswith("someone/some-data:ko: the Hugging Face hub cannot be reached")
        and done.stdout.count("\n") == 1
    )
    assert not done.stderr


def test_content_key_follows_bytes_not_names(tmp_path):
    one = write(tmp_path / "one.txt", "some text")
    two = write(tmp_path / "two.txt", "some text")
    assert content_key(Corpus(files=(one,))) == content_key(Corpus(files=(two,)))
    write(tmp_path / "two.txt", "some test")
    assert content_key(Corpus(files=(one,))) != content_key(Corpus(files=(two,)))


def test_text_bytes_of_compressed_files(tmp_path):
    text = "".join(
        f"{hashlib.md5(str(n).encode()).hexdigest()}\n" for n in range(200_000)
    ).encode()  # not read to its end
    for suffix, compressed in ((".gz", gzip.compress(text, 1)), (".xz", lzma.compress(text, preset=0))):
        estimate = text_bytes(Corpus(files=(write(tmp_path / f"a.txt{suffix}", compressed),)))
        assert 0.8 < estimate / len(text) < 1.25


def test_real_csv_and_xz():
    texts = read(shared_data("corpora/ko_book_reviews_02.csv"), column="내용")
    assert len(texts) == 252 and min(map(len, texts)) > 100
    corpus = Corpus(files=(str(shared_data("corpora/nsmc_reviews.csv.xz")),), text_column="sen")
    assert next(read_documents(corpus)).documents[0] == "전체관람가는 아닌것 같아요"
