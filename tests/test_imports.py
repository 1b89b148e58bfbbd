"""The house rules that a reader relies on: imports point one way, optional packages stay optional, files stay short."""

import ast
import graphlib
import re
from pathlib import Path

from tests.helpers import ROOT

PACKAGE = ROOT / "electra_accel"
# From the ground up. A file imports what stands before it here; files of one folder import each other without a circle.
ORDER = [
    *("errors", "json_text", "randomness", "batch", "intervals", "paired", "cli", "terminal"),
    *("options", "text", "data", "model", "engines", "runs", "tracking", "pretraining", "finetuning", "reports"),
]
MAX_LINES = 320


def modules() -> dict[str, Path]:
    """``{"data.plan": path}`` of every file of the package but the package markers."""
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in files}


def imports(path: Path) -> set[str]:
    """The modules of our package that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("electra_accel.") for name in found if name.startswith("electra_accel.")}


def test_imports_point_one_way():
    graph = {name: imports(path) & set(modules()) for name, path in modules().items()}
    assert sum(map(len, graph.values())) > 20
    level = {name: ORDER.index(name.split(".")[0]) for name in graph}
    assert [f"{a} imports {b}" for a, others in graph.items() for b in others if level[b] > level[a]] == []
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_no_job_imports_another():
    for a, b in (("pretraining", "finetuning"), ("finetuning", "pretraining")):
        files = [path for name, path in modules().items() if name.startswith(f"{a}.")]
        assert len(files) > 10
        assert [path.name for path in files if any(name.startswith(b) for name in imports(path))] == []


def test_packages_hold_nothing_but_modules():
    """So that an import of a package never hides an import of a module from the test above."""
    for marker in PACKAGE.rglob("__init__.py"):
        assert not imports(marker), marker


def test_data_and_model_know_nothing_of_the_run():
    outside = re.compile(
        r"^\s*(?:from|import) (accelerate|wandb|electra_accel\.runs|electra_accel\.pretraining)\b", re.M
    )
    files = [path for name, path in modules().items() if name.startswith(("text.", "data.", "model."))]
    assert len(files) > 10
    assert [f"{path.name}: {name}" for path in files for name in outside.findall(path.read_text("utf-8"))] == []


def test_optional_packages_are_imported_where_they_are_used():
    """The package works without them: an import at the top of a file would break every run."""
    eager = re.compile(r"^(?:from|import) (?:wandb|deepspeed)\b", re.M)
    assert [path for path in modules().values() if eager.search(path.read_text("utf-8"))] == []


def test_files_stay_short():
    files = [path for folder in ("electra_accel", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")]
    lines = {str(path.relative_to(ROOT)): path.read_text("utf-8").count("\n") for path in files}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}
