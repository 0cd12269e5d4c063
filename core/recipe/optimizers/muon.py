from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from core.recipe.component import LARGEST, Fraction, NonNegative
from core.recipe.optimizers.adamw import AdamW
from core.recipe.optimizers.base import OptimizerSpec

Coefficient = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]


class Muon(OptimizerSpec):
    """b <- momentum b + (1 - momentum) g, o = its nearest orthogonal matrix; w <- (1 - lr weight_decay) w - lr s o.

    o comes from ns_steps rounds of a Newton-Schulz iteration in bfloat16, of g + momentum (b - g) with nesterov. The
    scale s of an A by B matrix is √max(1, A/B) (`original`, the default) or 0.2 √max(A, B) (`match_rms_adamw`).

    Muon updates the weight matrices of hidden layers. AdamW with the options `adamw` updates all other weights (the
    first and the last layer with weights, convolutions, biases, batch norms); its lr follows the schedule in
    proportion: adamw.lr · lr(t) / lr.
    """

    summary: ClassVar[str] = "Muon: orthogonalised momentum for hidden matrices, AdamW for all other weights."
    paper: ClassVar[str | None] = "Jordan et al. 2024, Muon: an optimizer for hidden layers; arXiv:2502.16982"
    implementation: ClassVar[str] = "torch.optim:Muon"
    stepper: ClassVar[str] = "core.engine.optimizers.muon:build"
    hidden_matrices: ClassVar[bool] = True
    name: Literal["muon"] = "muon"
    weight_decay: NonNegative = 0.1
    momentum: Fraction = 0.95
    nesterov: bool = True
    ns_coefficients: tuple[Coefficient, Coefficient, Coefficient] = (3.4445, -4.7750, 2.0315)
    eps: NonNegative = 1e-7
    ns_steps: Annotated[int, Field(ge=0, lt=100)] = 5
    adjust_lr_fn: Literal["original", "match_rms_adamw"] | None = None
    adamw: AdamW = AdamW()

    def kwargs(self) -> dict[str, Any]:
        return self.model_dump(exclude={"name", "adamw"})

    @property
    def fallback_optimizer(self) -> AdamW:
        """The optimizer of all weights that are not hidden matrices."""
        return self.adamw

    @property
    def has_weight_decay(self) -> bool:
        return self.weight_decay > 0 or self.adamw.has_weight_decay
