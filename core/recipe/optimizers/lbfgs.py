from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from core.recipe.component import NonNegative, Positive
from core.recipe.optimizers.base import OptimizerSpec

Evaluations = Annotated[int, Field(ge=1, le=100_000)]


class LBFGS(OptimizerSpec):
    """One step is up to max_iter iterations along -H g; H comes from the last history_size updates and changes of g.

    Each iteration evaluates loss and gradient of all examples again: at most max_eval evaluations in a step (by default
    5/4 max_iter). An iteration has step size lr (the first one min(1, 1/|g|₁) lr), or that of a line search with the
    strong Wolfe conditions. A step ends early where |g| falls to tolerance_grad or an update to tolerance_change.
    """

    summary: ClassVar[str] = "L-BFGS: quasi-Newton updates on the full batch, with curvature from past gradients."
    paper: ClassVar[str | None] = "Liu & Nocedal 1989, On the limited memory BFGS method for large scale optimization"
    implementation: ClassVar[str] = "torch.optim:LBFGS"
    stepper: ClassVar[str] = "core.engine.optimizers.closure:build_closure_stepper"
    full_batch: ClassVar[bool] = True
    closure: ClassVar[bool] = True
    name: Literal["lbfgs"] = "lbfgs"
    lr: Positive = 1.0
    max_iter: Evaluations = 20
    max_eval: Evaluations | None = None
    tolerance_grad: NonNegative = 1e-7
    tolerance_change: NonNegative = 1e-9
    history_size: Annotated[int, Field(ge=1, le=1000)] = 100
    line_search_fn: Literal["strong_wolfe"] | None = None

    def resolved(self) -> Self:
        """The same spec with `max_eval` filled in as in torch."""
        return self if self.max_eval else self.model_copy(update={"max_eval": max(1, self.max_iter * 5 // 4)})
