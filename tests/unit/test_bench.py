"""The scripts behind published figures; nobody runs them every day, so this is where they would break unseen."""

from importlib import import_module
from pathlib import Path

import pytest

SCRIPTS = sorted(path.stem for path in (Path(__file__).parents[2] / "bench").glob("*.py"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_bench_imports_is_there(name: str) -> None:
    """One of them asked for a file of the engine that had moved."""
    assert callable(import_module(f"bench.{name}").main)


def test_a_post_is_validated_once_and_does_not_jump_about(tmp_path: Path) -> None:
    """Who follows a request through the code turns that many pages; it was 251 to 327, and two validations."""
    path = import_module("bench.path")
    with path.watched_app(tmp_path) as (client, watch):
        found = {name: path.measured(client, watch, job) for name, job in path.JOBS.items()}
    assert {name: validations for name, (_, validations) in found.items()} == dict.fromkeys(path.JOBS, 1)
    assert {name: walk.returns.total() < 120 for name, (walk, _) in found.items()} == dict.fromkeys(path.JOBS, True)
    assert all(len(walk.entered) > 30 for walk, _ in found.values()), "the profile has seen the request"


@pytest.mark.parametrize(("optimizer", "found"), [("adam", (22, 0)), ("sgd", (21, 0)), ("adafactor", (101, 12))])
def test_operations_of_a_step(optimizer: str, found: tuple[int, int]) -> None:
    """A perceptron of three layers: two for each activation, eight for linear layers, the loss, and the update.

    What a step queues is what a small network costs on a GPU, so nothing is added to it unseen.
    """
    operations = import_module("bench.operations")
    assert operations.counted(operations.job({"name": "mlp"}, optimizer, 32), 32) == found
