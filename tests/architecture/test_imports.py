"""Who may import whom, checked on the real import system in fresh interpreters."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.architecture import tree

ENGINE_IMPORTERS = ("core/engine/", "core/testing/", "worker/zygote.py", "worker/runner.py", "bench/", "tests/")

SERVICE = {"sqlalchemy", "celery", "fastapi", "redis", "psycopg", "obstore", "core.db", "core.jobs", "core.store"}
"""What a process that only computes must not be able to reach."""

WALK = """
import importlib, pkgutil, sys
def every(package):
    module = importlib.import_module(package)
    for found in pkgutil.walk_packages(module.__path__, package + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
"""

BLOCK = """
import json, sys
BLOCKED = set(json.loads(sys.argv[1]))
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in BLOCKED:
            raise ModuleNotFoundError(f"blocked by the architecture test: {name}", name=name)
        return None
sys.meta_path.insert(0, Blocker())
"""

PROBE = """
import json, os, sys, threading
print(json.dumps({"modules": sorted(sys.modules), "files": os.listdir("."), "threads": threading.active_count()}))
"""


def fresh(code: str, *arguments: str, cwd: Path = tree.ROOT) -> str:
    """Runs code in a new interpreter that sees the tree; returns what it printed."""
    path = os.pathsep.join([str(tree.ROOT), str(tree.ROOT / "sdk")])
    clean = {key: value for key, value in os.environ.items() if not key.startswith("BASIN_")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=clean | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def closure(*roots: str) -> set[str]:
    """The named distributions and everything that they require on this machine."""
    todo, done = list(roots), set[str]()
    while todo:
        current = normal(todo.pop())
        if current in done:
            continue
        done.add(current)
        for line in metadata.requires(current) or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                todo.append(needed.name)
    return done


def modules_outside(allowed: Iterable[str]) -> list[str]:
    """Every top-level module on this machine that none of the allowed distributions brings."""
    kept = closure(*allowed)
    ours = {"api", "worker", "local", "core", "basin", "migrations"}
    return sorted(
        module
        for module, owners in metadata.packages_distributions().items()
        if module not in ours and not kept & {normal(owner) for owner in owners}
    )


def test_the_import_contracts_hold() -> None:
    """Layers that live only in a drawing do not survive the first hurried evening; this reads the real graph."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    assert "0 broken" in fresh(code)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("api.app", {"torch", "numpy", "sklearn", "safetensors", "alembic", "obstore", "core.engine", "worker"}),
        ("worker.app", {"torch", "numpy", "sklearn", "safetensors", "fastapi", "obstore", "core.engine", "api"}),
        (
            "worker.runner",
            SERVICE,
        ),
        (
            "worker.zygote",
            SERVICE,
        ),
        ("worker.prepare.__main__", {*SERVICE, "torch", "sklearn", "matplotlib", "core.engine", "core.settings"}),
        ("worker.prepare.launch", {"numpy", "pyarrow", "PIL", "tokenizers", "torch"}),
        ("basin.cli", {"torch", "numpy", "fastapi", "sqlalchemy", "celery", "core", "api", "worker"}),
    ],
)
def test_a_process_loads_only_what_it_needs(module: str, absent: set[str], tmp_path: Path) -> None:
    """One `import torch` at the top of a shared file costs every api process two seconds and 300 MB.

    And a runner that can reach the database is a runner whose user code can reach it. A folder of modules does not
    show what an import drags in; sys.modules does. No files and no threads either: importing is not starting.
    """
    state = json.loads(fresh(f"import {module}\n{PROBE}", cwd=tmp_path))
    assert sorted(absent & set(state["modules"])) == []
    assert (state["files"], state["threads"]) == ([], 1)


def test_the_engine_runs_on_torch_numpy_safetensors_and_pydantic_alone() -> None:
    """People take a training engine into notebooks and benchmarks; one that drags a web framework along stays at home.

    Everything else that is installed here is hidden from the import system, then every engine module is imported.
    """
    service = ["core.jobs", "core.db", "core.store", "core.queue", "core.settings", "local", "api", "worker"]
    blocked = [*modules_outside(["torch", "numpy", "safetensors", "pydantic"]), *service]
    assert {"sqlalchemy", "fastapi", "celery", "sklearn", "yaml", "pydantic_settings"} <= set(blocked)
    fresh(f"{BLOCK}{WALK}every('core.engine')\nassert 'torch' in sys.modules", json.dumps(blocked))


def test_the_recipe_reads_with_pydantic_alone() -> None:
    """The api validates and previews with the very classes that the engine trains with; so they may cost it nothing."""
    blocked = modules_outside(["pydantic"])
    assert {"torch", "numpy", "sklearn"} <= set(blocked)
    fresh(f"{BLOCK}{WALK}every('core.recipe')", json.dumps(blocked))


def test_only_the_zygote_and_the_runner_import_the_engine() -> None:
    """The contract in pyproject lists the worker's modules by name, and a new file slips past; this list is closed."""
    offenders = [
        f"{tree.name(path)}:{line} imports {imported}"
        for path in tree.python(*tree.OURS)
        if not tree.name(path).startswith(ENGINE_IMPORTERS)
        for line, imported in tree.runtime_imports(tree.parsed(path))
        if tree.below(imported, "core.engine") or tree.below(imported, "torch")
    ]
    assert offenders == []


def test_no_import_goes_upwards_by_dots() -> None:
    """`from ...jobs import x` hides a forbidden direction from a reader's eye and from a text search."""
    offenders = [
        f"{tree.name(path)}:{node.lineno}"
        for path in tree.python(*tree.PRODUCT)
        for node in tree.nodes(path)
        if isinstance(node, ast.ImportFrom) and node.level > 1
    ]
    assert offenders == []
