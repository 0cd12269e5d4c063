"""The learning-rate range test: the learning rates at which a recipe trains."""

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.errors import FieldProblem
from core.recipe.analyses.base import AnalysisSpec
from core.recipe.component import Positive
from core.recipe.spec import JobSpec


class LrRange(AnalysisSpec):
    """Trains as the job does from its start, while the learning rate rises geometrically from `low` to `high`.

    There is one run for each of `runs` seeds, the job's and the next ones, which change initial weights and data order.
    A run ends early where its loss, smoothed with weight `smoothing` for the newest value, is `stop_at` times its
    lowest. The job's schedule, averaging and stopping rules do not apply, and the job itself does not change.
    """

    summary: ClassVar[str] = (
        "A learning-rate range test (LR range test): the loss while the learning rate rises, for several seeds."
    )
    paper: ClassVar[str | None] = "Smith 2017, Cyclical learning rates for training neural networks"
    implementation: ClassVar[str] = "core.engine.analysis.lr_range"
    takes: ClassVar[Literal["weights", "run", "recipe"]] = "recipe"

    kind: Literal["lr_range"] = "lr_range"
    low: Positive = 1e-5
    high: Positive = 10.0
    steps: Annotated[int, Field(ge=30, le=10_000)] = 100
    runs: Annotated[int, Field(ge=3, le=20)] = 3
    smoothing: Annotated[float, Field(gt=0, le=1)] = 0.05
    stop_at: Annotated[float, Field(gt=1, le=1e6)] = 4.0

    def contradictions(self) -> Iterator[FieldProblem]:
        found = tuple(super().contradictions())
        yield from found
        if not found and self.low >= self.high:
            yield FieldProblem("/low", "the lowest rate is not below the highest", 'as in "low": 1e-5')

    def problems(self, subjects: Sequence[JobSpec]) -> Iterator[FieldProblem]:
        yield from super().problems(subjects)
        first = subjects[0]
        if why := first.optimizer.no_lr_sweep_reason:
            message = f"{first.optimizer.name} has no meaningful sweep of learning rates: {why}"
            yield FieldProblem(
                "/job", message, "take a job whose optimizer follows its learning rate, as sgd and adam do"
            )
        if first.data.facts().task == "function":
            message = "the loss of a point on a function depends on the position of the point, not on how it trains"
            yield FieldProblem("/job", message, "take a job that trains a network")
        examples = self.examples_of(first)
        size = min(first.shape().batch, examples)
        if self.examples and first.model.normalises_batches and (examples % size == 1 or size == 1):
            message = (
                f"{examples} examples leave a batch of one in batches of {size}, which batch norm cannot normalise"
            )
            yield FieldProblem("/examples", message, "take one more")

    def step_examples(self, subject: JobSpec) -> int:
        """Examples in an optimizer step."""
        return min(subject.shape().batch * subject.accumulate, self.examples_of(subject))

    def example_passes(self, subject: JobSpec) -> float:
        gradients = 2 if subject.sam else 1
        return 3.0 * gradients * self.runs * self.steps * self.step_examples(subject)

    def memory_bytes(self, subject: JobSpec) -> float:
        return 8 * 4 * subject.model.parameter_count(subject.data.facts())
