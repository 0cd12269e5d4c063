"""The path of a run, in the plane in which it moved most."""

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.errors import FieldProblem
from core.recipe.analyses.base import MOST_MEMORY, AnalysisSpec
from core.recipe.analyses.grid_options import (
    BatchNorm,
    Splits,
    empty_splits,
    examples_per_point,
    stacked_bytes,
    too_few_to_normalise,
)
from core.recipe.spec import JobSpec

KEEP = 'train with more of them: "checkpoints": {"every": "1ep", "keep_last": 50}'
VECTORS = 32  # bytes for each weight of a checkpoint: weight, gradient buffer, difference, and this in float64 twice


class Trajectory(AnalysisSpec):
    """The checkpoints that a job has kept, relative to its last weights, and the loss in a plane around them.

    `pca` takes the plane through the last weights in which the path is longest (the data is not centred), and reports
    the share of squared distances that it shows. `random` takes filter-normalised directions as a landscape does; a
    path hardly moves along these. Weights are projected by least squares, and their distance from the plane is
    reported: the surface is the loss in the plane, not the loss of the weights, which is reported too. Averaged weights
    are marked, but are not part of the path.

    `steps` 0 leaves the surface out. `checkpoints.keep_last` of the job determines how many checkpoints it keeps.
    """

    summary: ClassVar[str] = "The path of a run in the plane in which it moved most, with the loss around it."
    paper: ClassVar[str | None] = "Li et al. 2018, Visualizing the loss landscape of neural nets, section 7"
    implementation: ClassVar[str] = "core.engine.analysis.trajectory"
    takes: ClassVar[Literal["weights", "run", "recipe"]] = "run"

    kind: Literal["trajectory"] = "trajectory"
    directions: Literal["pca", "random"] = "pca"
    steps: Annotated[int, Field(ge=0, le=2001)] = 21
    margin: Annotated[float, Field(ge=0, le=10)] = 0.25
    """The margin of the surface around the path, as a share of the path's extent."""
    splits: Splits = ("train",)
    bn: BatchNorm = "reestimate"

    def problems(self, subjects: Sequence[JobSpec]) -> Iterator[FieldProblem]:
        yield from super().problems(subjects)
        where = "/checkpoints" if self.checkpoints else "/job" if self.job else "/checkpoint"
        if len(subjects) < 2:
            yield FieldProblem(where, "a path needs at least two kept checkpoints", KEEP)
        if (
            moves := len(subjects) * VECTORS * subjects[0].model.parameter_count(subjects[0].data.facts())
        ) > MOST_MEMORY:
            message = f"{len(subjects)} checkpoints need about {moves / 2**30:,.1f} GiB of memory"
            yield FieldProblem(where, message, "name fewer of them")
        if self.steps == 1:
            yield FieldProblem("/steps", "one step is no surface", "take 0 for none, or 2 and more")
        yield from empty_splits(self, self.splits, subjects[0])
        yield from too_few_to_normalise(self, self.bn, subjects[0])

    def example_passes(self, subject: JobSpec) -> float:
        """The points of the path cost little in comparison with the surface; they count as one."""
        return (self.steps**2 + 1) * examples_per_point(self, self.splits, self.bn, subject)

    def memory_bytes(self, subject: JobSpec) -> float:
        """Two directions in float64; a value for each point, split and metric; the weights of some points."""
        vectors = 2 * 8 * subject.model.parameter_count(subject.data.facts())
        return vectors + stacked_bytes(subject) + 8 * 3 * len(self.splits) * self.steps**2
