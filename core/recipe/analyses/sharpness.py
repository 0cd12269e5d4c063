"""The sharpness of minima, by several measures that do not always agree."""

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.errors import FieldProblem
from core.recipe.analyses.base import AnalysisSpec
from core.recipe.spec import JobSpec

Measure = Literal[
    "gradient_norm",
    "filter_noise",
    "multiplicative_noise",
    "eigenvalues",
    "trace",
    "worst_case",
    "adaptive_worst_case",
]
Radius = Annotated[float, Field(gt=0, le=10)]
PRODUCT = 5  # the approximate cost of a product with the Hessian in forward passes
ROOM = 2**30  # bytes of the autograd graphs that are kept between such products


class Sharpness(AnalysisSpec):
    """The train loss around weights: each of the `measures` with its value, its error and its cost.

    The two noise measures are the mean increase of the loss over `directions` random directions at `radius`: normalised
    filter by filter, or each weight times 1 + radius n. `eigenvalues` are the largest and the smallest of the Hessian,
    from `lanczos_steps` products with it; `trace` is estimated from `probes`. The worst cases are the largest increase
    that `ascent_steps` projected ascent steps find within `rho` of the weights, or within `adaptive_rho` in units of
    each weight's size. The increase after a single step is not offered: it measures the gradient.
    """

    summary: ClassVar[str] = (
        "Several measures of sharpness side by side, with the train loss at which they were measured."
    )
    paper: ClassVar[str | None] = (
        "Li et al. 2018, Visualizing the loss landscape of neural nets; Dinh et al. 2017, Sharp minima can generalize "
        "for deep nets; Andriushchenko et al. 2023, A modern look at the relationship between sharpness and "
        "generalization"
    )
    implementation: ClassVar[str] = "core.engine.analysis.sharpness"
    most: ClassVar[int] = 16
    alike: ClassVar[bool] = False

    kind: Literal["sharpness"] = "sharpness"
    measures: Annotated[tuple[Measure, ...], Field(min_length=1, max_length=7)] = ("gradient_norm", "filter_noise")
    radius: Radius = 0.3
    directions: Annotated[int, Field(ge=10, le=1000)] = 10
    lanczos_steps: Annotated[int, Field(ge=10, le=200)] = 30
    probes: Annotated[int, Field(ge=30, le=10_000)] = 30
    rho: Radius = 0.2
    adaptive_rho: Radius = 0.5
    ascent_steps: Annotated[int, Field(ge=10, le=500)] = 20

    def contradictions(self) -> Iterator[FieldProblem]:
        found = tuple(super().contradictions())
        yield from found
        if not found and len(set(self.measures)) < len(self.measures):
            yield FieldProblem("/measures", "one of them is named twice", "name each once")

    def problems(self, subjects: Sequence[JobSpec]) -> Iterator[FieldProblem]:
        yield from super().problems(subjects)
        for subject in subjects:
            if "filter_noise" in self.measures and not subject.model.filters:
                message = f"the weights of {subject.model.name} are no filters, so filter_noise has no scale"
                yield FieldProblem("/measures", message, 'name others, as in "measures": ["eigenvalues"]')
                return

    def example_passes(self, subject: JobSpec) -> float:
        costs: dict[Measure, float] = {
            "gradient_norm": 3,
            "filter_noise": self.directions + 1,
            "multiplicative_noise": self.directions + 1,
            "eigenvalues": PRODUCT * (self.lanczos_steps + 2),
            "trace": PRODUCT * self.probes,
            "worst_case": 3 * self.ascent_steps + 1,
            "adaptive_worst_case": 3 * self.ascent_steps + 1,
        }
        return len(self.requested_starts()) * sum(costs[each] for each in self.measures) * self.examples_of(subject)

    def memory_bytes(self, subject: JobSpec) -> float:
        vectors = 10 + (self.lanczos_steps if "eigenvalues" in self.measures else 0)
        return ROOM + 4 * vectors * subject.model.parameter_count(subject.data.facts())
