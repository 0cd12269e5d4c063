"""An optimizer is a spec and two import strings: the optimizer's class, and the stepper with which the engine calls it.

Names and defaults of options are those of the implementation.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Self

from core.recipe.component import Component, Positive


class OptimizerSpec(Component):
    """Options are passed to `implementation` verbatim.

    `stepper` builds the object that calls it in the engine. The default passes all weights as one flat tensor, which is
    correct (and fastest) for elementwise updates. The other class variables are its requirements.
    """

    implementation: ClassVar[str]
    stepper: ClassVar[str] = "core.engine.optimizers.flat:build_flat_stepper"
    full_batch: ClassVar[bool] = False
    """Whether it compares the gradients of successive steps, so that each must be that of all examples."""
    closure: ClassVar[bool] = False
    """Whether it evaluates loss and gradient several times in one step."""
    constant_lr_reason: ClassVar[str | None] = None
    """Why the learning rate must be constant; None if it may change from step to step."""
    averages: ClassVar[bool] = False
    """Whether it averages the weights itself, and is evaluated at that average."""
    hidden_matrices: ClassVar[bool] = False
    """Whether it is for the matrices of hidden layers, of which the model must have at least one."""
    extra: ClassVar[str | None] = None
    """The extra of the installation that has `implementation`."""
    lr: Positive = 1e-3

    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments for `implementation`, including `lr`."""
        return self.model_dump(exclude={"name"})

    def own_momentum(self) -> float | None:
        """Momentum, or Adam's first beta, which a schedule may cycle; None if it has neither."""
        betas: tuple[float, ...] = getattr(self, "betas", ())
        return getattr(self, "momentum", None) or next(iter(betas), None)

    def import_string(self) -> str:
        """The import string of the optimizer's class."""
        return self.implementation

    @property
    def no_lr_sweep_reason(self) -> str | None:
        """Why a learning-rate range test has no meaning for it; None if it has one."""
        return "it searches the size of each step" if self.closure else self.constant_lr_reason

    @property
    def stability_limit(self) -> float | None:
        """The largest curvature at which full-batch steps are stable at its rate; None if there is no formula."""
        return None

    @property
    def uses_foreign_rng(self) -> bool:
        """Whether it draws random numbers from generators that are not torch's."""
        return False

    @property
    def fallback_optimizer(self) -> "OptimizerSpec":
        """The optimizer of the weights that this one does not support; itself if it supports all."""
        return self

    def adjust_rate(self, scheduled: Callable[[int], float]) -> Callable[[int], float]:
        """T -> the learning rate of step t, given that of the schedule."""
        return scheduled

    def resolved(self) -> Self:
        """The same spec with every option that depends on others filled in."""
        return self

    @property
    def has_weight_decay(self) -> bool:
        """Whether weight decay is above 0."""
        return getattr(self, "weight_decay", 0.0) > 0
