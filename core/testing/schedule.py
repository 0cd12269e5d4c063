"""The contract of a schedule."""

import math
from collections.abc import Callable

from core.recipe.duration import RunLength
from core.recipe.schedules.base import ScheduleSpec
from core.testing.component import check_component, no_global_randomness
from core.testing.runs import check_run

RUN = RunLength(steps_per_epoch=8, total_steps=80)
LR = 0.1


def check_schedule(
    spec: ScheduleSpec, formula: Callable[[int], float] | None = None, run: RunLength = RUN, lr: float = LR
) -> None:
    """Everything. `formula(t)` is the rate of step t = 0, 1, … of `run`, for an optimizer whose rate is `lr`."""
    check_component(spec, ScheduleSpec)
    problems = [f"{each.pointer}: {each.message}" for each in spec.problems(run)]
    assert not problems, f"it does not fit a run of {run.total_steps} steps: {problems}"
    with no_global_randomness():
        rates, again = (list(map(spec.compile_rate(lr, run), range(run.total_steps))) for _ in range(2))
    assert rates == again, "the rates depend on more than the step"
    backwards = spec.compile_rate(lr, run)
    assert [backwards(t) for t in reversed(range(run.total_steps))] == rates[::-1], "a rate depends on earlier calls"
    assert all(math.isfinite(rate) and rate >= 0 for rate in rates), "a rate is negative or not finite"
    resolved = spec.resolved(run, lr)
    assert resolved.resolved(run, lr) == resolved, "to resolve it twice changes it"
    assert list(map(resolved.compile_rate(lr, run), range(run.total_steps))) == rates, "resolved it gives other rates"
    for t, (rate, expected) in enumerate(zip(rates, map(formula, range(len(rates))), strict=True) if formula else ()):
        assert math.isclose(rate, expected, rel_tol=1e-12, abs_tol=1e-15), f"step {t}: {rate}, not {expected}"
    check_run(schedule=spec.dump())
