"""Minima, saddles and slopes, told apart."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from core.engine.analysis.critical_point import ALONG, compute_tensors, report_numbers
from core.engine.analysis.progress import AnalysisProgress, AnalysisStopped
from core.engine.analysis.subject import AnalysisSubject
from core.engine.datasets.resident import TensorSplit
from core.recipe.analyses.critical_point import CriticalPoint
from tests.train.looks import JOB, Look, kept
from tests.train.runs import Train, Watcher, job, no_trace
from tests.train.tiny import Bench, Plain, at, subject

pytestmark = pytest.mark.usefixtures("one_thread")


def looked(subject: AnalysisSubject, **fields: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    spec = CriticalPoint(job=JOB, **fields)
    tensors = compute_tensors(spec, [subject], cast("AnalysisProgress", Bench()))
    return report_numbers(spec, [subject], tensors), tensors


def product(a: float, b: float) -> AnalysisSubject:
    """(ab - 1)²/2: two linear layers of one weight each that have to learn x -> x at x = 1."""
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        module[0].weight.fill_(a)
        module[1].weight.fill_(b)
    ones = torch.ones(5, 1, dtype=torch.float64)
    return subject(
        module, TensorSplit(ones, ones), Plain(lambda outputs, targets: ((outputs - targets) ** 2).mean() / 2)
    )


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


STEEP = torch.tensor([1.0, 1000.0], dtype=torch.float64)
SPREAD = torch.logspace(-6, 6, 30, dtype=torch.float64)


def valley(x: Tensor) -> Tensor:
    """Flat along the first axis, a thousand times as steep along the second."""
    return (STEEP * x**2).sum() / 2


def spread(x: Tensor) -> Tensor:
    """Thirty curvatures from 1e-6 to 1e6."""
    return (SPREAD * x**2).sum() / 2


def rosenbrock(x: Tensor) -> Tensor:
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def well(x: Tensor) -> Tensor:
    """Its minima are at -1.0679 and, higher, at 0.9143."""
    return ((x**2 - 1) ** 2 / 4 + 0.15 * x).sum()


@pytest.mark.parametrize(
    ("start", "value", "verdict"),
    [
        ([5.0, 0.0], valley, ("not_stationary", True)),  # the bottom is 5 away, at a loss of 12.5 less
        ([5.0, 0.005], valley, ("not_stationary", True)),  # with as much slope up the wall
        ([0.02, 0.0], valley, ("not_stationary", True)),
        ([-1.0, 1.0], rosenbrock, ("not_stationary", True)),  # in the valley, at a loss of 4
        ([0.02] * 30, spread, ("not_stationary", True)),
        ([0.0, 0.0], valley, ("minimum", True)),
        ([0.005, 0.005], valley, ("minimum", True)),
        ([1.0, 1.0], rosenbrock, ("minimum", True)),
        ([0.0] * 30, spread, ("minimum", True)),
        ([1e-3] * 30, spread, ("minimum", True)),
        ([1e8, 3.0], lambda x: ((x[0] - 1e8) ** 2 + 1e-3 * (x[1] - 3) ** 2) / 2, ("minimum", True)),
        ([0.0, 0.0], lambda x: -valley(x), ("maximum", True)),
        ([-5.0, 0.0], lambda x: -valley(x), ("not_stationary", True)),
        ([0.0, 0.0], lambda x: x[0] * x[1], ("saddle", True)),
        ([0.0, 0.0], lambda x: x[0] ** 2 - 1000 * x[1] ** 2, ("saddle", True)),
        ([1.0, 0.0], lambda x: x[0] ** 2 - 1000 * x[1] ** 2, ("not_stationary", True)),
    ],
)
def test_every_direction_has_its_say(start: list[float], value: Callable[[Tensor], Tensor], verdict: Any) -> None:
    """A slope is small beside the curvature of its own direction, not beside the largest; `sure` covers it."""
    found, _ = looked(at(start, value))
    assert (found["verdict"], found["sure"]) == verdict
    slope = found["gradient"]
    assert (slope["along"] > slope["tolerance"]) == (verdict[0] == "not_stationary")


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (lambda x: x[0] ** 2 + 0 * x[1], "minimum"),  # a valley with a level floor
        (lambda x: x[0] ** 2 + x[1] ** 4, "minimum"),
        (lambda x: x[0] ** 2 - x[1] ** 4, "saddle"),  # which the profile shows and no curvature
        (lambda x: x[0] ** 2 - 1e-9 * x[1] ** 2, "minimum"),  # within the tolerance, and none for certain
        (lambda x: -(x[0] ** 2) + 0 * x[1], "saddle"),
        (lambda x: 0 * x.sum(), "minimum"),
    ],
)
def test_a_curvature_of_nothing_is_not_sure(value: Callable[[Tensor], Tensor], verdict: str) -> None:
    found, _ = looked(at([0.0, 0.0], value))
    assert (found["verdict"], found["sure"]) == (verdict, False)
    constant = [each for each in found["caveats"] if "The loss is constant" in each]
    assert bool(constant) == (found["curvature"]["largest"]["value"] == found["curvature"]["smallest"]["value"] == 0)


def test_what_is_lower_behind_a_hill_takes_nothing_from_a_minimum() -> None:
    """The profile reaches over the hill into the deeper well: a drop of 0.3, but not from here."""
    root = 0.9143134617  # x³ - x + 0.15 = 0
    found, _ = looked(at([root], well), reach=3.0)
    assert (found["verdict"], found["sure"]) == ("minimum", True)
    assert found["profile"]["drop"] > 0.25


@pytest.mark.parametrize("steepness", [1.0, 1e6])
def test_a_fall_that_no_tolerance_explains_is_no_minimum(steepness: float) -> None:
    """A fourth power or a cube decides within the profile; how steep the walls of the valley are does not matter."""
    for value in (lambda x: steepness * x[0] ** 2 - x[1] ** 4, lambda x: steepness * x[0] ** 2 + 0.1 * x[1] ** 3):
        found, _ = looked(at([0.0, 0.0], value))
        assert found["profile"]["drop"] > 0.09
        assert (found["verdict"], found["sure"]) == ("saddle", False)
    small, _ = looked(at([0.0, 0.0], lambda x: 1.0 + steepness * x[0] ** 2 - 5e-4 * x[1] ** 4))
    assert (small["verdict"], small["sure"]) == ("minimum", False)  # half a thousandth of the loss


def test_a_convex_problem_far_from_its_end(look: Look) -> None:
    """Logistic regression on data that nobody has scaled: curvatures from 1e6 down to nothing, a gradient of 154."""
    model = {"name": "logistic", "init": {"scheme": "zeros"}}
    raw = job(model=model, data={"name": "breast_cancer", "standardize": False})
    found = look([(raw, None)], kind="critical_point").numbers
    assert found["gradient"]["norm"] == pytest.approx(154.4, rel=1e-3)
    assert (found["verdict"], found["sure"]) == ("not_stationary", True)


def test_one_that_an_earlier_release_has_begun_is_judged_like_any_other() -> None:
    """It has no iteration from the gradient yet; what it has stays to the bit."""
    here = at([-1.0, 1.0], rosenbrock)
    spec = CriticalPoint(job=JOB, points=5, lanczos_steps=10)
    whole = compute_tensors(spec, [here], cast("AnalysisProgress", Bench()))
    for done in (3, 10, 11, 14):
        analysis_progress = Halting(done)
        with pytest.raises(AnalysisStopped):
            compute_tensors(spec, [here], cast("AnalysisProgress", analysis_progress))
        older = {
            name: each
            for name, each in analysis_progress.kept.items()
            if not name.startswith(ALONG) and name != "slopes"
        }
        assert len(older) < len(analysis_progress.kept)
        again = Bench()
        again.found, again.done = older, done
        found = compute_tensors(spec, [here], cast("AnalysisProgress", again))
        assert {name: each.numpy().tobytes() for name, each in found.items()} == {
            name: each.numpy().tobytes() for name, each in whole.items()
        }


class Halting(Bench):
    """Somebody wants it to pause after so many tiles."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after, self.kept = after, dict[str, Tensor]()

    def keep(self, done: int, total: int, tensors: Mapping[str, Tensor]) -> None:
        super().keep(done, total, tensors)
        if done == self.after:
            self.kept = {name: each.clone() for name, each in tensors.items()}
            raise AnalysisStopped("checkpoint")


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
