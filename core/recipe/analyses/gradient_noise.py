"""How noisy gradients are, and what batch size that speaks for."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.errors import FieldProblem
from core.recipe.analyses.base import AnalysisSpec
from core.recipe.spec import JobSpec

EXACT_EXAMPLES = 4096  # up to so many, every example's own gradient is looked at
Batch = Annotated[int, Field(ge=1, le=10**6)]


class GradientNoise(AnalysisSpec):
    """The gradient noise scale B = S / G² over a run, at `places` of its checkpoints, evenly spread.

    G² is the squared length of the gradient over the train part, S the sum of the variances of one example's gradient.
    Both are estimated without bias from `draws` batches of `large` examples, drawn with replacement, and the batches of
    `small` examples that these are made of; B is the ratio of their means, its error by leaving out each draw in turn.
    Evaluation mode: batch norm goes by its running statistics, dropout is off.
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
        """Whether the exact values are computed too."""
        return examples <= EXACT_EXAMPLES

    def chosen_checkpoints(self, count: int) -> list[int]:
        """Which of so many checkpoints, in order; the first and the last are among two or more."""
        if count <= self.places:
            return list(range(count))
        if self.places == 1:
            return [count - 1]
        return [round(place * (count - 1) / (self.places - 1)) for place in range(self.places)]
