"""The functions of the playground, by numbers that were worked out elsewhere, and what a job may ask of them."""

import json
from math import inf
from typing import Any

import numpy as np
import pytest

from core.errors import FieldProblem, InvalidSpec
from core.recipe.catalog import component_catalog
from core.recipe.data import Function
from core.recipe.data.formulas import FORMULAS
from core.recipe.data.function import PairedNoise
from core.recipe.parse import parse_job
from core.recipe.spec import JobSpec
from tests.support.specs import warnings_of

Problem = tuple[str, str, str | None]
Changes = dict[str, Any]


def function(name: str, **fields: Any) -> Function:
    return Function.model_validate_json(json.dumps({"function": name, **fields}))


def job(data: Changes, start: list[float], changes: Changes | None = None) -> JobSpec:
    body = {
        "model": {"name": "point", "start": start},
        "data": {"name": "function", **data},
        "optimizer": {"name": "sgd"},
        "batch_size": "full",
        "steps": 4,
    }
    return parse_job(json.dumps(body | (changes or {})).encode())


def refused(data: Changes, start: list[float], changes: Changes) -> FieldProblem:
    with pytest.raises(InvalidSpec) as caught:
        job(data, start, changes)
    return caught.value.errors[0]


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("square", (-3.0,), 9.0),
        ("saddle", (2.0, 1.0), 1.75),
        ("double_well", (2.0,), 2.55),
        ("sharp_flat", (-2.0,), 0.1),
        ("rosenbrock", (-1.0, 2.0), 104.0),
        ("beale", (1.0, 2.0), 126.453125),  # 2.5² + 5.25² + 9.625²
        ("himmelblau", (1.0, 2.0), 68.0),
    ],
)
def test_values_by_hand(name: str, place: tuple[float, ...], value: float) -> None:
    assert function(name).value_at(*place) == pytest.approx(value, abs=1e-12)


def test_a_quadratic_by_hand() -> None:
    """½ (1 · 4 + 10 · 1 - 3 · 0.25)"""
    assert function("quadratic", h=[1, 10, -3]).value_at(2.0, -1.0, 0.5) == pytest.approx(6.625)
    assert function("quadratic", h=[2.0]).facts().outputs == 1


@pytest.mark.parametrize(
    ("name", "places", "lowest"),
    [
        ("square", [(0.0,)], 0.0),
        ("saddle", [(0.0, 1.0), (0.0, -1.0)], -0.25),
        ("double_well", [(-1.0679230136896973,)], -0.15525622983211224),
        ("sharp_flat", [(1.499844884166719,)], -0.001969276426551314),
        ("rosenbrock", [(1.0, 1.0)], 0.0),
        ("beale", [(3.0, 0.5)], 0.0),
        (
            "himmelblau",
            [
                (3.0, 2.0),
                (-2.805118086952745, 3.131312518250573),
                (-3.779310253377747, -3.2831859912861696),
                (3.5844283403304917, -1.8481265269644036),
            ],
            0.0,
        ),
    ],
)
def test_the_minima_are_where_they_are_known_to_be(name: str, places: list[tuple[float, ...]], lowest: float) -> None:
    """And lowest of all on a grid over the window, which shows every one of them."""
    found = function(name)
    window = found.formula.window
    axes = [np.linspace(low, high, 401) for low, high in window]
    for place in places:
        assert found.value_at(*place) == pytest.approx(lowest, abs=1e-9)
        assert all(low < each < high for each, (low, high) in zip(place, window, strict=True))
    assert found.value_at(*np.meshgrid(*axes)).min() >= lowest - 1e-9


def test_every_function_is_described_and_can_be_trained() -> None:
    (entry,) = (each for each in component_catalog()["datasets"] if each.name == "function")
    listed = {each["const"]: each for each in entry.parameters["properties"]["function"]["oneOf"]}
    assert set(listed) == set(FORMULAS)
    assert all(each["description"].endswith(".") and each["title"].startswith("f = ") for each in listed.values())
    for name, each in FORMULAS.items():
        extra = {"h": [1.0, 2.0]} if each.takes_h else {}
        dimension = 2 if each.takes_h else len(each.window)
        spec = job({"function": name, **extra}, [0.5] * dimension).resolved()
        assert (spec.dump()["loss"], spec.metrics, warnings_of(spec)) == ("function", (), ())
        assert parse_job(json.dumps(spec.dump()).encode()).resolved() == spec


SQUARE = {"function": "square"}


@pytest.mark.parametrize(
    ("data", "start", "changes", "expected"),
    [
        ({"function": "sqare"}, [1.0], {}, ("/data/function", "must be 'quadratic', 'square'", 'mean "square"?')),
        ({}, [1.0], {}, ("/data/function", "required", None)),
        ({**SQUARE, "nois": []}, [1.0], {}, ("/data/nois", "unknown field", 'did you mean "noise"?')),
        (
            {**SQUARE, "noise": [[1.0], [-0.9]]},
            [1.0],
            {},
            ("/data/noise", "sum to (0.1), not to zero", "the mean from"),
        ),
        ({**SQUARE, "noise": [[1.0], [-1.0, 2.0]]}, [1.0], {}, ("/data/noise/1", "2 numbers, where square", None)),
        ({**SQUARE, "noise": [["1"]]}, [1.0], {}, ("/data/noise/0/0", "valid number", None)),
        ({**SQUARE, "noise": [[inf]]}, [1.0], {}, ("/data/noise/0/0", "finite", None)),
        ({**SQUARE, "noise": {"scale": 1, "examples": 3}}, [1.0], {}, ("/data/noise/examples", "multiple of 2", None)),
        ({**SQUARE, "noise": {"scale": 0, "examples": 2}}, [1.0], {}, ("/data/noise/scale", "greater than 0", None)),
        ({**SQUARE, "noise": {"scale": 1, "example": 2}}, [1.0], {}, ("/data/noise/examples", "required", None)),
        (
            {"function": "beale", "noise": {"scale": 1, "examples": 6}},
            [1.0, 1.0],
            {},
            ("/data/noise/examples", "do not share 2 axes evenly", "a multiple of 4"),
        ),
        ({**SQUARE, "h": [1.0]}, [1.0], {}, ("/data/h", "takes no curvatures", "take quadratic")),
        ({"function": "quadratic"}, [1.0], {}, ("/data/h", "needs its curvatures", '"h": [1, 10]')),
        ({"function": "quadratic", "h": [1] * 65}, [1.0], {}, ("/data/h", "at most 64", None)),
        ({**SQUARE, "validation": 0.1}, [1.0], {}, ("/data/validation", "no examples to hold out", "leave it out")),
        ({**SQUARE, "test": 0.1}, [1.0], {}, ("/data/test", "no examples to hold out", "leave it out")),
        ({**SQUARE, "standardize": True}, [1.0], {}, ("/data/standardize", "or to scale", "leave it out")),
        ({"function": "beale"}, [1.0], {}, ("/model/start", "gives 1 of the 2 coordinates", "one for each dimension")),
        (SQUARE, [], {}, ("/model/start", "at least 1", None)),
        (SQUARE, [1.0], {"model": {"name": "mlp"}}, ("/model/name", "mlp cannot be trained on function", '"point"')),
        (SQUARE, [1.0], {"data": {"name": "iris"}}, ("/model/name", "point cannot be trained on iris", "a function")),
        (
            SQUARE,
            [1.0],
            {"model": {"name": "point", "start": [1.0], "init": {"seed": 1}}},
            ("/model/init", "the start of a point", "leave it out"),
        ),
        (SQUARE, [1.0], {"batch_size": 2}, ("/batch_size", "train set of 1 ", 'use "full" or at most 1')),
        (SQUARE, [1.0], {"loss": "mse"}, ("/loss", "does not fit function", "use function")),
        (SQUARE, [1.0], {"metrics": ["r2"]}, ("/metrics/0", "does not fit function", "leave it out")),
        (SQUARE, [1.0], {"label_smoothing": 0.1}, ("/label_smoothing", "no labels to smooth in a function", None)),
        (SQUARE, [1.0], {"early_stopping": True}, ("/early_stopping/monitor", "there are function.loss", None)),
        (
            SQUARE,
            [1.0],
            {"checkpoints": {"keep_best": 1}},
            ("/checkpoints/monitor", "there are function.loss", "monitor function.loss"),
        ),
        (
            SQUARE,
            [1.0],
            {"ensemble": {"method": "checkpoints", "every": 1}},
            ("/ensemble", "predicts nothing", "average the places"),
        ),
        (SQUARE, [1.0], {"swa": {"swag": True}}, ("/swa/swag", "predicts nothing", "average the places")),
        ({**SQUARE, "label_noise": 0.1}, [1.0], {}, ("/data/label_noise", "in a function", "leave it out")),
        (SQUARE, [1.0], {"metadata": {"function": 1}}, ("/metadata/function", "valid string", None)),
    ],
)
def test_refused_with_pointer_and_way_out(
    data: Changes, start: list[float], changes: Changes, expected: Problem
) -> None:
    problem = refused(data, start, changes)
    pointer, message, hint = expected
    assert problem.pointer == pointer
    assert message in problem.message
    assert (hint or "") in (problem.hint or "")


def targets(name: str, **fields: Any) -> Any:
    spec = function(name, **fields)
    tensors = spec.generate_arrays()
    assert (tensors["inputs"].shape, tensors["targets"].dtype) == ((spec.facts().examples, 0), np.float32)
    return tensors["targets"]


def test_noise_is_what_was_asked_for() -> None:
    assert targets("square").tolist() == [[0.0]]
    assert targets("square", noise=[[1.5], [-1.5]]).tolist() == [[1.5], [-1.5]]
    assert targets("square", noise={"scale": 1.5, "examples": 4}).tolist() == [[1.5], [-1.5], [1.5], [-1.5]]
    pairs = [[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0], [0.0, -2.0]]
    assert PairedNoise(scale=2.0, examples=4).noise_vectors(2) == pairs


@pytest.mark.parametrize("seed", range(5))
def test_noise_cancels_to_the_last_bit(seed: int) -> None:
    """Decimal fractions in float32 do not: here their sum would be some 1e-8, which a saddle makes large."""
    numbers = np.random.default_rng(seed).normal(0, 10.0**seed, (300, 2)).round(6)
    numbers[-1] -= numbers.sum(0)
    assert numbers.astype(np.float32).astype(np.float64).sum(0).any()
    found = targets("saddle", noise=numbers.tolist())
    assert found.astype(np.float64).sum(0).tolist() == [0.0, 0.0]
    np.testing.assert_allclose(found, numbers, atol=3e-7 * np.abs(numbers).max())
