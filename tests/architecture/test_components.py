"""Every component introduces itself; the catalog, the forms and the docs have no other source."""

import inspect
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import get_args

import pytest

from core.recipe.catalog import Kind, component_catalog, component_classes

FOLDERS = {"optimizers": 4, "schedules": 5, "averaging": 1, "models": 3, "data": 5, "losses": 3, "metrics": 3}
"""Folder of the recipe -> how many components the first release had; there may be more, never fewer."""

KINDS: tuple[Kind, ...] = get_args(Kind)
LISTED = [(kind, each) for kind in KINDS for each in component_classes(kind).values()]


def written(folder: str) -> Iterator[type]:
    """Every class in the folder's files that has a summary of its own, listed or not."""
    package = import_module(f"core.recipe.{folder}")
    for found in iter_modules(package.__path__, f"{package.__name__}."):
        module = import_module(found.name)
        for _, thing in inspect.getmembers(module, inspect.isclass):
            if thing.__module__ == module.__name__ and "summary" in vars(thing):
                yield thing


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_written_is_listed(folder: str) -> None:
    """A registry that is filled by decorators depends on import order; an explicit list can be read, and diffed.

    Its price is that somebody can forget the line. Then the file would train nothing and no other test would notice.
    """
    files = set(written(folder))
    assert len(files) >= FOLDERS[folder]
    assert files - {each for _, each in LISTED} == set()


@pytest.mark.parametrize(("kind", "component"), LISTED, ids=[f"{kind}-{each.__name__}" for kind, each in LISTED])
def test_a_component_says_what_it_is(kind: str, component: type) -> None:
    """A form that offers `eta_min` without a word sends its user to somebody else's documentation."""
    summary = vars(component).get("summary", "")
    assert summary.strip(), f"{kind}: {component.__name__} has no summary of its own"
    assert summary.endswith("."), summary
    assert summary[0] == summary[0].upper(), summary
    assert len(summary) <= 120, f"a summary is one line: {summary}"
    assert inspect.getdoc(component), f"{kind}: {component.__name__} has no docstring, the catalog's description"
    paper = getattr(component, "paper", None)
    assert paper is None or len(paper) > 10, paper


@pytest.mark.parametrize("kind", KINDS)
def test_the_catalog_tells_components_apart(kind: Kind) -> None:
    """Two components with one sentence were copied from each other, and one of the sentences is wrong."""
    summaries = [entry.summary for entry in component_catalog()[kind]]
    assert len(set(summaries)) == len(summaries)
