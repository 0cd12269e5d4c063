"""The average of weights compared with the average of their predictions."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from core.errors import FieldProblem
from core.recipe.analyses.base import AnalysisSpec
from core.recipe.spec import JobSpec


class Average(AnalysisSpec):
    """Evaluates each of the weights, their mean with batch norm estimated again on the train split, and the mean of
    their predictions (for classes, of the probabilities), on every split of the first job's data.
    """

    summary: ClassVar[str] = "One network with the mean of the weights, beside the mean of their predictions."
    paper: ClassVar[str | None] = (
        "Izmailov et al. 2018, Averaging weights leads to wider optima; Huang et al. 2017, Snapshot ensembles"
    )
    implementation: ClassVar[str] = "core.engine.analysis.average"
    fewest: ClassVar[int] = 2
    most: ClassVar[int] = 64

    kind: Literal["average"] = "average"

    def problems(self, subjects: Sequence[JobSpec]) -> Iterator[FieldProblem]:
        yield from super().problems(subjects)
        if subjects[0].data.facts().task == "function":
            yield FieldProblem("/checkpoints", "a point on a function predicts nothing to average", "take networks")

    def example_passes(self, subject: JobSpec) -> float:
        parts = sum(self.examples_of(subject, split) for split in ("train", "val", "test"))
        return (len(self.requested_starts()) + 2) * parts
