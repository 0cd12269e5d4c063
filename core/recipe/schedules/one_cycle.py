import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.errors import FieldProblem
from core.recipe.component import Fraction
from core.recipe.duration import Duration, RunLength
from core.recipe.schedules.base import LearningRate, Momentum, ScheduleSpec
from core.recipe.schedules.momentum import CycleMomentum

Strategy = Literal["cos", "linear"]
BLENDS: dict[Strategy, Callable[[float], float]] = {
    "cos": lambda share: (1 - math.cos(math.pi * share)) / 2,
    "linear": lambda share: share,
}
"""Interpolation functions: 0 at 0, 1 at 1."""


class OneCycle(ScheduleSpec):
    """From lr / div_factor up to lr, reached at step pct_start total_steps - 1, and down to lr / (div_factor
    final_div_factor) at step total_steps - 1; there it stays.

    With `three_phase` it first falls to its initial value, in as many steps as it rose, and then to the final one. The
    optimizer's rate is torch's max_lr. torch's rate rises again after the end, and torch raises an error one step
    later.
    """

    summary: ClassVar[str] = "One rise and one fall to far below the initial rate, over the whole run."
    paper: ClassVar[str | None] = "Smith & Topin 2017, arXiv:1708.07120; torch.optim.lr_scheduler.OneCycleLR"
    fills: ClassVar[str | None] = "total_steps"
    name: Literal["one_cycle"] = "one_cycle"
    total_steps: Duration | None = None
    pct_start: Fraction = 0.3
    anneal_strategy: Strategy = "cos"
    div_factor: Annotated[float, Field(ge=1, le=1e12)] = 25.0
    final_div_factor: Annotated[float, Field(ge=1, le=1e12)] = 1e4
    three_phase: bool = False
    cycle_momentum: CycleMomentum | None = None

    def rate_after_warmup(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        first = self.warmup_target(lr)
        last = first / self.final_div_factor
        values = (first, lr, first, last) if self.three_phase else (first, lr, last)
        return self._piecewise_curve(values, self.filled_steps(run, rest))

    def warmup_target(self, lr: float) -> float:
        return lr / self.div_factor

    def cycled_momentum(self, own: float, run: RunLength) -> Momentum | None:
        cycled, warm = self.cycle_momentum, self.warmup.steps(run)
        if cycled is None:
            return None
        values = (cycled.max, cycled.base, cycled.max, cycled.max)[: 4 if self.three_phase else 3]
        curve = self._piecewise_curve(values, self.filled_steps(run, max(1, run.total_steps - warm)))
        return lambda t: curve(max(0, t - warm))

    def _piecewise_curve(self, values: tuple[float, ...], length: int) -> Callable[[int], float]:
        """U -> value: from each of the values to the next, constant after the last."""
        peak, blend = self.pct_start * length - 1, BLENDS[self.anneal_strategy]
        corners = [0.0, peak, 2 * peak, length - 1.0] if self.three_phase else [0.0, peak, length - 1.0]

        def value(u: int) -> float:
            at = min(u, length - 1)
            part = bisect_right(corners[1:-1], at)
            share = (at - corners[part]) / (corners[part + 1] - corners[part])
            return values[part] + (values[part + 1] - values[part]) * blend(share)

        return value

    def problems(self, run: RunLength) -> Iterator[FieldProblem]:
        yield from super().problems(run)
        if self.three_phase and self.pct_start >= 0.5:
            message = "rise and fall take twice pct_start, which leaves no steps for the third phase"
            yield FieldProblem("/pct_start", message, "with three phases it must be below 0.5")
