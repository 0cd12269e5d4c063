"""The scripts behind published figures; nobody runs them every day, so this is where they would break unseen."""

from importlib import import_module
from pathlib import Path

import pytest

SCRIPTS = sorted(path.stem for path in (Path(__file__).parents[2] / "bench").glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_bench_imports_is_there(name: str) -> None:
    """One of them asked for a file of the engine that had moved."""
    assert callable(import_module(f"bench.{name}").main)
