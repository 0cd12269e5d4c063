"""Files and functions stay small enough to be read in one sitting."""

import ast
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

from tests.architecture import tree

FILE_LINES = 400
FUNCTION_LINES = 50
SCRIPT_LINES = 30
DECISION_LINES = 60

EXCEPTIONS: dict[str, str] = {}
"""'path' or 'path::function' -> the reason why it may be longer. Empty is the aim."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """(qualified name, node) of every function and method, nested ones too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            yield f"{prefix}{child.name}", child
            yield from functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.ClassDef):
            yield from functions(child, f"{prefix}{child.name}.")
        else:
            yield from functions(child, prefix)


def lines(function: Function) -> int:
    """Lines from `def` to the end; the docstring's own lines do not count, or people would write shorter ones."""
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is None:
        return total
    return total - ((first.end_lineno or first.lineno) - first.lineno + 1)


def length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_counter_counts() -> None:
    """A budget whose counter is wrong protects nothing: one function counted by hand, with decorator and docstring."""
    source = """
        @wraps
        def outer(
            a: int,
        ) -> int:
            '''One.

            Two.
            '''
            def inner() -> int:
                return a
            return inner()
    """
    found = {qualified: lines(node) for qualified, node in functions(ast.parse(dedent(source)))}
    assert found == {"outer": 6, "outer.inner": 2}


def test_no_file_grows_past_its_budget() -> None:
    """Every code base that we read had one gravity well (a 3,781-line trainer, a 4,216-line service file).

    Nobody decided to write them. They grew a few lines at a time because nothing said stop.
    """
    sizes = {tree.name(path): length(path) for path in tree.python(*tree.OURS)}
    assert sizes, "no Python found: the walk is broken"
    assert {path: size for path, size in sizes.items() if size > FILE_LINES and path not in EXCEPTIONS} == {}


def test_no_function_grows_past_its_budget() -> None:
    """The longest functions of the peers (353 to 1,229 lines) are where their bugs are fixed twice.

    A function that fits on one screen can be checked by reading it.
    """
    sizes = {
        f"{tree.name(path)}::{qualified}": lines(node)
        for path in tree.python(*tree.OURS)
        for qualified, node in functions(tree.parsed(path))
    }
    assert {spot: size for spot, size in sizes.items() if size > FUNCTION_LINES and spot not in EXCEPTIONS} == {}


def test_scripts_stay_thin() -> None:
    """Logic in shell is logic without types and without tests; and two homes for one command drift apart."""
    scripts = {path.name: length(path) for path in (tree.ROOT / "scripts").iterdir() if path.is_file()}
    assert {"setup", "check", "test", "serve", "demo"} <= set(scripts)
    assert {script: size for script, size in scripts.items() if size > SCRIPT_LINES} == {}


def test_decisions_stay_short() -> None:
    """A decision that takes more than a page is several decisions, and nobody reads it a second time."""
    sizes = {path.name: length(path) for path in (tree.ROOT / "docs" / "decisions").glob("*.md")}
    assert {path: size for path, size in sizes.items() if size > DECISION_LINES} == {}


def test_every_exception_has_a_reason_and_is_still_needed() -> None:
    """An exception without a reason is a hole, and one for a file that shrank again is an invitation."""
    sizes = {tree.name(path): length(path) for path in tree.python(*tree.OURS)}
    for path in tree.python(*tree.OURS):
        sizes |= {f"{tree.name(path)}::{spot}": lines(node) for spot, node in functions(tree.parsed(path))}
    for spot, reason in EXCEPTIONS.items():
        assert len(reason) > 20, f"{spot}: say why"
        assert sizes[spot] > (FUNCTION_LINES if "::" in spot else FILE_LINES), f"{spot}: no longer needed"
