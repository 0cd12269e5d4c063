"""Minima, saddles and slopes, told apart."""

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from core.engine.analysis.critical_point import explore, report
from core.engine.analysis.desk import Desk
from core.engine.analysis.subject import Subject
from core.engine.datasets.resident import Part
from core.recipe.analyses.critical_point import CriticalPoint
from tests.train.looks import JOB, Look, kept
from tests.train.runs import Train, Watcher, job, no_trace
from tests.train.tiny import Bench, Plain, at, subject

pytestmark = pytest.mark.usefixtures("one_thread")


def looked(subject: Subject, **fields: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    spec = CriticalPoint(job=JOB, **fields)
    tensors = explore(spec, [subject], cast("Desk", Bench()))
    return report(spec, [subject], tensors), tensors


def product(a: float, b: float) -> Subject:
    """(ab - 1)²/2: two linear layers of one weight each that have to learn x -> x at x = 1."""
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        module[0].weight.fill_(a)
        module[1].weight.fill_(b)
    ones = torch.ones(5, 1, dtype=torch.float64)
    return subject(module, Part(ones, ones), Plain(lambda outputs, targets: ((outputs - targets) ** 2).mean() / 2))


def test_the_saddle_of_a_deep_linear_network() -> None:
    """(ab - 1)²/2 at 0 has curvatures ±1 along (1, ∓1); (s²/2 - 1)²/2 is the loss at ±s (1, 1)/√2."""
    found, tensors = looked(product(0.0, 0.0), reach=2.0, points=5)
    assert (found["verdict"], found["sure"]) == ("saddle", True)
    assert found["curvature"]["largest"]["value"] == pytest.approx(1.0)
    assert found["curvature"]["smallest"]["value"] == pytest.approx(-1.0)
    assert tensors["escape"].abs().tolist() == pytest.approx([0.5**0.5] * 2)
    assert float(tensors["escape"].prod()) == pytest.approx(0.5)
    assert found["profile"]["at"] == [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert found["profile"]["loss"] == pytest.approx([0.5, 0.125, 0.5, 0.125, 0.5])
    assert found["profile"]["parabola"] == pytest.approx([-1.5, 0.0, 0.5, 0.0, -1.5])
    assert found["profile"]["drop"] == pytest.approx(0.375)


def test_its_minimum_is_flat_one_way() -> None:
    """At (2, ½) the curvatures are a² + b² = 4.25 and 0, which counts as no fall."""
    found, _ = looked(product(2.0, 0.5))
    assert found["verdict"] == "minimum"
    assert found["curvature"]["largest"]["value"] == pytest.approx(4.25)
    assert found["curvature"]["smallest"]["value"] == pytest.approx(0.0, abs=1e-12)
    assert found["curvature"]["tau"] == pytest.approx(0.0425)


@pytest.mark.parametrize(
    ("start", "value", "verdict"),
    [
        ([0.0, 0.0], lambda x: -(x**2).sum(), "maximum"),
        ([0.0, 0.0], lambda x: x[0] ** 2 - 0.009 * x[1] ** 2, "minimum"),
        ([0.0, 0.0], lambda x: x[0] ** 2 - 0.011 * x[1] ** 2, "saddle"),
        ([0.9e-2, 0.0], lambda x: (x**2).sum() / 2, "minimum"),
        ([1.1e-2, 0.0], lambda x: (x**2).sum() / 2, "not_stationary"),
        ([1.0, 2.0], lambda x: x[0] + 2 * x[1], "not_stationary"),
    ],
)
def test_where_the_lines_are_drawn(start: list[float], value: Callable[[Tensor], Tensor], verdict: str) -> None:
    """On both sides of both tolerances, which go by the largest curvature; a plane is nothing."""
    assert looked(at(start, value))[0]["verdict"] == verdict


def point(start: list[float], **data: Any) -> Any:
    return job(model={"name": "point", "start": start}, data={"name": "function", **data}, batch_size=1)


def test_on_the_playground(look: Look) -> None:
    """The saddle (x² - y²)/2 + y⁴/4 at the origin falls by ¼ to both minima, along y; no minimum is a saddle."""
    found = look([(point([0.0, 0.0], function="saddle"), None)], kind="critical_point").numbers
    assert found["verdict"] == "saddle"
    assert found["curvature"]["smallest"] == {"value": pytest.approx(-1.0), "residual": pytest.approx(0.0, abs=1e-6)}
    assert found["profile"]["drop"] == pytest.approx(0.25)
    assert found["profile"]["loss"][0] == pytest.approx(-0.25)
    at_minimum = look([(point([0.0, 1.0], function="saddle"), None)], kind="critical_point").numbers
    assert at_minimum["verdict"] == "minimum"
    assert at_minimum["curvature"]["largest"]["value"] == pytest.approx(2.0)
    slope = look([(point([1.0, 0.5], function="saddle"), None)], kind="critical_point").numbers
    assert slope["verdict"] == "not_stationary"


def test_a_trained_network_and_what_an_attempt_leaves(run: Train, look: Look) -> None:
    """Least squares are convex, so their end is a minimum; stopped and resumed it is the same to the bit."""
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
    data = {"name": "diabetes", "validation": 0.1, "test": 0.1}
    spec = job(model={"name": "logistic"}, data=data, batch_size="full", epochs=400, optimizer=optimizer)
    pairs = [(spec, run(spec)[1].checkpoints()[400])]
    fields: dict[str, Any] = {"kind": "critical_point", "points": 5}
    with no_trace():
        whole = look(pairs, **fields)
    assert whole.numbers["verdict"] == "minimum"
    assert whole.numbers["curvature"]["smallest"]["value"] > 0
    for tiles in (5, 41, 43):
        stopped = look(pairs, Watcher(stop_after=tiles), **fields)
        (written,) = stopped.watcher.checkpoints().values()
        resumed = look(pairs, resume=kept(written), **fields)
        assert resumed.numbers == whole.numbers
        assert all(resumed.arrays[name].tobytes() == each.tobytes() for name, each in whole.arrays.items())
    cancelled = look(pairs, Watcher(stop_after=43, request="cancel"), **fields).numbers
    assert cancelled["verdict"] == "minimum"
    assert cancelled["profile"]["loss"][3:] == [None, None]
    early = look(pairs, Watcher(stop_after=3, request="cancel"), **fields).numbers
    assert early["verdict"] is None
