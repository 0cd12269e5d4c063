"""The gradient noise scale, and the batch size that it suggests."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.errors import FieldProblem
from core.recipe.analyses.base import AnalysisSpec
from core.recipe.spec import JobSpec

EXACT_EXAMPLES = 4096  # up to this many examples, the gradient of each is computed
Batch = Annotated[int, Field(ge=1, le=10**6)]


class GradientNoise(AnalysisSpec):
    """The gradient noise scale B = S / G² over a run, at `places` of its checkpoints, evenly spaced.

    G² is the squared norm of the gradient over the train split, S the sum of the variances of one example's gradient.
    Both have unbiased estimates from `draws` batches of `large` examples, drawn with replacement, and the batches of
    `small` examples within these; B is the ratio of their means, and its error is the jackknife's. The network is in
    evaluation mode: batch norm uses its running statistics, dropout is off.
    """

    summary: ClassVar[str] = "The gradient noise scale over a run, a guide to the batch size."
    paper: ClassVar[str | None] = (
        "McCandlish et al. 2018, An empirical model of large-batch training; "
        "Merrill et al. 2025, Critical batch size revisited"
    )
    implementation: ClassVar[str] = "core.engine.analysis.gradient_noise"
    takes: ClassVar[Literal["weights", "run", "recipe"]] = "run"

    kind: Literal["gradient_noise"] = "gradient_noise"
    small: Batch = 4
    large: Batch = 64
    draws: Annotated[int, Field(ge=10, le=100_000)] = 50
    places: Annotated[int, Field(ge=1, le=200)] = 20

    def contradictions(self) -> Iterator[FieldProblem]:
        found = tuple(super().contradictions())
        yield from found
        if not found and (self.large < 2 * self.small or self.large % self.small):
            message = f"batches of {self.large} are not made of two or more of {self.small}"
            yield FieldProblem("/large", message, "take a multiple of `small`")

    def example_passes(self, subject: JobSpec) -> float:
        examples = self.examples_of(subject)
        exact = examples if self.computes_exactly(examples) else 0
        return 3.0 * self.places * (self.draws * self.large + exact)

    def memory_bytes(self, subject: JobSpec) -> float:
        return 4 * (2 * self.large // self.small + 8) * subject.model.parameter_count(subject.data.facts())

    @staticmethod
    def computes_exactly(examples: int) -> bool:
        """Whether the exact values are computed as well."""
        return examples <= EXACT_EXAMPLES

    def chosen_checkpoints(self, count: int) -> list[int]:
        """The indices of the chosen checkpoints of `count`, in order; two or more include the first and the last."""
        if count <= self.places:
            return list(range(count))
        if self.places == 1:
            return [count - 1]
        return [round(place * (count - 1) / (self.places - 1)) for place in range(self.places)]
