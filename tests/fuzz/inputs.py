"""Good files with random damage, as hypothesis makes them: it finds the smallest damage that shows a fault."""

import json
from typing import Any

from hypothesis import strategies as st

AWKWARD = (
    *(
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n\n",
        b'"',
        b"\\",
        b"{",
        b"[" * 40,
        b"\t",
        b",",
        b"- ",
        b": ",
        b"&a *a",
    ),
    *(
        b"NaN",
        b"1e999",
        b"-1",
        b"null",
        b"true",
        b"\xed\xa0\x80",
        "\u2028".encode(),
        "\u0301".encode(),
        b"\x1b[2J",
        b"!!python/none",
    ),
)
# What a field may hold that should hold something else.
ODD_VALUES = (
    *(
        None,
        True,
        -1,
        0,
        2**63,
        1e308,
        float("nan"),
        float("inf"),
        0.5,
        "",
        "\x00",
        "a\nb",
        "\ud800",
        [],
        {},
        [None],
        {"": 1},
    ),
    *("x" * 300, [[]], "../../etc", "nan", "1e5", 10**40, {"a\x00b": 1}, {"\ud800": {"bytes": 1, "sha256": ""}}),
)


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """``good`` after up to three cuts, insertions, repetitions or changed bytes."""
    content = good
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(content)))
        end = min(len(content), begin + draw(st.integers(0, 40)))
        how = draw(st.sampled_from(["cut", "insert", "repeat", "change", "truncate"]))
        if how == "cut":
            content = content[:begin] + content[end:]
        elif how == "insert":
            content = content[:begin] + draw(st.sampled_from(AWKWARD) | st.binary(max_size=8)) + content[begin:]
        elif how == "repeat":
            content = content[:end] + content[begin:]
        elif how == "change":
            content = content[:begin] + draw(st.binary(max_size=4)) + content[begin + 4 :]
        else:
            content = content[:begin]
    return content


@st.composite
def odd_json(draw: st.DrawFn, good: Any) -> bytes:
    """``good`` with up to two fields that hold something odd, are missing, or are new."""
    value = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(0, 2))):
        value = _changed(draw, value)
    return json.dumps(value).encode()


def _changed(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict | list) and value and draw(st.integers(0, 4)):
        keys = sorted(value) if isinstance(value, dict) else range(min(len(value), 50))
        key = draw(st.sampled_from(keys))
        if not draw(st.integers(0, 3)):
            return (
                {k: v for k, v in value.items() if k != key}
                if isinstance(value, dict)
                else value[:key] + value[key + 1 :]
            )
        changed = _changed(draw, value[key])
        return value | {key: changed} if isinstance(value, dict) else [*value[:key], changed, *value[key + 1 :]]
    return draw(st.sampled_from(ODD_VALUES))


@st.composite
def odd_words(draw: st.DrawFn, names: list[str]) -> list[str]:
    """A command line of options that there are, with values of all kinds."""
    values = st.sampled_from([str(each) for each in ODD_VALUES if str(each).isprintable()]) | st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=6
    )
    numbers = st.sampled_from(["0", "1", "-1", "1e-3", "1e400", "99999999999999999999", ".5", "1_000", "0x10", "１"])
    words = []
    for _ in range(draw(st.integers(1, 4))):
        name, value = draw(st.sampled_from(names)), draw(values | numbers)
        words += draw(st.sampled_from([[f"--{name}={value}"], [f"--{name}", value], [f"--{name}"], [value]]))
    return words
