"""The base class of the schedule-free methods; each method has its own file."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import Field

from core.recipe.optimizers.base import OptimizerSpec

Power = Annotated[float, Field(ge=-4, le=4, allow_inf_nan=False)]  # exponent of numbers up to 1e36, in float64
Mix = Annotated[float, Field(ge=0.01, lt=1, allow_inf_nan=False)]  # x is computed with a division by it


class ScheduleFreeSpec(OptimizerSpec):
    """Gradients are taken at y = (1 - β) z + β x; evaluations and checkpoints use x."""

    stepper: ClassVar[str] = "core.engine.optimizers.schedule_free:build_schedule_free_stepper"
    averages: ClassVar[bool] = True
    constant_lr_reason: ClassVar[str | None] = "the average replaces a schedule"
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)] = 0
    r: Power = 0.0
    weight_lr_power: Power = 2.0

    @property
    @abstractmethod
    def beta(self) -> float:
        """The share of the average x in the point y at which gradients are taken."""

    def kwargs(self) -> dict[str, Any]:
        """Without the warm-up, which `adjust_rate` applies: so the series `lr` is the effective learning rate."""
        return self.model_dump(exclude={"name", "warmup_steps"})

    def adjust_rate(self, scheduled: Callable[[int], float]) -> Callable[[int], float]:
        """Lr · (t + 1) / warmup_steps for t < warmup_steps, as in the library."""
        warm = self.warmup_steps
        return lambda t: scheduled(t) * ((t + 1) / warm) if t < warm else scheduled(t)
