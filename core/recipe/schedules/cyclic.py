from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from core.errors import FieldProblem
from core.recipe.component import NonNegative, Positive
from core.recipe.duration import Duration, RunLength
from core.recipe.schedules.base import LearningRate, Momentum, ScheduleSpec, too_many_cycles
from core.recipe.schedules.momentum import CycleMomentum

Mode = Literal["triangular", "triangular2", "exp_range"]


class Cyclic(ScheduleSpec):
    """CLR: base_lr + (max_lr - base_lr) h s. h rises from 0 to 1 over step_size_up steps and falls to 0 over
    step_size_down; s is 1 (triangular), 1/2^cycle (triangular2) or gamma^u (exp_range, u counted from the start, as the
    paper's code does).

    `max_lr` is the optimizer's rate and `base_lr` a quarter of that unless given (the paper's rule of thumb); torch
    requires both. A half cycle is 4 epochs (the paper: 2 to 10; torch: 2000 steps).
    """

    summary: ClassVar[str] = "CLR: the rate rises and falls linearly, with constant or decreasing height."
    paper: ClassVar[str | None] = "Smith 2015, arXiv:1506.01186"
    name: Literal["cyclic"] = "cyclic"
    base_lr: NonNegative | None = None
    max_lr: Positive | None = None
    step_size_up: Duration = Duration(Fraction(4), "ep")
    step_size_down: Duration | None = None
    mode: Mode = "triangular"
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    cycle_momentum: CycleMomentum | None = None

    def rate_after_warmup(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        (low, high), share = self._rate_bounds(lr), self._share_of_range(run)
        return lambda u: low + (high - low) * share(u)

    def warmup_target(self, lr: float) -> float:
        return self._rate_bounds(lr)[0]

    def cycled_momentum(self, own: float, run: RunLength) -> Momentum | None:
        cycled = self.cycle_momentum
        if cycled is None:
            return None
        warm, share = self.warmup.steps(run), self._share_of_range(run)
        return lambda t: cycled.momentum_at(share(t - warm) if t >= warm else 0.0)

    def _rate_bounds(self, lr: float) -> tuple[float, float]:
        high = lr if self.max_lr is None else self.max_lr
        return high / 4 if self.base_lr is None else self.base_lr, high

    def _half_cycle_steps(self, run: RunLength) -> tuple[int, int]:
        """Steps up and steps down."""
        return self.step_size_up.steps(run), (self.step_size_down or self.step_size_up).steps(run)

    def _share_of_range(self, run: RunLength) -> Callable[[int], float]:
        """U -> the position between base_lr (0) and max_lr (1)."""
        up, down = self._half_cycle_steps(run)

        def share(u: int) -> float:
            cycle, step = divmod(u, up + down)
            height = step / up if step <= up else (up + down - step) / down
            return height * self._cycle_height(cycle, u)

        return share

    def _cycle_height(self, cycle: int, u: int) -> float:
        """The height of the triangle in cycle = 0, 1, …, u steps after the start of the first one."""
        if self.mode == "triangular":
            return 1.0
        return 0.5**cycle if self.mode == "triangular2" else self.gamma**u

    def resolved(self, run: RunLength, lr: float) -> Self:
        low, high = self._rate_bounds(lr)
        down = self.step_size_down or self.step_size_up
        return self.model_copy(update={"base_lr": low, "max_lr": high, "step_size_down": down})

    def cycle_ends(self, run: RunLength) -> Iterator[int]:
        length = sum(self._half_cycle_steps(run))
        return iter(range(self.warmup.steps(run) + length, run.total_steps + 1, length))

    def nonzero_durations(self) -> Iterator[tuple[str, Duration]]:
        yield "step_size_up", self.step_size_up
        if self.step_size_down:
            yield "step_size_down", self.step_size_down

    def problems(self, run: RunLength) -> Iterator[FieldProblem]:
        too_short = list(super().problems(run))
        yield from too_short or too_many_cycles("step_size_up", self.cycle_ends(run), run)
        if self.base_lr is not None and self.max_lr is not None and self.base_lr > self.max_lr:
            message = f"{self.base_lr:g} is above max_lr, {self.max_lr:g}"
            yield FieldProblem("/base_lr", message, "swap the two")
