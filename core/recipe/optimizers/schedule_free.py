"""What the schedule-free methods share. It is no component: each of them has a file of its own."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import Field

from core.recipe.optimizers.base import OptimizerSpec

Power = Annotated[float, Field(ge=-4, le=4, allow_inf_nan=False)]  # of numbers up to 1e36, in double precision
Mix = Annotated[float, Field(ge=0.01, lt=1, allow_inf_nan=False)]  # x is found by dividing by it


class ScheduleFreeSpec(OptimizerSpec):
    """Gradients are taken at y = (1 - β) z + β x; what a run is judged by and what checkpoints hold is x."""

    stepper: ClassVar[str] = "core.engine.optimizers.schedule_free:build_schedule_free_stepper"
    averages: ClassVar[bool] = True
    steady: ClassVar[str | None] = "the average takes the place of a schedule"
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)] = 0
    r: Power = 0.0
    weight_lr_power: Power = 2.0

    @property
    @abstractmethod
    def beta(self) -> float:
        """How much of the average is in the point where gradients are taken."""

    def kwargs(self) -> dict[str, Any]:
        """Without the warm-up, which `rate` has done already: the series `lr` then tells the truth."""
        return self.model_dump(exclude={"name", "warmup_steps"})

    def adjust_rate(self, scheduled: Callable[[int], float]) -> Callable[[int], float]:
        """Lr · (t + 1) / warmup_steps for t < warmup_steps, as the library has it."""
        warm = self.warmup_steps
        return lambda t: scheduled(t) * ((t + 1) / warm) if t < warm else scheduled(t)
