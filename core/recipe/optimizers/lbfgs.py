from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from core.recipe.component import NonNegative, Positive
from core.recipe.optimizers.base import OptimizerSpec

Evaluations = Annotated[int, Field(ge=1, le=100_000)]


class LBFGS(OptimizerSpec):
    """One step is up to max_iter moves along -H g, H built from the last history_size pairs of moves and changes of g.

    Each move needs loss and gradient of all examples again: at most max_eval evaluations a step (5/4 max_iter unless
    given). A move has length lr (the first one min(1, 1/|g|₁) lr), or is found by a line search that satisfies the
    strong Wolfe conditions. A step ends early where |g| falls to tolerance_grad or a move to tolerance_change.
    """

    summary: ClassVar[str] = "L-BFGS: quasi-Newton moves on the full batch, curvature learnt from past gradients."
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
        """With `max_eval` written out as torch fills it in."""
        return self if self.max_eval else self.model_copy(update={"max_eval": max(1, self.max_iter * 5 // 4)})
