"""The repository as the architecture tests see it: which files are ours, and how they parse."""

import ast
import os
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PRODUCT = ("api", "worker", "local", "core", "migrations", "sdk")
"""What users install."""

OURS = (*PRODUCT, "tests", "bench", "gallery")
"""Every folder that holds Python of ours."""

IGNORED = (".git", *(ROOT / ".gitignore").read_text(encoding="utf-8").replace("/\n", "\n").split())
"""What is made here and belongs to nobody's tree: names and patterns for one path component."""


def ignored(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in IGNORED)


def files() -> Iterator[Path]:
    """Every file of the tree, without what .gitignore names. Walks, so that it also works in a tarball without git."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(name for name in folders if not ignored(name))
        yield from (Path(folder) / name for name in sorted(names) if not ignored(name))


def python(*tops: str) -> Iterator[Path]:
    """The Python files under the named top-level folders."""
    yield from (path for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in tops)


def name(path: Path) -> str:
    """The path as messages and exception tables spell it: relative, with forward slashes."""
    return path.relative_to(ROOT).as_posix()


def text(path: Path) -> str | None:
    """The content of a text file, None for a binary one."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def nodes(path: Path) -> Iterator[ast.AST]:
    """Every node of a file's syntax tree."""
    yield from ast.walk(parsed(path))


def runtime_imports(module: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import that runs; those under `if TYPE_CHECKING:` do not."""
    for node in _running(module):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for otherwise in child.orelse:
                yield otherwise
                yield from _running(otherwise)
        else:
            yield from _running(child)


def below(imported: str, forbidden: str) -> bool:
    """Is `imported` the forbidden module or something inside it?"""
    return imported == forbidden or imported.startswith(f"{forbidden}.")
