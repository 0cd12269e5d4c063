"""Names that tell a reader where to look."""

import ast
import re

from tests.architecture import tree

DRAWERS = ("utils", "util", "helpers", "helper", "common", "misc", "shared", "stuff", "lib")
NETWORKS = ("core/recipe/", "tests/")
TOP_LEVEL = {"api", "worker", "local", "core", "migrations", "tests"}


def stem(name: str) -> str:
    return name.removesuffix(".py").strip("_")


def test_no_drawer_for_odds_and_ends() -> None:
    """`utils.py` is where unrelated things meet and never part: a helper lives with the noun that it helps."""
    offenders = [
        tree.name(path)
        for path in tree.python(*tree.OURS)
        for part in path.relative_to(tree.ROOT).parts
        if stem(part) in DRAWERS or stem(part).startswith("manager") or stem(part).endswith("_manager")
    ]
    assert offenders == []


def test_model_means_a_neural_network() -> None:
    """With models.py for tables, models/ for networks and a Model for responses, every sentence needs a second one."""
    files = [
        tree.name(path)
        for path in tree.python(*tree.OURS)
        if path.name == "models.py"
        or ("models" in path.parts and "recipe" not in path.parts and "tests" not in path.parts)
    ]
    classes = [
        f"{tree.name(path)}:{node.lineno} {node.name}"
        for path in tree.python("core", "api")
        if tree.name(path).startswith(("core/db/", "core/jobs/", "api/"))
        for node in tree.nodes(path)
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Model", "Manager", "Helper", "Util", "Utils"))
    ]
    assert files + classes == []


def test_the_top_level_is_the_one_that_newcomers_were_promised() -> None:
    """Deployments, docs and muscle memory name these folders; renaming one breaks all three at once."""
    assert {name for name in TOP_LEVEL if (tree.ROOT / name).is_dir()} == TOP_LEVEL


def test_migrations_are_numbered_without_gaps() -> None:
    """Hash-named revisions hide their order; two branches that both add 0007 must collide in review, not later."""
    found = sorted(path.name for path in tree.python("migrations") if re.match(r"\d{4}_", path.name))
    numbers = [int(name[:4]) for name in found]
    assert numbers == list(range(1, len(found) + 1))
    assert found, "no migration found"


SERVER = ("api", "worker", "local", "core")
ONE_WORD_SHARE = 0.55
"""Of the functions; the models of the field have 24 to 65 %. One word is for a method whose class is the noun."""


def test_a_public_class_name_occurs_once() -> None:
    """`grep "class Part"` that finds four makes the reader open four files. The client is a program of its own."""
    places: dict[str, list[str]] = {}
    for path in tree.python(*SERVER):
        for node in tree.nodes(path):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(tree.name(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_functions_say_what_they_do_to_what() -> None:
    """`bury` has to be decoded, and finds 40 lines; `delete_checkpoint_files` says it, and finds one."""
    names = [
        node.name.strip("_")
        for path in tree.python(*SERVER, "sdk")
        for node in tree.nodes(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.endswith("__")
    ]
    assert sum("_" not in name for name in names) <= ONE_WORD_SHARE * len(names)
