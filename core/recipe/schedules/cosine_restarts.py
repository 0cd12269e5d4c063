import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.errors import FieldProblem
from core.recipe.component import NonNegative
from core.recipe.duration import Duration, RunLength
from core.recipe.schedules.base import LearningRate, ScheduleSpec, too_many_cycles


class CosineRestarts(ScheduleSpec):
    """SGDR. v steps into its cycle i of T_i = T_0 T_mult^i steps the rate is eta_min + (p_i - eta_min) (1 + cos(pi v /
    T_i)) / 2, with the peak p_i = max(eta_min, lr cycle_decay^i).

    Cycles are computed in integers (torch, timm and Keras use a logarithm, which torch rounds wrongly at some
    restarts). The paper recommends the weights at the end of the last completed cycle: the weights at the end of each
    cycle are kept as `cycle_end` checkpoints and evaluated as `incumbent`. `cycle_decay` is timm's; Keras' m_mul
    multiplies the height above the minimum instead, which is the same where eta_min is 0.
    """

    summary: ClassVar[str] = "SGDR: half a cosine with warm restarts, in cycles of equal or growing length."
    paper: ClassVar[str | None] = "Loshchilov & Hutter 2016, arXiv:1608.03983, eq. 5 and section 3"
    name: Literal["cosine_restarts"] = "cosine_restarts"
    T_0: Duration = Duration(Fraction(10), "ep")
    T_mult: Annotated[int, Field(ge=1, le=100)] = 1
    eta_min: NonNegative = 0.0
    cycle_decay: Annotated[float, Field(gt=0, le=1)] = 1.0

    def rate_after_warmup(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        first = self.T_0.steps(run)

        def rate(u: int) -> float:
            cycle, step, length = self._locate_cycle(u, first)
            peak = max(self.eta_min, lr * self.cycle_decay**cycle)
            return self.eta_min + (peak - self.eta_min) * (1 + math.cos(math.pi * step / length)) / 2

        return rate

    def _locate_cycle(self, u: int, first: int) -> tuple[int, int, int]:
        """The cycle of step u, the step within the cycle, and the length of the cycle."""
        if self.T_mult == 1:
            return *divmod(u, first), first
        cycle, length = 0, first
        while u >= length:
            cycle, u, length = cycle + 1, u - length, length * self.T_mult
        return cycle, u, length

    def cycle_ends(self, run: RunLength) -> Iterator[int]:
        end, length = self.warmup.steps(run), self.T_0.steps(run)
        while (end := end + length) <= run.total_steps:
            yield end
            length *= self.T_mult

    def nonzero_durations(self) -> Iterator[tuple[str, Duration]]:
        yield "T_0", self.T_0

    def problems(self, run: RunLength) -> Iterator[FieldProblem]:
        yield from super().problems(run)
        if self.T_0.steps(run):
            yield from too_many_cycles("T_0", self.cycle_ends(run), run)
