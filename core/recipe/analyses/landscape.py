"""The loss around weights, along one or two directions."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from core.errors import FieldProblem
from core.recipe.analyses.base import AnalysisSpec
from core.recipe.analyses.grid_options import (
    BatchNorm,
    Ignore,
    Norm,
    Range,
    Splits,
    Steps,
    empty_splits,
    examples_per_point,
    stacked_bytes,
    too_few_to_normalise,
)
from core.recipe.component import Spec, cross_field_error, refuse_boolean
from core.recipe.spec import JobSpec

Directions = Literal["random", "pca", "between", "eigen"]
STEPS = {1: 51, 2: 21}
FOR_EIGENVECTORS = 4 * 80  # passes over the train split: at most 80 products with the Hessian

MOST_PARTS: Final = 64


class Shard(Spec):
    """One of `of` shards of a grid, equal in size: every `of`-th of its tiles, from the `number`-th on."""

    number: Annotated[int, Field(ge=1, le=MOST_PARTS)]
    of: Annotated[int, Field(ge=1, le=MOST_PARTS)]

    @model_validator(mode="after")
    def among_them(self) -> Self:
        """Raises where `number` is greater than `of`."""
        if self.number > self.of:
            raise cross_field_error(
                FieldProblem("/number", f"there is no part {self.number} of {self.of}", "parts count from 1")
            )
        return self


class Landscape(AnalysisSpec):
    """Loss and metrics at w + x d (+ y e) for every x (and y) of a grid, on each of the `splits`.

    `random` directions are normal, and scaled to the norm of the weights: filter by filter (`norm` filter, the default
    for a network), layer by layer, or not at all. Raw directions depend on the scale of the weights as much as on the
    flatness of the loss. `ignore` biasbn does not move biases and batch norm. `between` goes from the first of several
    checkpoints to the second (and the third). `pca` is the plane in which the checkpoints, given in order, move most.
    `between` and `pca` have their own lengths, so that there is no norm to choose.

    `range` is in units of a direction's length: by default -1 to 1, for `between` -0.5 to 1.5, and for `pca` a quarter
    more than the extent of the checkpoints. Two random directions are nearly, not exactly orthogonal: the results have
    their cosine. Batch norm keeps its statistics. For the weights of other checkpoints these are wrong, so `between`
    and `pca` estimate them again at every point.

    With `part` it computes one shard alone, so that several workers share one surface; an `assembly` joins the parts.
    """

    summary: ClassVar[str] = "The loss around weights as a curve or a surface, filter-normalised."
    paper: ClassVar[str | None] = "Li et al. 2018, Visualizing the loss landscape of neural nets"
    implementation: ClassVar[str] = "core.engine.analysis.landscape"
    most: ClassVar[int] = 64

    kind: Literal["landscape"] = "landscape"
    dimensions: Annotated[Literal[1, 2], BeforeValidator(refuse_boolean)] = 2
    directions: Directions = "random"
    norm: Norm | None = None
    ignore: Ignore = "biasbn"
    range: Range | None = None
    steps: Steps | None = None
    splits: Splits = ("train",)
    bn: BatchNorm | None = None
    part: Shard | None = None

    def contradictions(self) -> Iterator[FieldProblem]:
        """Also directions that need more weights, or fewer, than the input has."""
        found = tuple(super().contradictions())
        yield from found or self._of_directions()

    def _of_directions(self) -> Iterator[FieldProblem]:
        count, where = (
            len(self.requested_starts()),
            "/checkpoints" if self.checkpoints else "/job" if self.job else "/checkpoint",
        )
        needed = self.dimensions + 1
        if self.directions in {"random", "eigen"} and count != 1:
            message = f"{self.directions} directions need one set of weights, not {count}"
            yield FieldProblem(where, message, 'take one, or "directions": "between"')
        elif self.directions == "between" and count != needed:
            yield FieldProblem(
                where, f"{needed} of them span {self.dimensions}, not {count}", _checkpoints_hint(needed)
            )
        elif self.directions == "pca" and count < needed:
            yield FieldProblem(where, f"at least {needed} of them span {self.dimensions}", _checkpoints_hint(needed))
        elif self.directions != "random" and self.norm not in {None, "none"}:
            message = f"{self.directions} has a length of its own"
            yield FieldProblem("/norm", message, 'leave it out, or take "directions": "random"')

    def problems(self, subjects: Sequence[JobSpec]) -> Iterator[FieldProblem]:
        yield from super().problems(subjects)
        first = subjects[0]
        if self.norm in {"filter", "layer"} and not first.model.filters:
            message = f"{first.model.name} has no filters or layers to measure directions by"
            yield FieldProblem("/norm", message, 'take "norm": "none"')
        if self.dimensions > (there := first.model.parameter_count(first.data.facts())):
            message = f"{self.dimensions} directions, where there is {there} weight"
            yield FieldProblem("/dimensions", message, 'take "dimensions": 1')
        yield from empty_splits(self, self.splits, first)
        yield from too_few_to_normalise(self, self.batch_norm(), first)

    def batch_norm(self) -> BatchNorm:
        return self.bn or ("fixed" if self.directions in {"random", "eigen"} else "reestimate")

    def norm_for(self, subject: JobSpec) -> Norm:
        """The normalisation of the directions for this job's model."""
        return self.norm or ("filter" if self.directions == "random" and subject.model.filters else "none")

    def steps_each(self) -> int:
        """Grid points along one direction."""
        return self.steps or STEPS[self.dimensions]

    def point_count(self) -> int:
        """Points of the whole grid."""
        return math.prod([self.steps_each()] * self.dimensions)

    def example_passes(self, subject: JobSpec) -> float:
        before = FOR_EIGENVECTORS * self.examples_of(subject) if self.directions == "eigen" else 0
        share = 1 / self.part.of if self.part else 1.0
        return before + share * self.point_count() * examples_per_point(self, self.splits, self.batch_norm(), subject)

    def memory_bytes(self, subject: JobSpec) -> float:
        """Directions and differences in float64; a value for each point, split and metric; some points' weights."""
        vectors = (
            8
            * subject.model.parameter_count(subject.data.facts())
            * (self.dimensions + 2 * len(self.requested_starts()))
        )
        return vectors + stacked_bytes(subject) + 8 * 3 * len(self.splits) * self.point_count()


def _checkpoints_hint(count: int) -> str:
    return f'name {count} "checkpoints"'
