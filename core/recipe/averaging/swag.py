"""SWA-Gaussian: a normal distribution around the SWA solution, estimated from the collected weights."""

from typing import Annotated, ClassVar

from pydantic import Field

from core.recipe.averaging.base import AveragingSpec
from core.recipe.component import Positive


class SWAG(AveragingSpec):
    """Predictions averaged over networks drawn from N(mean, scale (diag(variance) + D Dᵀ / (K - 1))).

    Mean and variance are those of the models that SWA collects. D has the last `max_rank` of them as deviations from
    the running mean, and K is their number; the reference code divides by max_rank - 1 even if fewer were collected.
    `scale` 0.5 is the paper's. Batch norm is estimated again for each of the `samples`; they are drawn once, at the
    end, from a separate generator.
    """

    name: ClassVar[str] = "swag"
    field: ClassVar[str] = "swa.swag"
    summary: ClassVar[str] = "SWA-Gaussian: predictions averaged over samples around the SWA solution."
    paper: ClassVar[str | None] = "Maddox et al. 2019, arXiv:1902.02476"

    samples: Annotated[int, Field(ge=1, le=1000)] = 30
    max_rank: Annotated[int, Field(ge=2, le=1000)] = 20
    scale: Positive = 0.5
