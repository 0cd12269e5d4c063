"""The scripts behind published figures; nobody runs them every day, so this is where they would break unseen."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from tests.train.recipes import RECIPES
from tests.train.runs import job

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


def test_the_comparison_of_checkouts_trains_the_recipes_of_the_resume_tests() -> None:
    """They stand in its data file as bodies, which a checkout with other names inside takes too."""
    bodies = import_module("bench.compare_checkouts").job_bodies()
    assert {name: job(**bodies[name]) for name in RECIPES} == RECIPES
    assert len([name for name in bodies if "/" in name]) == 33  # the gallery's jobs on functions
    assert bodies.keys() >= {"demo", "long"}


def test_the_comparison_of_checkouts_tells_what_differs() -> None:
    compare = import_module("bench.compare_checkouts")
    old = {"chain": "aa", "swa 80": "bb", "best 40": "cc"}
    assert list(compare.differences(old, dict(old))) == []
    assert list(compare.differences(old, {"chain": "aa", "swa 80": "bd", "ema 80": "ee"})) == [
        "best 40: cc in OLD, missing in NEW",
        "ema 80: missing in OLD, ee in NEW",
        "swa 80: bb in OLD, bd in NEW",
    ]


def test_the_comparison_of_checkouts_sees_every_value_and_no_time() -> None:
    compare = import_module("bench.compare_checkouts")
    head = "step,series,value,time\n"
    first = head + "0,lr,0.1,17.5\n1,lr,0.2,18.5\n0,throughput,900,18.5\n"
    later = head + "0,lr,0.1,99.5\n1,lr,0.2,99.6\n0,throughput,700,99.6\n"
    assert compare.drop_times(first) == compare.drop_times(later) == "0,lr,0.1\n1,lr,0.2"
    assert compare.drop_times(first) != compare.drop_times(first.replace("0.2", "0.3"))
    ones = np.ones((2, 3), dtype=np.float32)
    others = [ones.reshape(3, 2), ones.astype(np.float64), np.nextafter(ones, 2, dtype=np.float32)]
    assert compare.digest_array(ones) == compare.digest_array(ones.copy())
    assert compare.digest_array(ones) not in {compare.digest_array(each) for each in others}
    named, other = ({"weights": f"swa of job_{'a1' * 13}", "value": value} for value in (1.0, 2.0))
    assert compare.digest_results(named) == compare.digest_results({**named, "weights": f"swa of job_{'b2' * 13}"})
    assert compare.digest_results(named) != compare.digest_results(other)
