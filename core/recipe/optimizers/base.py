"""An optimizer is a spec and two import strings: what steps, and how the engine drives it.

Names and defaults are the implementation's own; the plan adds how it is executed.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Self

from core.recipe.component import Component, Positive


class OptimizerSpec(Component):
    """Options are passed to `implementation` verbatim.

    `stepper` builds what drives it in the engine: the default gives it all weights as one flat tensor, which is right
    (and fastest) wherever each weight is updated by itself. The other class variables say what it cannot live with.
    """

    implementation: ClassVar[str]
    stepper: ClassVar[str] = "core.engine.optimizers.flat:build_flat_stepper"
    full_batch: ClassVar[bool] = False
    """It compares the gradients of successive steps, so each must be that of all examples."""
    closure: ClassVar[bool] = False
    """It evaluates loss and gradient several times in one step."""
    steady: ClassVar[str | None] = None
    """Why the learning rate must not move from step to step, if it must not."""
    averages: ClassVar[bool] = False
    """It averages by itself, and is judged at that average."""
    hidden_matrices: ClassVar[bool] = False
    """It is made for the matrices of hidden layers, of which there must be one."""
    extra: ClassVar[str | None] = None
    """The optional part of the installation that brings `implementation`."""
    lr: Positive = 1e-3

    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments for `implementation`, `lr` among them."""
        return self.model_dump(exclude={"name"})

    def own_momentum(self) -> float | None:
        """Momentum, or Adam's first beta: what a schedule may cycle. None where there is none."""
        betas: tuple[float, ...] = getattr(self, "betas", ())
        return getattr(self, "momentum", None) or next(iter(betas), None)

    def import_string(self) -> str:
        """The import string of what steps."""
        return self.implementation

    @property
    def no_lr_sweep_reason(self) -> str | None:
        """Why it says nothing to try it at one learning rate after another, if it says nothing."""
        return "it searches the size of each step by itself" if self.closure else self.steady

    @property
    def stability_limit(self) -> float | None:
        """The curvature up to which steps by full batches are stable at its rate; None where no formula says."""
        return None

    @property
    def uses_foreign_rng(self) -> bool:
        """Whether it draws random numbers from generators that are not torch's."""
        return False

    @property
    def fallback_optimizer(self) -> "OptimizerSpec":
        """What steps the weights that this one is not made for; where it is made for all, itself."""
        return self

    def adjust_rate(self, scheduled: Callable[[int], float]) -> Callable[[int], float]:
        """T -> the learning rate of step t, from what the schedule gives."""
        return scheduled

    def resolved(self) -> Self:
        """With every option that follows from the others written out."""
        return self

    @property
    def has_weight_decay(self) -> bool:
        """Whether weight decay does anything."""
        return getattr(self, "weight_decay", 0.0) > 0
