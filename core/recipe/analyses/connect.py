"""A curve of low loss between two minima."""

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.errors import FieldProblem
from core.recipe.analyses.base import AnalysisSpec
from core.recipe.component import Positive
from core.recipe.spec import JobSpec


class Connect(AnalysisSpec):
    """Trains the control point θ of the curve φ(t) = (1 - t)² w₁ + 2 t (1 - t) θ + t² w₂, and evaluates the curve.

    Every batch of the first job's train split takes a random t and minimises the loss at φ(t) by SGD with `momentum`.
    The learning rate is `lr` for half of the `epochs`, then falls to a hundredth until nine tenths of them. The
    straight line between both is evaluated too, at as many `points`. Batch norm is estimated again at each point.
    """

    summary: ClassVar[str] = "A quadratic Bezier curve trained to connect two minima, compared with the straight line."
    paper: ClassVar[str | None] = (
        "Garipov et al. 2018, Loss surfaces, mode connectivity, and fast ensembling of DNNs; "
        "Draxler et al. 2018, Essentially no barriers in neural network energy landscape"
    )
    implementation: ClassVar[str] = "core.engine.analysis.connect"
    fewest: ClassVar[int] = 2
    most: ClassVar[int] = 2

    kind: Literal["connect"] = "connect"
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 100
    lr: Positive = 0.03
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    batch_size: Annotated[int, Field(ge=1, le=10**6)] | None = None
    points: Annotated[int, Field(ge=3, le=1001)] = 61

    def problems(self, subjects: Sequence[JobSpec]) -> Iterator[FieldProblem]:
        yield from super().problems(subjects)
        first, size = subjects[0], self.batch_examples(subjects[0])
        rest = self.examples_of(first) % size
        if first.model.normalises_batches and 1 in {size, rest}:
            message = f"batches of {size} leave a batch of one example, for which batch norm has no statistics"
            yield FieldProblem("/batch_size", message, "take another batch size")

    def batch_examples(self, subject: JobSpec) -> int:
        """Examples in a batch; by default the batch size of the first job."""
        return min(self.batch_size or subject.shape().batch, self.examples_of(subject))

    def example_passes(self, subject: JobSpec) -> float:
        train = self.examples_of(subject)
        parts = sum(self.examples_of(subject, split) for split in ("train", "val", "test"))
        return 3 * self.epochs * train + 2 * self.points * (parts + train * subject.model.normalises_batches)

    def memory_bytes(self, subject: JobSpec) -> float:
        return 4 * 8 * subject.model.parameter_count(subject.data.facts())
