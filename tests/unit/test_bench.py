"""The scripts behind published figures; nobody runs them every day, so this is where they would break unseen."""

from importlib import import_module
from pathlib import Path

import pytest

SCRIPTS = sorted(path.stem for path in (Path(__file__).parents[2] / "bench").glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_bench_imports_is_there(name: str) -> None:
    """One of them asked for a file of the engine that had moved."""
    assert callable(import_module(f"bench.{name}").main)


@pytest.mark.parametrize(("optimizer", "found"), [("adam", (22, 0)), ("sgd", (21, 0)), ("adafactor", (101, 12))])
def test_operations_of_a_step(optimizer: str, found: tuple[int, int]) -> None:
    """A perceptron of three layers: two for each activation, eight for linear layers, the loss, and the update.

    What a step queues is what a small network costs on a GPU, so nothing is added to it unseen.
    """
    operations = import_module("bench.operations")
    assert operations.counted(operations.job({"name": "mlp"}, optimizer, 32), 32) == found
