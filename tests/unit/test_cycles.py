"""Cyclical schedules against literals (plain Python, mpmath), and against torch where torch is right."""

import json
import math
from collections.abc import Callable, Iterator
from itertools import accumulate, islice
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, CyclicLR, LRScheduler, OneCycleLR

from core.recipe.duration import LONGEST, RunLength
from core.recipe.schedules import Schedule
from core.recipe.schedules.base import ScheduleSpec

READ: TypeAdapter[Schedule] = TypeAdapter(Schedule)


def schedule(name: str, **fields: Any) -> ScheduleSpec:
    return READ.validate_json(json.dumps({"name": name, **fields}))


def run_of(steps: int) -> RunLength:
    return RunLength(steps_per_epoch=10, total_steps=steps)


def sgdr(**fields: Any) -> ScheduleSpec:
    return schedule("cosine_restarts", **{"T_0": 10, **fields})


def clr(**fields: Any) -> ScheduleSpec:
    return schedule("cyclic", **{"base_lr": 0.001, "max_lr": 0.006, "step_size_up": 4, **fields})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        # cycles of 10, 20 and 40 steps; (1 + cos(pi 9/10)) / 2, (1 + cos(pi 19/20)) / 2, (1 + cos(pi 5/40)) / 2
        (
            sgdr(T_mult=2),
            {
                0: 0.1,
                5: 0.05,
                9: 0.0024471741852423214,
                10: 0.1,
                20: 0.05,
                29: 0.0006155829702431137,
                30: 0.1,
                35: 0.09619397662556434,
                50: 0.05,
                70: 0.1,
            },
        ),
        (sgdr(T_mult=2, eta_min=0.02), {0: 0.1, 15: 0.08828427124746190, 20: 0.06, 30: 0.1}),
        # the peak is halved at each restart, and no peak is below eta_min
        (sgdr(cycle_decay=0.5), {0: 0.1, 5: 0.05, 10: 0.05, 15: 0.025, 20: 0.025, 30: 0.0125}),
        (sgdr(cycle_decay=0.5, eta_min=0.04), {10: 0.05, 15: 0.045, 20: 0.04, 25: 0.04, 30: 0.04}),
        # warm-up comes before the first cycle
        (sgdr(warmup=4, T_mult=2), {0: 0.025, 3: 0.1, 4: 0.1, 9: 0.05, 14: 0.1, 24: 0.05, 34: 0.1}),
        # 0.001 + 0.005 h
        (clr(), {0: 0.001, 2: 0.0035, 4: 0.006, 6: 0.0035, 8: 0.001, 12: 0.006, 15: 0.00225}),
        (clr(mode="triangular2"), {4: 0.006, 8: 0.001, 12: 0.0035, 20: 0.00225, 22: 0.001625}),
        # 0.9^2 = 0.81, 0.9^12 = 0.282429536481
        (clr(mode="exp_range", gamma=0.9), {2: 0.003025, 8: 0.001, 12: 0.002412147682405}),
        (clr(step_size_up=2, step_size_down=6), {1: 0.0035, 2: 0.006, 5: 0.0035, 8: 0.001, 10: 0.006}),
        # from a quarter of the optimizer's rate up to it, after a warm-up that leads to where the triangle begins
        (schedule("cyclic", step_size_up=2, warmup=5), {0: 0.005, 4: 0.025, 5: 0.025, 6: 0.0625, 7: 0.1, 9: 0.025}),
        # 0.1 / 25 = 0.004 up to 0.1 at step 0.3 * 10 - 1 = 2, down to 4e-7 at step 9, and there it stays
        (
            schedule("one_cycle", total_steps=10),
            {
                0: 0.004,
                1: 0.052,
                2: 0.1,
                4: 0.081174565394976305,
                6: 0.038874197806371071,
                9: 4e-7,
                10: 4e-7,
                11: 4e-7,
                1000: 4e-7,
            },
        ),
        # steps 2 and 4 are the corners of three phases; then a line of five steps from 0.004 to 4e-7
        (
            schedule("one_cycle", total_steps=10, three_phase=True, anneal_strategy="linear"),
            {0: 0.004, 1: 0.052, 2: 0.1, 3: 0.052, 4: 0.004, 5: 0.00320008, 9: 4e-7, 10: 4e-7},
        ),
        (
            schedule("one_cycle", total_steps=10, div_factor=4, final_div_factor=5, warmup=5),
            {0: 0.005, 4: 0.025, 5: 0.025, 7: 0.1, 14: 0.005},
        ),
    ],
)
def test_literals(spec: ScheduleSpec, expected: dict[int, float]) -> None:
    rate = spec.compile_rate(0.1, run_of(200))
    assert {t: rate(t) for t in expected} == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("first", "factor", "restarts"),
    [
        (10, 2, [10, 30, 70, 150]),
        (1, 3, [1, 4, 13, 40, 121, 364]),
        (2, 3, [2, 8, 26, 80, 242]),
        (1, 10, [1, 11, 111, 1111]),
        (3, 10, [3, 33, 333]),
        (7, 1, [7, 14, 21]),
    ],
)
def test_restarts_are_sums_of_the_lengths(first: int, factor: int, restarts: list[int]) -> None:
    """At 121, 242, 111 and 333 torch's logarithm is off by one cycle, and its rate is eta_min there."""
    spec, run = sgdr(T_0=first, T_mult=factor, eta_min=0.001), run_of(restarts[-1])
    assert list(spec.cycle_ends(run)) == restarts
    rate = spec.compile_rate(0.1, run)
    assert [rate(t) for t in restarts] == [0.1] * len(restarts)
    assert all(rate(t - 1) < 0.1 for t in restarts if t > 1)


def torchs(build: Callable[[Optimizer], LRScheduler], steps: int, momentum: float = 0.0) -> list[tuple[float, float]]:
    """Rate and momentum of every step."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=momentum)
    scheduler, found = build(optimizer), []
    for _ in range(steps):
        found.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        scheduler.step()
    return found


MOMENTA = {"base_momentum": 0.85, "max_momentum": 0.95}


@pytest.mark.parametrize(
    ("spec", "build", "steps"),
    [
        (sgdr(T_mult=2), lambda o: CosineAnnealingWarmRestarts(o, 10, 2), 100),
        (sgdr(eta_min=0.01), lambda o: CosineAnnealingWarmRestarts(o, 10, 1, 0.01), 100),
        *(
            (
                clr(mode=mode, step_size_down=7, gamma=0.97),
                lambda o, mode=mode: CyclicLR(o, 0.001, 0.006, 4, 7, mode, 0.97, cycle_momentum=False),
                100,
            )
            for mode in ("triangular", "triangular2", "exp_range")
        ),
        (clr(cycle_momentum={"base": 0.85, "max": 0.95}), lambda o: CyclicLR(o, 0.001, 0.006, 4, **MOMENTA), 50),
        (
            clr(mode="triangular2", cycle_momentum={"base": 0.85, "max": 0.95}),
            lambda o: CyclicLR(o, 0.001, 0.006, 4, mode="triangular2", **MOMENTA),
            50,
        ),
        *(
            (
                schedule(
                    "one_cycle",
                    anneal_strategy=strategy,
                    three_phase=three,
                    pct_start=0.23,
                    cycle_momentum={"base": 0.85, "max": 0.95},
                ),
                lambda o, strategy=strategy, three=three: OneCycleLR(
                    o, 0.1, 50, pct_start=0.23, anneal_strategy=strategy, three_phase=three, **MOMENTA
                ),
                50,
            )
            for strategy in ("cos", "linear")
            for three in (False, True)
        ),
    ],
)
def test_agrees_with_torch_where_torch_is_right(
    spec: ScheduleSpec, build: Callable[[Optimizer], LRScheduler], steps: int
) -> None:
    momentum = spec.cycled_momentum(0.9, run_of(steps))
    expected = torchs(build, steps, 0.9)
    rate = spec.compile_rate(0.1, run_of(steps))
    assert [rate(t) for t in range(steps)] == pytest.approx([lr for lr, _ in expected], rel=1e-9, abs=1e-12)
    if momentum:
        assert [momentum(t) for t in range(steps)] == pytest.approx([m for _, m in expected], rel=1e-12)
    else:
        assert {m for _, m in expected} == {0.9}


def test_momentum_mirrors_the_rate() -> None:
    """Linear up over 2 steps and down over 2: at its lowest the rate goes with 0.95, at its peak with 0.85."""
    cycled = {"base": 0.85, "max": 0.95}
    spec = schedule("cyclic", step_size_up=2, warmup=3, cycle_momentum=cycled)
    momentum = spec.cycled_momentum(0.5, run_of(20))
    assert momentum
    assert [momentum(t) for t in range(9)] == pytest.approx([0.95] * 4 + [0.9, 0.85, 0.9, 0.95, 0.9])
    assert schedule("cyclic").cycled_momentum(0.5, run_of(20)) is None


def test_a_sequence_cycles_what_its_members_cycle() -> None:
    """5 constant steps at the optimizer's own momentum, 8 of two triangles, then half a triangle that is cut short."""
    members = [
        {"name": "constant"},
        {"name": "cyclic", "step_size_up": 2, "cycle_momentum": {"base": 0.8, "max": 0.9}},
        {"name": "cosine_restarts", "T_0": 5},
    ]
    spec = schedule("sequence", schedules=members, milestones=[5, 15], warmup=1)
    momentum = spec.cycled_momentum(0.5, run_of(30))
    assert momentum
    assert [momentum(t) for t in (0, 5, 6, 7, 8, 10, 15, 16, 29)] == pytest.approx(
        [0.5, 0.5, 0.9, 0.85, 0.8, 0.9, 0.85, 0.5, 0.5]
    )
    assert list(spec.cycle_ends(run_of(30))) == [10, 14, 21, 26]
    assert list(spec.unimodal_ranges(run_of(30))) == [(1, 6), (6, 10), (10, 14), (14, 16), (16, 21), (21, 26), (26, 30)]


@pytest.mark.parametrize(
    ("spec", "steps", "ends"),
    [
        (sgdr(warmup=5), 36, [15, 25, 35]),
        (sgdr(warmup=5), 35, [15, 25, 35]),
        (sgdr(), 9, []),
        (clr(step_size_down=6), 31, [10, 20, 30]),
        (schedule("one_cycle"), 30, []),
    ],
)
def test_where_cycles_end(spec: ScheduleSpec, steps: int, ends: list[int]) -> None:
    assert list(spec.cycle_ends(run_of(steps))) == ends


def test_a_run_without_an_end_has_cycles_without_end() -> None:
    ends = sgdr(T_mult=2).cycle_ends(RunLength(10, LONGEST, bounded=False))
    assert list(islice(ends, 20)) == list(accumulate(10 * 2**i for i in range(20)))


def test_what_follows_from_the_rest_is_written_out() -> None:
    found = schedule("cyclic", step_size_up="2ep").resolved(run_of(100), 0.2).dump()
    assert (found["base_lr"], found["max_lr"], found["step_size_down"]) == (0.05, 0.2, "2ep")
    assert schedule("one_cycle", warmup=10).resolved(run_of(100), 0.2).dump()["total_steps"] == "90st"


def pointers(spec: ScheduleSpec, run: RunLength) -> list[str]:
    return [each.pointer for each in spec.problems(run)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (sgdr(T_0="0.04ep"), ["/T_0"]),
        (sgdr(T_0=1), []),
        (clr(step_size_up=0, step_size_down="0.001ep"), ["/step_size_up", "/step_size_down"]),
        (clr(base_lr=0.007), ["/base_lr"]),
        (schedule("one_cycle", total_steps=0), ["/total_steps"]),
        (schedule("one_cycle", three_phase=True, pct_start=0.5), ["/pct_start"]),
        (schedule("one_cycle", pct_start=0.5), []),
    ],
)
def test_nonsense_is_found(spec: ScheduleSpec, expected: list[str]) -> None:
    assert pointers(spec, run_of(100)) == expected


def test_too_many_cycles_are_found() -> None:
    """Ten thousand cycles are the most: one more step makes it one more."""
    assert [pointers(sgdr(T_0=1), run_of(steps)) for steps in (10_000, 10_001)] == [[], ["/T_0"]]
    assert pointers(clr(step_size_up=1), run_of(20_002)) == ["/step_size_up"]
    assert pointers(clr(step_size_up=1), RunLength(10, LONGEST, bounded=False)) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "cosine_restarts", "T_mult": 1.5},
        {"name": "cosine_restarts", "T_mult": 0},
        {"name": "cosine_restarts", "cycle_decay": 1.5},
        {"name": "cyclic", "gamma": 1.01},
        {"name": "cyclic", "mode": "triangular3"},
        {"name": "cyclic", "cycle_momentum": {"base": 0.9, "max": 0.8}},
        {"name": "one_cycle", "pct_start": 1.0},
        {"name": "one_cycle", "div_factor": 0.5},
        {"name": "one_cycle", "cycle_momentum": {"base": 0.0, "max": 0.8}},
    ],
)
def test_refused_at_once(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        READ.validate_json(json.dumps(fields))


def specs() -> Iterator[st.SearchStrategy[ScheduleSpec]]:
    steps, rates = st.integers(1, 30), st.floats(0.0, 0.1)
    yield st.builds(
        sgdr,
        T_0=steps,
        T_mult=st.integers(1, 4),
        eta_min=rates,
        cycle_decay=st.floats(0.01, 1.0),
        warmup=st.integers(0, 9),
    )
    yield st.builds(
        clr,
        base_lr=rates,
        max_lr=st.just(0.1),
        step_size_up=steps,
        step_size_down=steps,
        mode=st.sampled_from(["triangular", "triangular2", "exp_range"]),
        gamma=st.just(0.9),
    )
    yield st.builds(
        schedule,
        st.just("one_cycle"),
        total_steps=steps,
        pct_start=st.floats(0.0, 0.49),
        three_phase=st.booleans(),
        anneal_strategy=st.sampled_from(["cos", "linear"]),
    )


@settings(deadline=None)
@given(spec=st.one_of(*specs()), t=st.integers(0, 10**6))
def test_the_rate_stays_between_its_bounds(spec: ScheduleSpec, t: int) -> None:
    low = getattr(spec, "eta_min", None) or getattr(spec, "base_lr", None) or 0.0
    rate = spec.compile_rate(0.1, run_of(100))(t)
    assert math.isfinite(rate)
    assert (0.0 if t < spec.warmup.steps(run_of(100)) else low - 1e-15) <= rate <= 0.1 + 1e-15


@settings(deadline=None)
@given(first=st.integers(1, 30), factor=st.integers(1, 4), t=st.integers(0, 5000))
def test_a_cycle_is_found_as_by_walking(first: int, factor: int, t: int) -> None:
    """The naive way: one step after the other, a counter that begins anew."""
    counter, length = 0, first
    for _ in range(t):
        counter += 1
        if counter == length:
            counter, length = 0, length * factor
    rate = sgdr(T_0=first, T_mult=factor).compile_rate(0.1, run_of(100))
    assert rate(t) == pytest.approx(0.05 * (1 + math.cos(math.pi * counter / length)), abs=1e-15)
