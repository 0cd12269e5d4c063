"""The loss on the straight line between weights."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from core.errors import FieldProblem
from core.recipe.analyses.base import AnalysisSpec, SplitName
from core.recipe.analyses.grid_options import (
    BatchNorm,
    Range,
    Splits,
    Steps,
    empty_splits,
    examples_per_point,
    stacked_bytes,
    too_few_to_normalise,
)
from core.recipe.spec import JobSpec


class Interpolation(AnalysisSpec):
    """Loss and metrics at (1 - a) v + a w for each pair of neighbours v and w, on the data of the first job.

    The barrier is the largest height of the loss above the straight line between the losses of the ends, over a from 0
    to 1: max L(a) - [(1 - a) L(0) + a L(1)]. The ends are therefore always evaluated. Neither is among 11 points from
    -0.5 to 1.5, so there are 13 points; `added` in the results lists the two.

    Two runs with different seeds mostly have a barrier, and mostly because their hidden units are in a different order:
    permutation symmetry explains most linear barriers (Entezari et al. 2022), and a curve often avoids them. A barrier
    does not imply that two minima are of different kinds.

    Batch norm's statistics are estimated again at every point, including the ends; `fixed` interpolates them like
    weights, with variances clamped at 0 beyond the ends. The results also have each of the weights with its own
    statistics.
    """

    summary: ClassVar[str] = "The loss between weights, and the barrier between them."
    paper: ClassVar[str | None] = (
        "Goodfellow et al. 2015, Qualitatively characterizing neural network optimization problems; "
        "Frankle et al. 2020, Linear mode connectivity and the lottery ticket hypothesis"
    )
    implementation: ClassVar[str] = "core.engine.analysis.interpolation"
    fewest: ClassVar[int] = 2
    most: ClassVar[int] = 8

    kind: Literal["interpolation"] = "interpolation"
    range: Range = (-0.5, 1.5)
    steps: Steps = 41
    """Points from one end of the range to the other; 0 and 1 are added where they are not among these."""
    splits: Splits | None = None
    """By default all splits that have examples."""
    bn: BatchNorm = "reestimate"

    def problems(self, subjects: Sequence[JobSpec]) -> Iterator[FieldProblem]:
        yield from super().problems(subjects)
        yield from empty_splits(self, self.splits or (), subjects[0])
        yield from too_few_to_normalise(self, self.bn, subjects[0])

    def splits_of(self, subject: JobSpec) -> tuple[SplitName, ...]:
        """The splits that are evaluated."""
        every: tuple[SplitName, ...] = ("train", "val", "test")
        return self.splits or tuple(split for split in every if self.examples_of(subject, split))

    def memory_bytes(self, subject: JobSpec) -> float:
        """The stacked weights of some points, and a value for each point, split and metric."""
        return stacked_bytes(subject) + 8 * 3 * 3 * (self.steps + 2) * (len(self.requested_starts()) - 1)

    def example_passes(self, subject: JobSpec) -> float:
        """The ends are on the grid, or are two points more."""
        points = (self.steps + 2) * (len(self.requested_starts()) - 1) + len(self.requested_starts())
        return points * examples_per_point(self, self.splits_of(subject), self.bn, subject)
