"""Imports that go in a circle: of two files that need each other to be understood, neither can be read first."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.architecture import tree

Arrows = dict[str, set[str]]


def test_no_imports_go_in_a_circle() -> None:
    """Those for types alone count, and those within functions: a reader follows them too."""
    modules = {module_name(path): path for path in tree.python("core", "api", "worker", "local", "sdk")}
    assert "core.recipe.parse" in modules
    arrows = {name: {found for found in imported(path, modules) if found != name} for name, path in modules.items()}
    assert "core.recipe.checks.spec" in arrows["core.recipe.parse"]
    assert list(circles(arrows)) == []


def test_circles_are_found() -> None:
    arrows: Arrows = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert list(circles(arrows)) == [["a", "b", "c"], ["d", "e"]]


def module_name(path: Path) -> str:
    """core/recipe/__init__.py -> core.recipe"""
    return tree.name(path).removesuffix(".py").removesuffix("/__init__").removeprefix("sdk/").replace("/", ".")


def imported(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Each module of ours that a file names in an import; of `from package import module` the module."""
    for node in ast.walk(tree.parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from (each for each in (inner if inner in modules else node.module,) if each in modules)


def circles(arrows: Arrows) -> Iterator[list[str]]:
    """The groups of two and more in which every module leads to every other."""
    reach = {name: reached(name, arrows) for name in arrows}
    seen = set[str]()
    for name in sorted(arrows):
        group = sorted({name} | {other for other in reach[name] if name in reach[other]})
        if name not in seen and len(group) > 1:
            yield group
        seen.update(group)


def reached(start: str, arrows: Arrows) -> set[str]:
    """All that `start` leads to."""
    found, waiting = set[str](), [start]
    while waiting:
        for target in arrows.get(waiting.pop(), ()):
            if target not in found:
                found.add(target)
                waiting.append(target)
    return found
