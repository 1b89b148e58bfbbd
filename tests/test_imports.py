"""The house rules that a reader relies on: imports point one way, optional packages stay optional, files stay short."""

import ast
import graphlib
from pathlib import Path

import pytest

from tests.helpers import ROOT

PACKAGE, SCRIPTS = ROOT / "electra_accel", ROOT / "scripts"
# From the ground up. A file imports what stands before it here; files of one folder import each other without a circle.
ORDER = [
    *(
        "errors",
        "json_text",
        "names",
        "randomness",
        "batch",
        "intervals",
        "paired",
        "durable",
        "digests",
        "cli",
        "terminal",
    ),
    *("options", "text", "data", "model", "engines", "runs", "tracking", "pretraining", "finetuning", "reports"),
]
MAX_LINES = 320


def modules() -> dict[str, Path]:
    """``{"data.plan": path}`` of every file of the package but the package markers."""
    files = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in files}


def imported(path: Path, eager: bool = False) -> set[str]:
    """All that a file imports, in whatever form; both ``a`` and ``a.b`` of ``from a import b``.

    Args:
        eager: only when it is itself imported, not inside functions.
    """
    found, todo = set(), [ast.parse(path.read_text("utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif not (eager and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            todo += ast.iter_child_nodes(node)
    return found


def packages(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def imports(path: Path) -> set[str]:
    """The modules of our package that a file imports anywhere."""
    ours = {name for name in imported(path) if name.startswith("electra_accel.")}
    return {name.removeprefix("electra_accel.") for name in ours}


@pytest.mark.parametrize(
    ("text", "found", "eager"),
    [
        ("import os, deepspeed", {"os", "deepspeed"}, {"os", "deepspeed"}),
        ("import deepspeed.utils as u", {"deepspeed.utils"}, {"deepspeed.utils"}),
        ("try:\n  from wandb import x\nexcept ImportError: pass", {"wandb", "wandb.x"}, {"wandb", "wandb.x"}),
        ("class A:\n  import wandb", {"wandb"}, {"wandb"}),
        ("def f():\n  import os, wandb", {"os", "wandb"}, set()),
    ],
)
def test_every_form_of_an_import_is_seen(tmp_path, text, found, eager):
    (tmp_path / "x.py").write_text(text)
    assert (imported(tmp_path / "x.py"), imported(tmp_path / "x.py", eager=True)) == (found, eager)


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
    files = [path for name, path in modules().items() if name.startswith(("text.", "data.", "model."))]
    assert len(files) > 10
    assert [path.name for path in files if packages(imported(path)) & {"accelerate", "wandb"}] == []


def test_scripts_import_the_package_and_not_the_other_way_round():
    """They may import every module that there is, also inside functions, where a wrong name shows late."""
    assert [path for path in modules().values() if packages(imported(path)) & {"scripts", "tests"}] == []
    scripts, known = list(SCRIPTS.rglob("*.py")), {*modules(), *(name.split(".")[0] for name in modules())}
    assert len(scripts) > 10 and any(imports(path) for path in scripts)
    wrong = {
        f"{path.name}: {name}"
        for path in scripts
        for name in imports(path)
        if name not in known and name.rpartition(".")[0] not in known
    }
    assert wrong == set()


def test_optional_packages_are_imported_where_they_are_used():
    """The package and its scripts work without them: an import at the top of a file would break every run."""
    files = [*modules().values(), *SCRIPTS.rglob("*.py")]
    assert [path for path in files if packages(imported(path, eager=True)) & {"wandb", "deepspeed"}] == []


def test_files_stay_short():
    files = [path for folder in ("electra_accel", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")]
    lines = {str(path.relative_to(ROOT)): path.read_text("utf-8").count("\n") for path in files}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}
