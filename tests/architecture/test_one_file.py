"""Adding an optimizer touches one obvious place; tried out on a copy of the tree, and looked for in the tree itself."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

from core.recipe.catalog import component_classes
from tests.architecture import tree

HOME = "core/recipe/optimizers/"
FILE = '''from typing import ClassVar, Literal

from core.recipe.optimizers.base import OptimizerSpec


class Plain(OptimizerSpec):
    """w <- w - lr g."""

    summary: ClassVar[str] = "Gradient descent and nothing else."
    implementation: ClassVar[str] = "torch.optim:SGD"
    name: Literal["plain"] = "plain"
'''
TRY = """
import json
from functools import partial
import torch
from core.engine.networks.network import flatten
from core.engine.optimizers.stepper import build_stepper
from core.engine.preload import warm_up_torch
from core.recipe.catalog import component_catalog
from core.recipe.spec import JobSpec
assert "plain" in [entry.name for entry in component_catalog()["optimizers"]]
assert '"plain"' in json.dumps(JobSpec.model_json_schema())
job = {"model": {"name": "logistic"}, "data": {"name": "digits"}, "optimizer": {"name": "plain"}, "epochs": 1}
spec = JobSpec.model_validate_json(json.dumps(job)).resolved()
network = flatten(torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False)))
before = network.weights.item()
network.gradient.fill_(2.0)
build_stepper(spec.optimizer, network, lambda: None).step(0.5, lambda: None)
assert abs(network.weights.item() - (before - 1.0)) < 1e-6
warm_up_torch()
print("trained")
"""


def test_a_new_optimizer_is_one_file_and_its_line(tmp_path: Path) -> None:
    """A registry in three places is forgotten in one of them. Here: the file, and its import and name in `__init__`.

    The copy's catalog, OpenAPI schema, engine and zygote know the newcomer without another word.
    """
    shutil.copytree(tree.ROOT / "core", tmp_path / "core", ignore=shutil.ignore_patterns("__pycache__"))
    home = tmp_path / HOME
    (home / "plain.py").write_text(FILE, encoding="utf-8")
    union = (home / "__init__.py").read_text(encoding="utf-8")
    changed = union.replace("\nOptimizer = ", "from core.recipe.optimizers.plain import Plain\n\nOptimizer = ")
    changed = changed.replace("    SGD\n", "    SGD\n    | Plain\n")
    assert len(changed.splitlines()) - len(union.splitlines()) <= 3  # one of them blank
    (home / "__init__.py").write_text(changed, encoding="utf-8")
    clean = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TRY], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.returncode) == ("trained\n", 0), done.stderr[-2000:]


def test_nobody_else_knows_an_optimizer_by_name() -> None:
    """`if name == "adam"` outside of Adam's own file is where the next optimizer is forgotten."""
    names = set(component_classes("optimizers"))
    modules = {f"core.recipe.optimizers.{path.stem}" for path in (tree.ROOT / HOME).glob("*.py")}
    shared = {f"core.recipe.optimizers.{each}" for each in ("__init__", "base", "schedule_free")}
    offenders = []
    for path in tree.python("core", "worker"):
        if tree.name(path).startswith(HOME):
            continue
        offenders += [
            f"{tree.name(path)}:{node.lineno} {node.value}"
            for node in tree.nodes(path)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names
        ]
        offenders += [
            f"{tree.name(path)}:{line} {imported}"
            for line, imported in tree.runtime_imports(tree.parsed(path))
            if any(tree.below(imported, module) for module in modules - shared)
        ]
    assert offenders == []
    assert len(names) >= 9


def test_nobody_else_asks_which_norm_layer_it_is() -> None:
    """A LayerNorm that one `isinstance` forgets is decayed without a word. Builders make norms; a table knows them."""
    home = "core/engine/networks/"
    named = {
        f"{tree.name(path)}:{node.lineno} {node.attr}"
        for path in tree.python("core", "worker")
        for node in tree.nodes(path)
        if isinstance(node, ast.Attribute) and "Norm" in node.attr and "nn" in ast.unparse(node.value).split(".")
    }
    assert len({each for each in named if each.startswith(f"{home}norms.py")}) >= 12
    assert {each for each in named if not each.startswith(home)} == set()
