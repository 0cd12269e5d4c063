"""The way that a run took, in the plane in which it moved most."""

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
VECTORS = 32  # bytes for each weight of a checkpoint: itself, its gradient's place, its move, and that in double twice


class Trajectory(AnalysisSpec):
    """The checkpoints that a job has kept, seen from its last weights, and the loss in the plane around them.

    `pca` takes the plane through the last weights in which the way is longest (nothing is centred), and tells the share
    of squared distances that it shows. `random` takes filter-normalised directions as a landscape does; a way hardly
    moves along these. Where weights stand is found by least squares, and how far they are from the plane is told: the
    surface shows the loss in the plane, not theirs, which stands beside it. Averaged weights are drawn, not followed.

    `steps` 0 leaves the surface out. A job keeps the checkpoints on its way where it is told to
    (`checkpoints.keep_last`).
    """

    summary: ClassVar[str] = "The path of a run in the plane in which it moved most, with the loss around it."
    paper: ClassVar[str | None] = "Li et al. 2018, Visualizing the loss landscape of neural nets, section 7"
    implementation: ClassVar[str] = "core.engine.analysis.trajectory"
    takes: ClassVar[Literal["weights", "run", "recipe"]] = "run"

    kind: Literal["trajectory"] = "trajectory"
    directions: Literal["pca", "random"] = "pca"
    steps: Annotated[int, Field(ge=0, le=2001)] = 21
    margin: Annotated[float, Field(ge=0, le=10)] = 0.25
    """How much further than the way the surface goes, as a share of the way's extent."""
    splits: Splits = ("train",)
    bn: BatchNorm = "reestimate"

    def problems(self, subjects: Sequence[JobSpec]) -> Iterator[FieldProblem]:
        yield from super().problems(subjects)
        where = "/checkpoints" if self.checkpoints else "/job" if self.job else "/checkpoint"
        if len(subjects) < 2:
            yield FieldProblem(where, "a way needs two checkpoints that are kept, not one", KEEP)
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
        """The way's own points cost little beside the surface; they are counted as one."""
        return (self.steps**2 + 1) * examples_per_point(self, self.splits, self.bn, subject)

    def memory_bytes(self, subject: JobSpec) -> float:
        """Two directions in double; a value for each point, split and metric; the weights of some points."""
        vectors = 2 * 8 * subject.model.parameter_count(subject.data.facts())
        return vectors + stacked_bytes(subject) + 8 * 3 * len(self.splits) * self.steps**2
