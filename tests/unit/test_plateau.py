"""When plateau reduces the rate: closed forms, signs, and torch's own where torch is right."""

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ReduceLROnPlateau

from core.recipe.averaging import SwaPhase
from core.recipe.duration import RunLength
from core.recipe.learning_rate import LearningRatePlan
from core.recipe.optimizers.sgd import SGD
from core.recipe.schedules.base import PlateauState
from core.recipe.schedules.plateau import Plateau

RUN = RunLength(steps_per_epoch=10, total_steps=10_000)


def plateau(**fields: Any) -> Plateau:
    return Plateau.model_validate_json(json.dumps(fields))


def reductions(spec: Plateau, values: list[float]) -> list[int]:
    """The evaluations, counted from 1, after which the rate is lower."""
    heard, found = PlateauState(), []
    for number, value in enumerate(values, 1):
        before, heard = heard, spec.after_evaluation(heard, value)
        if heard.reductions > before.reductions:
            found.append(number)
    return found


@pytest.mark.parametrize(
    ("fields", "values", "expected"),
    [
        # the first is the best; then exactly `patience` that are no better: at 1 + p, 1 + 2p, …
        ({"patience": 1}, [1.0] * 5, [2, 3, 4, 5]),
        ({"patience": 3}, [1.0] * 11, [4, 7, 10]),
        # each reduction is followed by c evaluations that do not count: at 1 + p, 1 + 2p + c, 1 + 3p + 2c
        ({"patience": 3, "cooldown": 2}, [1.0] * 15, [4, 9, 14]),
        # an improvement starts the count again; during cooldown it counts as the best
        ({"patience": 2}, [3.0, 3.0, 2.0, 3.0, 3.0, 3.0, 3.0], [5, 7]),
        ({"patience": 1, "cooldown": 1}, [3.0, 3.0, 1.0, 2.0], [2, 4]),
        # a share of 0.1 of 10 is 1, and 9 is not below 9
        ({"patience": 1, "threshold": 0.1}, [10.0, 9.0, 8.9, 8.1], [2, 4]),
        ({"patience": 1, "threshold": 0.5, "threshold_mode": "abs"}, [10.0, 9.5, 9.4, 8.8], [2]),
        # negative values: better than -10 by a tenth is below -11 (torch asks for less than -9, and for `max` -9 too)
        ({"patience": 1, "threshold": 0.1}, [-10.0, -10.5, -11.5], [2]),
        ({"patience": 1, "threshold": 0.1, "mode": "max"}, [-10.0, -9.5, -8.9], [2]),
        ({"patience": 1, "monitor": "val.accuracy"}, [0.5, 0.6, 0.6, 0.7], [3]),
        # what is no number is no better
        ({"patience": 2}, [math.nan, 5.0, math.nan, -math.inf], [4]),
    ],
)
def test_after_exactly_so_many(fields: dict[str, Any], values: list[float], expected: list[int]) -> None:
    assert reductions(plateau(**fields), values) == expected


def test_the_rate_after_reductions() -> None:
    spec = plateau(factor=0.5, min_lr=0.02)
    assert [spec.reduced_rate(0.1, k) for k in range(5)] == [0.1, 0.05, 0.025, 0.02, 0.02]
    assert plateau(factor=0.9).reduced_rate(1e-7, 1) == pytest.approx(9e-8, rel=1e-12), (
        "torch's eps leaves 1e-7 as it is"
    )
    assert plateau().reduced_rate(0.1, 10**9) == 0.0


@settings(deadline=None)
@given(
    values=st.lists(st.floats(0.01, 100.0), min_size=1, max_size=60),
    patience=st.integers(1, 4),
    cooldown=st.integers(0, 3),
    absolute=st.booleans(),
    up=st.booleans(),
)
def test_as_torch_does_with_one_less_patience(
    values: list[float], patience: int, cooldown: int, absolute: bool, up: bool
) -> None:
    """Torch waits one evaluation longer; with positive values, and far from its eps, nothing else differs."""
    mode, kind = "max" if up else "min", "abs" if absolute else "rel"
    spec = plateau(factor=0.5, patience=patience, cooldown=cooldown, mode=mode, threshold_mode=kind, threshold=0.05)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0**70)
    scheduler = ReduceLROnPlateau(optimizer, mode, 0.5, patience - 1, 0.05, kind, cooldown)
    heard = PlateauState()
    for value in values:
        heard = spec.after_evaluation(heard, value)
        scheduler.step(value)
        assert spec.reduced_rate(2.0**70, heard.reductions) == optimizer.param_groups[0]["lr"]


@settings(deadline=None)
@given(values=st.lists(st.floats(-10, 10), max_size=60), patience=st.integers(1, 4), cooldown=st.integers(0, 3))
def test_no_sequence_reduces_more_often_than_it_can(values: list[float], patience: int, cooldown: int) -> None:
    spec = plateau(patience=patience, cooldown=cooldown)
    assert len(reductions(spec, values)) <= spec.most_reductions(len(values))
    assert len(reductions(spec, [1.0] * len(values))) == spec.most_reductions(len(values))


def test_evaluations_during_warm_up_and_after_the_schedule_do_not_count() -> None:
    course = LearningRatePlan(
        plateau(patience=1, warmup=20), SGD(lr=0.1), RUN, swa=SwaPhase(start=50, anneal=0, lr=0.3, every=1)
    )
    heard = PlateauState()
    seen = []
    for done in (10, 19, 20, 30, 40, 50, 51, 60):
        heard = course.after_evaluation(heard, {"val.loss": 1.0, "val.accuracy": 0.0}, done)
        seen.append((heard.best, heard.reductions))
    assert seen == [(None, 0), (None, 0), (1.0, 0), (1.0, 1), (1.0, 2), (1.0, 3), (1.0, 3), (1.0, 3)]
    assert course.after_evaluation(heard, {"swa.val.loss": 0.1}, 40) == heard
    assert course.effective_evaluations(10) == 3, (
        "those of 20, 30 and 40: what is heard at 50 changes no rate of the schedule's"
    )
    assert [course.rate_function(2)(t) for t in (20, 49, 50, 99)] == pytest.approx([0.001, 0.001, 0.3, 0.3])
