"""Things that must not stand in the product's code, found in the syntax tree rather than by text search."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.architecture import tree

UNPICKLERS = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "multiprocessing")
LOADERS = {"torch.load", "torch.save", "joblib.load", "joblib.dump", "yaml.load", "yaml.unsafe_load", "PickleType"}
CHANGEABLE = re.compile(r"\b(list|dict|set|defaultdict|Mutable\w+)\b")
RUNNERS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}


def spot(path: Path, node: ast.AST) -> str:
    return f"{tree.name(path)}:{getattr(node, 'lineno', 0)} {ast.unparse(node)[:80]}"


def calls(*tops: str) -> Iterator[tuple[Path, ast.Call]]:
    for path in tree.python(*tops):
        yield from ((path, node) for node in tree.nodes(path) if isinstance(node, ast.Call))


def truthy(call: ast.Call, keyword: str) -> bool:
    """Is the keyword given, and anything but a literal False?"""
    given = [one.value for one in call.keywords if one.arg == keyword]
    return any(not (isinstance(value, ast.Constant) and value.value is False) for value in given)


def test_nothing_unpickles() -> None:
    """Loading a pickle runs whatever its author wrote; CVE-2025-32434 and CVE-2026-24747 did it through torch.load.

    Peers lost servers to a "model file". Tensors travel as safetensors, everything else as JSON. `multiprocessing` is
    on the list because its pipes and queues pickle both ways.
    """
    imports = [
        f"{tree.name(path)}:{line} {imported}"
        for path in tree.python(*tree.PRODUCT, "bench")
        for line, imported in tree.runtime_imports(tree.parsed(path))
        if imported.split(".")[0] in UNPICKLERS
    ]
    loads = [spot(path, call) for path, call in calls(*tree.PRODUCT) if ast.unparse(call.func) in LOADERS]
    allowed = [spot(path, call) for path, call in calls(*tree.PRODUCT) if truthy(call, "allow_pickle")]
    assert imports + loads + allowed == []


def test_nothing_runs_text() -> None:
    """A job is data. ShadowRay (CVE-2023-48022) was a job API that ran its bodies as code, on thousands of clusters."""
    runs = [spot(path, call) for path, call in calls(*tree.PRODUCT) if ast.unparse(call.func) in RUNNERS]
    shells = [spot(path, call) for path, call in calls(*tree.PRODUCT) if truthy(call, "shell")]
    assert runs + shells == []


def test_obstore_is_called_synchronously() -> None:
    """8 of 50 short processes died with SIGABRT at exit after obstore's async calls; after the sync ones, none did."""
    offenders = []
    for path in tree.python(*tree.PRODUCT):
        if not any(tree.below(imported, "obstore") for _, imported in tree.runtime_imports(tree.parsed(path))):
            continue
        for node in tree.nodes(path):
            used = {getattr(node, "id", ""), getattr(node, "attr", "")} | {
                alias.name for alias in getattr(node, "names", ()) if isinstance(alias, ast.alias)
            }
            offenders += [f"{tree.name(path)}: {word}" for word in used if word.endswith("_async")]
    assert offenders == []


def test_the_domain_is_written_once_and_synchronous() -> None:
    """A peer keeps every domain function twice, sync and async, and its bugs with them; ours is sync, shared by all."""
    offenders = [
        spot(path, node)
        for path in tree.python("core", "worker", "migrations")
        for node in tree.nodes(path)
        if isinstance(node, ast.AsyncFunctionDef) and not tree.name(path).startswith("local/")
    ]
    assert offenders == []


def test_only_the_error_table_knows_http_numbers() -> None:
    """When every route picks its own status, one mistake answers 400 here and 422 there, and clients match on text."""
    imports = [
        f"{tree.name(path)}:{line} {imported}"
        for path in tree.python("core", "worker")
        if not tree.name(path).startswith("local/")
        for line, imported in tree.runtime_imports(tree.parsed(path))
        if imported.split(".")[0] in {"fastapi", "starlette"} or tree.below(imported, "http.HTTPStatus")
    ]
    raised = [
        spot(path, call)
        for path, call in calls("api")
        if path.name != "errors.py" and ast.unparse(call.func).split(".")[-1] == "HTTPException"
    ]
    assert imports + raised == []


def test_nothing_is_left_for_later() -> None:
    """A stub that ships is a bug with a comment on it; work that is not done belongs in the tracker."""
    words = ("TODO", "FIXME", "XXX", "HACK")
    marks = [
        f"{tree.name(path)}:{number} {line.strip()[:80]}"
        for path in tree.python(*tree.OURS)
        for number, line in enumerate((tree.text(path) or "").splitlines(), start=1)
        if any(f"# {word}" in line or f"{word}:" in line for word in words)
    ]
    stubs = [
        spot(path, node)
        for path in tree.python(*tree.PRODUCT)
        for node in tree.nodes(path)
        if isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node)
    ]
    assert marks + stubs == []


def test_no_test_is_skipped_or_tried_twice() -> None:
    """A skipped test is one that nobody runs, and a second chance hides a race until it happens to a user.

    Tests of a GPU live in their own folder and may step aside where there is none, and so may those of an upgrade where
    the history does not hold the release before.
    """
    free = ("tests/gpu/", "tests/conftest.py", "tests/faults/test_upgrades.py")
    words = {"skip", "skipif", "skipUnless", "xfail", "flaky", "importorskip"}
    offenders = [
        spot(path, node)
        for path in tree.python("tests")
        if not tree.name(path).startswith(free)
        for node in tree.nodes(path)
        if isinstance(node, ast.Attribute) and node.attr in words and "pytest" in ast.unparse(node)
    ]
    assert offenders == []


def unfrozen(path: Path) -> Iterator[str]:
    """Every class that is neither an error nor a frozen dataclass, and every field that can be changed in place."""
    for node in tree.nodes(path):
        if not isinstance(node, ast.ClassDef) or node.name.endswith("Error"):
            continue
        if not any(ast.unparse(each).startswith("dataclass(frozen=True") for each in node.decorator_list):
            yield spot(path, node)
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
        yield from (spot(path, each) for each in fields if CHANGEABLE.search(ast.unparse(each.annotation)))


def test_a_picture_is_made_of_values() -> None:
    """The same chart must make the same text, also for the second reader: nothing in core/plot is changed in place."""
    paths = [path for path in tree.python("core") if tree.name(path).startswith("core/plot/")]
    constants = [
        spot(path, node)
        for path in paths
        for node in tree.parsed(path).body
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.List | ast.Dict | ast.Set)
    ]
    assert paths
    assert [each for path in paths for each in unfrozen(path)] + constants == []


ONE_HOME = {"difflib": "core/suggest.py", "ctypes": "core/process.py"}
"""A module of the standard library -> the only file that uses it."""


def test_what_has_one_home_is_used_there_alone() -> None:
    """The hint for a slip was written six times, in three wordings; what is asked of the kernel stood in two files."""
    found = {
        (imported.split(".")[0], tree.name(path))
        for path in tree.python(*tree.PRODUCT)
        for _, imported in tree.runtime_imports(tree.parsed(path))
        if imported.split(".")[0] in ONE_HOME
    }
    assert found == set(ONE_HOME.items())
