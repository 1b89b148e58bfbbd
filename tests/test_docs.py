"""README.md and docs/: links lead somewhere, and the files and tests that the pages name are there."""

import re

import pytest

from tests.helpers import ROOT

DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *DOCS]]
# What pages name as files of the reader, or of other projects.
READERS = {"recipes/my.yaml"}
TESTS = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))


def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def anchors(text: str) -> set[str]:
    """As GitHub makes them of the headings."""
    headings = re.findall(r"^#+ (.*)", re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = text_of(page)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        file = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text("utf-8")), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES)
def test_files_and_tests_that_a_page_names_exist(page):
    """Files by their whole path, such as scripts/pretrain.py; tests also by the name of the function."""
    text = text_of(page)
    folders = "electra_accel|scripts|tests|recipes|accelerate_configs|docs"
    named = set(re.findall(rf"(?<![\w/.-])((?:{folders})/[\w./-]+\.(?:py|yaml|md|sbatch|png))\b", text)) - READERS
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
    modules = {name.replace(".", "/") for name in re.findall(r"python -m ((?:electra_accel|tests)(?:\.\w+)+)", text)}
    assert [name for name in sorted(modules) if not (ROOT / f"{name}.py").is_file()] == []
    functions = set(re.findall(r"`(test_\w+)`", text))
    assert [name for name in sorted(functions) if f"def {name}(" not in TESTS] == []


def test_the_readme_is_short():
    """Its first screen says what, for whom, how and what came out; the tour is in docs/."""
    lines = text_of("README.md").splitlines()
    assert len(lines) <= 120
    assert [line for line in lines if len(line) > 120] == []
    assert "make test" in text_of("README.md")
