import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import ClassVar, Literal

from core.errors import FieldProblem
from core.recipe.component import NonNegative
from core.recipe.duration import Duration, RunLength
from core.recipe.schedules.base import LearningRate, ScheduleSpec

Shape = Literal["linear", "cosine", "sqrt"]
SHAPES: dict[Shape, Callable[[float], float]] = {
    "linear": lambda share: 1 - share,
    "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
    "sqrt": lambda share: 1 - math.sqrt(share),
}
"""The decay functions: 1 at 0, 0 at 1."""


class WSD(ScheduleSpec):
    """lr until the last `decay` of the run, then eta_min + (lr - eta_min) f(v / decay) in its v-th step.

    f(x) is 1 - x (linear), (1 + cos(pi x)) / 2 (cosine) or 1 - √x (sqrt). The constant part can be extended and forked
    at will; only the decay depends on the end of the run.
    """

    summary: ClassVar[str] = "Warm-up, a long constant part, and a decay at the end."
    paper: ClassVar[str | None] = (
        "Hu et al. 2024, arXiv:2404.06395; the square-root shape: Hägele et al., arXiv:2405.18392"
    )
    name: Literal["wsd"] = "wsd"
    decay: Duration = Duration(Fraction(1, 10), "run")
    shape: Shape = "sqrt"
    eta_min: NonNegative = 0.0

    def rate_after_warmup(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        decay, left = self.decay.steps(run), SHAPES[self.shape]
        stable = rest - decay

        def rate(u: int) -> float:
            done = u - stable
            return lr if done <= 0 else self.eta_min + (lr - self.eta_min) * left(min(done, decay) / decay)

        return rate

    def nonzero_durations(self) -> Iterator[tuple[str, Duration]]:
        yield "decay", self.decay

    def problems(self, run: RunLength) -> Iterator[FieldProblem]:
        yield from super().problems(run)
        decay, warm = self.decay.steps(run), self.warmup.steps(run)
        if decay + warm > run.total_steps:
            message = f"warm-up and decay take {warm + decay:,} of {run.total_steps:,} optimizer steps"
            yield FieldProblem("/decay", message, "make one of them shorter")
