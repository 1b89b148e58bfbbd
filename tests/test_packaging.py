"""A fresh installation has what the code imports, in versions that were tested."""

import ast
import configparser
import re
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers import ROOT

MODULE_OF = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}


def requirements(section: str, key: str) -> list[Requirement]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return [Requirement(line) for line in config[section][key].split("\n") if line]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def third_party(folder: Path) -> set[str]:
    """First names of all modules that the files of a folder import, without the standard library and our own.

    A script may import its neighbours.
    """
    found, neighbours = set(), {path.stem for path in (ROOT / "scripts" / "benchmarks").glob("*.py")}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            found |= {name.split(".")[0] for name in names}
    return found - sys.stdlib_module_names - {"electra_accel", "tests"} - neighbours


def test_pins_lie_in_the_ranges():
    known = pins()
    required = requirements("options", "install_requires")
    required += requirements("options.extras_require", "test") + requirements("options.extras_require", "deepspeed")
    assert len(required) > 15
    for requirement in required:
        assert requirement.specifier.contains(known[canonicalize_name(requirement.name)]), requirement


def test_make_installs_the_pinned_torch():
    asked = re.search(r"install .* torch==(\S+);", (ROOT / "Makefile").read_text("utf-8"))
    assert asked[1] == pins()["torch"]


def test_every_import_is_declared():
    names = [requirement.name for requirement in requirements("options", "install_requires")]
    declared = {MODULE_OF.get(name, name) for name in names}
    assert (third_party(ROOT / "electra_accel") | third_party(ROOT / "scripts")) - declared <= {"deepspeed", "pytest"}
    names = [requirement.name for requirement in requirements("options.extras_require", "test")]
    assert third_party(ROOT / "tests") - declared <= {MODULE_OF.get(name, name) for name in names}
