"""What kind of place the weights are at."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.recipe.analyses.base import AnalysisSpec
from core.recipe.component import Positive
from core.recipe.spec import JobSpec

ALONG_GRADIENT = 20  # products in the space that the gradient spans, at most
PRODUCT = 5  # examples' passes that a product with the Hessian costs, about, a backward pass counted as two
ROOM = 2**30  # bytes of graphs that are kept between such products


class CriticalPoint(AnalysisSpec):
    """A minimum, a saddle, a maximum, or no stationary point of the train loss, and the loss along the way down.

    Stationary is where |g·v| <= `gradient_tolerance` |λ| along every eigenvector v: the bottom of each parabola, or its
    top, is no further away than that. The pairs are those that Lanczos finds from the gradient itself, so that no flat
    valley hides its slope behind a steep wall. An eigenvalue counts as negative below -`curvature_tolerance` |λ| of the
    largest, since trained networks nearly always have some that are slightly so. The profile is the loss at `points`
    places up to `reach` to both sides along the eigenvector of the smallest eigenvalue: where it falls from the weights
    on by more than these tolerances explain, and by more than a thousandth of itself, this is no minimum.

    `sure` is whether the verdict is the same wherever within their residuals the eigenvalues are. A minimum whose
    smallest curvature may be 0, or is negative within the tolerance, is not sure.
    """

    summary: ClassVar[str] = "Minimum, saddle or no stationary point, with the direction of escape and the loss on it."
    paper: ClassVar[str | None] = (
        "Dauphin et al. 2014, Identifying and attacking the saddle point problem in high-dimensional non-convex "
        "optimization"
    )
    implementation: ClassVar[str] = "core.engine.analysis.critical_point"

    kind: Literal["critical_point"] = "critical_point"
    gradient_tolerance: Positive = 1e-2
    curvature_tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-2
    lanczos_steps: Annotated[int, Field(ge=10, le=200)] = 40
    reach: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    points: Annotated[int, Field(ge=3, le=1001)] = 41

    def example_passes(self, subject: JobSpec) -> float:
        return (3 + PRODUCT * (self.lanczos_steps + 2 + ALONG_GRADIENT) + self.points) * self.examples_of(subject)

    def memory_bytes(self, subject: JobSpec) -> float:
        return ROOM + 4 * (10 + self.lanczos_steps + ALONG_GRADIENT) * subject.model.parameter_count(
            subject.data.facts()
        )
