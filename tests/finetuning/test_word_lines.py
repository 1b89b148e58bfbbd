"""Lines of words as they are published: what stands between sentences is no word, and what looks like it may be one."""

import pytest

from electra_accel.errors import UserError
from electra_accel.finetuning.rows import read_file
from electra_accel.finetuning.tasks import load_task
from tests.finetuning.small import task

KLUE = """## a corpus of characters
## columns:\tcharacter

## klue-ner_00000\t<서울:LC>에서 만났다
서\tB-LC
울\tI-LC
 \tO
에\tO

## klue-ner_00001\t안녕
#\tO
안\tO
## klue-ner_00002\t없는 빈 줄
없\tO
"""
KMOU = """## 1
## 오에 겐자부로는 일본의
## <오에:PER>는
오에\t오에\tNNP\tB-PER
는\t는\tJX\tO

##\t##\tSW\tO
"""
CONLL_2003 = """-DOCSTART- -X- -X- O

# # I-NP O
Seoul NNP I-NP B-LOC
is VBZ I-VP O

# of rows = 2
#3 CD I-NP O
"""


def word(number, form, tag, misc="_"):
    return "\t".join([number, form, form, tag, *"____", "_", misc]) + "\n"


UD = "# newdoc\n# text = du # vin\n" + word("1-2", "du", "_") + word("1", "de", "ADP") + word("1.1", "x", "X")
UD += word("2", "le", "DET", "SpaceAfter=No") + word("3", "#", "SYM") + "\n# newpar\n" + word("1", "a b", "X") + "\n"
NAVER = "1\t비토리오\tPER_B\n2\t양일\tDAT_B\n\n1\t만에\t-\n"
FROM_ZERO = "0\tSeoul\tB-LOC\n1\tis\tO\n"
HASHTAGS = "#Seoul\tB-HASH\nis\tO\n\n#nice\tB-HASH\n"  # a tag that no other word has
FILES = {
    "klue.tsv": (
        KLUE,
        [(("서", "울", " ", "에"), ("B-LC", "I-LC", "O", "O")), (("#", "안"), ("O", "O")), (("없",), ("O",))],
    ),
    "kmou.txt": (KMOU, [(("오에", "는"), ("B-PER", "O")), (("##",), ("O",))]),
    "eng.train": (CONLL_2003, [(("#", "Seoul", "is"), ("O", "B-LOC", "O")), (("#3",), ("O",))]),
    "ud.conllu": (UD, [(("de", "le", "#"), ("ADP", "DET", "SYM")), (("a b",), ("X",))]),
    "naver.txt": (NAVER, [(("비토리오", "양일"), ("PER_B", "DAT_B")), (("만에",), ("-",))]),
    "zero.conll": (FROM_ZERO, [(("Seoul", "is"), ("B-LOC", "O"))]),
    "tweets.tsv": (HASHTAGS, [(("#Seoul", "is"), ("B-HASH", "O")), (("#nice",), ("B-HASH",))]),
    "one.tsv": ("1\tCD\tO\n", [(("1",), ("O",))]),  # a number is a word too
    "count.tsv": ("1\tO\n2\tO\n", [(("1", "2"), ("O", "O"))]),
}
TOLD = {
    "klue.tsv": ["5 comment lines"],
    "kmou.txt": ["3 comment lines"],
    "eng.train": ["1 -DOCSTART- lines", "1 comment lines"],
    "ud.conllu": ["3 comment lines", "2 ranges and empty nodes", "from the second", "the fourth (UPOS)"],
    "naver.txt": ["from the second, their tags from the last"],
    "zero.conll": ["from the second"],
}


@pytest.mark.parametrize("name", FILES)
def test_words_and_what_is_none(tmp_path, name):
    content, wanted = FILES[name]
    (tmp_path / name).write_text(content)
    told = []
    assert [
        tuple(row) for row in read_file(tmp_path / name, task(kind="tagging", metric="accuracy"), told.append)
    ] == wanted
    assert all(words in " ".join(told) for words in [name, *TOLD[name]]) if name in TOLD else told == []


def test_what_was_passed_over_is_told(tmp_path):
    """Where a run prints its rows, and in its table; and that a blank within an entity has no token."""
    path = tmp_path / "klue.tsv"
    path.write_text("".join(f"## {i}\t문장 하나\n서\tB-LC\n \tI-LC\n{i}\tI-LC\n \tO\n\n" for i in range(40)))
    data = load_task(task(kind="tagging", train_file=str(path)))
    assert data.kind.labels == ("B-LC", "I-LC", "O") and "klue.tsv: passed over 40 comment lines" in data.notes
    number = len(data.splits["train"])
    assert any(note.startswith(f"{number} words of train are blanks with a tag") for note in data.notes)


def test_tags_have_one_way_of_writing(tmp_path):
    (tmp_path / "a.tsv").write_text("w\tB-장소\nv\tB-\u1103\u1161\n\nw\tB-장\u200b소 \nv\tB-다\n")
    rows = read_file(tmp_path / "a.tsv", task(kind="tagging"))
    assert rows[0].label == rows[1].label == ("B-장소", "B-다")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a\tO\n; a sentence of words\nb\tO\n", "line 2: no tab in '; a sentence"),
        ("a\tO\nb\tO\n\nc\n", "line 4: no tab in 'c'"),
        ("1\ta\tO\n2\tb\t\n", "line 2: no tag behind the word"),
        ("a\tO\nb\t\u200b\n", "line 2: no tag behind the word"),
        ("# only\n# comments of a file\n", "holds no rows"),
        ("철수\tNNP\n가\tJKS\n\n#sent_1\t철수가\n철수\tNNP\n", "line 4: '#sent_1.*철수가' is a word, or a comment"),
    ],
)
def test_a_line_that_is_neither_is_named(tmp_path, content, said):
    (tmp_path / "a.conll").write_text(content)
    with pytest.raises(UserError, match=f"a.conll.* {said}"):
        read_file(tmp_path / "a.conll", task(kind="tagging", metric="accuracy"))
