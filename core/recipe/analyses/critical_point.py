"""The kind of critical point at which the weights are."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.recipe.analyses.base import AnalysisSpec
from core.recipe.component import Positive
from core.recipe.spec import JobSpec

ALONG_GRADIENT = 20  # the most products in the Krylov space of the gradient
PRODUCT = 5  # the approximate cost of a product with the Hessian in forward passes
ROOM = 2**30  # bytes of the autograd graphs that are kept between such products


class CriticalPoint(AnalysisSpec):
    """A minimum, a saddle, a maximum, or no stationary point of the train loss, and the loss along the way down.

    A point is stationary if |g·v| <= `gradient_tolerance` |λ| along every eigenvector v: the extremum of each parabola
    is no further away than that. Lanczos starts at the gradient to find these pairs, so that a small slope along a flat
    valley is found beside steep directions. An eigenvalue counts as negative below -`curvature_tolerance` |λ| of the
    largest, because trained networks nearly always have slightly negative ones. The profile is the loss at `points`
    places up to `reach` in both directions along the eigenvector of the smallest eigenvalue. Where the loss falls by
    more than these tolerances explain, and by more than a thousandth of itself, this is not a minimum.

    `sure` is whether the verdict is the same for all eigenvalues within their residuals. A minimum whose
    smallest curvature may be 0, or is negative within the tolerance, is not sure.
    """

    summary: ClassVar[str] = (
        "Minimum, saddle or no stationary point, with the direction of escape and the loss along it."
    )
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
