"""An optimizer is a spec and an import string. Names and defaults are torch's own; the plan adds how it is executed."""

from typing import Any, ClassVar

from core.recipe.component import Component, Positive


class OptimizerSpec(Component):
    """Options are passed to `implementation` verbatim."""

    implementation: ClassVar[str]
    lr: Positive = 1e-3

    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments for `implementation`, `lr` among them."""
        return self.model_dump(exclude={"name"})

    def own_momentum(self) -> float | None:
        """Momentum, or Adam's first beta: what a schedule may cycle. None where there is none."""
        betas: tuple[float, ...] = getattr(self, "betas", ())
        return getattr(self, "momentum", None) or next(iter(betas), None)
