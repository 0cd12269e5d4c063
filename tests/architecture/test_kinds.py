"""What differs between kinds of job stands in their records; nobody else asks of which kind a job is."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.jobs.kinds import KINDS
from core.recipe.analyses import analysis_classes
from tests.architecture import tree

HOMES = ("core/jobs/kinds/", "worker/kinds/")
FLOORS = ("core/jobs/", "worker/", "api/")
NAMES = {kind.name for kind in KINDS}
BASES = {"JobSpec", "Analysis", "AnyAnalysis", "AnalysisSpec", "ResultsSpec", "QueuedSpec", "Spec"}
ORDERS = {"AnyAssignment", "Assignment", "AnalysisAssignment"}
CLASSES = BASES | ORDERS | {each.__name__ for each in analysis_classes().values()}
READERS = {"JobSpec.model_validate_json", "JobSpec.model_validate", "JobSpec.model_construct", "read_analysis"}


def elsewhere() -> Iterator[Path]:
    for path in tree.python("core", "worker", "api"):
        if tree.name(path).startswith(FLOORS) and not tree.name(path).startswith(HOMES):
            yield path


def words(node: ast.expr) -> set[str]:
    """Every text and every last part of a name in an expression."""
    found = set()
    for each in ast.walk(node):
        found |= {each.value} if isinstance(each, ast.Constant) and isinstance(each.value, str) else set()
        found |= {each.id} if isinstance(each, ast.Name) else {each.attr} if isinstance(each, ast.Attribute) else set()
    return found


def asks(node: ast.AST) -> bool:
    """Whether a decision depends on the kind's name, or on the class of a spec or an assignment."""
    match node:
        case ast.Compare():
            return any(
                isinstance(each, ast.Constant | ast.Tuple | ast.Set | ast.List) and words(each) & NAMES
                for each in (node.left, *node.comparators)
            )
        case ast.MatchValue():
            return bool(words(node.value) & NAMES)
        case ast.MatchClass():
            return bool(words(node.cls) & CLASSES)
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, classes]):
            return bool(words(classes) & CLASSES)
    return False


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('kind == "train"', True),
        ('row.kind != "analysis"', True),
        ('kind in {"train", "sum"}', True),
        ("isinstance(spec, JobSpec)", True),
        ("isinstance(claim.spec, base.ResultsSpec | Landscape)", True),
        ('kind == "gpu"', False),
        ("job.c.kind == TRAIN.name", False),
        ("isinstance(error, OSError)", False),
    ],
)
def test_the_search_finds_what_it_should(code: str, *, found: bool) -> None:
    assert any(asks(node) for node in ast.walk(ast.parse(code))) is found


def test_nobody_asks_of_which_kind_a_job_is() -> None:
    """Ten places knew the two kinds, by name or by the class of the spec: a third one would be forgotten in some."""
    offenders = [
        f"{tree.name(path)}:{getattr(node, 'lineno', 0)} {ast.unparse(node)[:80]}"
        for path in elsewhere()
        for node in tree.nodes(path)
        if asks(node)
    ]
    assert offenders == []


def test_a_stored_spec_is_read_in_one_place_for_each_kind() -> None:
    offenders = [
        f"{tree.name(path)}:{node.lineno} {ast.unparse(node.func)}"
        for path in elsewhere()
        for node in tree.nodes(path)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in READERS
    ]
    assert offenders == []


def test_the_records_are_found_by_the_registry_alone() -> None:
    """`from core.jobs.kinds.train import …` would be a second place that a new kind, or one that goes, has to touch."""
    files = [tree.name(path) for path in tree.python("core", "worker") if tree.name(path).startswith(HOMES)]
    records = [
        file.removesuffix(".py").replace("/", ".") for file in files if Path(file).stem not in {"__init__", "base"}
    ]
    assert len(records) == 2 * len(KINDS)
    offenders = [
        f"{tree.name(path)}:{line} {imported}"
        for path in elsewhere()
        for line, imported in tree.runtime_imports(tree.parsed(path))
        if any(tree.below(imported, module) for module in records)
    ]
    assert offenders == []
